#!/bin/bash
# Runs the shell blocks (```sh) of guest/README.md as a reader would paste them, and builds the example
# of sdk/src/lib.rs, in a copy of the tree. Crates are built where they are built anyway.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() { echo "FAILED: $1" >&2; exit 1; }

# What git knows and what is new, as it stands in the work tree.
git -C "$root" ls-files -z --cached --others --exclude-standard \
    | (cd "$root" && xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' _) \
    | tar -C "$root" --null -T - -c | tar -C "$work" -x
unset MOIRAI_IMAGES
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/guest/target}

awk -v work="$work" '
    /^ *```sh$/ { block++; on = 1; next }
    /^ *```$/ { on = 0 }
    on { print > (work "/block-" block) }
' "$root/guest/README.md"
[ -e "$work/block-2" ] || fail "guest/README.md has no steps"
for block in "$work"/block-*; do
    (cd "$work" && bash -euo pipefail "$block" </dev/null) || { cat "$block" >&2; fail "these steps of guest/README.md"; }
done
[ -x "$work/target/images/hello" ] || fail "the steps of guest/README.md made no image of hello"

awk '/^\/\/! ```ignore$/ { on = 1; next } /^\/\/! ```$/ { on = 0 } on { sub(/^\/\/! ?/, ""); print }' \
    "$root/guest/sdk/src/lib.rs" >"$work/guest/apps/hello/src/main.rs"
(cd "$work" && images/build.sh) || fail "the example of sdk/src/lib.rs does not build"
echo "ok: the steps of guest/README.md and the example of the SDK work"
