#!/bin/sh
# Builds moirai-image as vmm/build.sh builds moirai-tenant, for the same reasons, and places it in
# target/release. What panics aborts: nothing of a process that broke on an image may go on.
# CARGO_TARGET_DIR is honoured.
set -eu
cd "$(dirname "$0")/.."
build=${CARGO_TARGET_DIR:-target}
target=x86_64-unknown-linux-gnu

# The flags are given here because they concern this binary only: with `--target`, build scripts
# and procedural macros do not see them, and the host service is linked as usual.
cargo build --release --locked -p moirai-image --bin moirai-image --target "$target" \
    --config "target.$target.rustflags=['-Ctarget-feature=+crt-static']" \
    --config 'profile.release.lto="fat"' \
    --config 'profile.release.codegen-units=1' \
    --config 'profile.release.panic="abort"'

mkdir -p "$build/release"
# A running process holds the old binary open, and cargo may have linked it elsewhere: replace it.
install -m 755 "$build/$target/release/moirai-image" "$build/release/.moirai-image.new"
mv "$build/release/.moirai-image.new" "$build/release/moirai-image"
