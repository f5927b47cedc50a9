#!/usr/bin/env bash
# `make lint`: all checks of the sources that do not run them. Installs its tools itself.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_PROGRESS_WHEN=never
tools=$PWD/target/tools

command -v cc >/dev/null || images/packages.sh

# tool CRATE VERSION PROGRAM: builds a tool, once for each version; unoptimized, because that is what
# takes time, and its work takes seconds.
tool() {
    local place=$tools/$1-$2
    [ -x "$place/bin/$3" ] && return
    echo "lint: building $1 $2, a minute on two cores"
    CARGO_PROFILE_DEV_DEBUG=none CARGO_TARGET_DIR=$tools/build \
        cargo install --quiet --locked --debug --no-track --root "$place" "$1@$2"
}
tool typos-cli 1.52.0 typos
tool cargo-deny 0.20.2 cargo-deny
rm -rf "$tools/build"
typos=$tools/typos-cli-1.52.0/bin/typos deny=$tools/cargo-deny-0.20.2/bin/cargo-deny

cargo fmt --all --check
(cd guest && cargo fmt --all --check)
(cd fuzz && cargo fmt --all --check)
"$typos"
"$deny" --config deny.toml check --hide-inclusion-graph bans licenses sources
# The guest's workspace has not all of what the file allows.
"$deny" --manifest-path guest/Cargo.toml --config deny.toml check --hide-inclusion-graph \
    -A unused-wrapper -A unmatched-skip bans licenses sources
cargo test --quiet --locked -p moirai-tests --test house --test layers
cargo clippy --workspace --all-targets --locked -- -D warnings
# "all" leaves them out
cargo clippy --locked -p moirai-tests --test lab --test counted --bin lab-probe -- -D warnings
(cd guest && cargo clippy --workspace --locked -- -D warnings)
echo "lint: nothing found"
