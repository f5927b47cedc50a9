#!/bin/sh
# Builds moirai-tenant statically linked, position independent and as a whole, and places it in
# target/release: without a dynamic linker it starts sooner and touches a megabyte less.
# CARGO_TARGET_DIR is honoured.
#
# usage: build.sh [PACKAGE BINARY]    (another program of ours that is built so)
set -eu
cd "$(dirname "$0")/.."
package=${1:-moirai-vmm} binary=${2:-moirai-tenant}
build=${CARGO_TARGET_DIR:-target}
target=x86_64-unknown-linux-gnu

# The flags are given here because they concern this binary only: with `--target`, build scripts
# and procedural macros do not see them, and the host service is linked as usual.
cargo build --release --locked -p "$package" --bin "$binary" --target "$target" \
    --config "target.$target.rustflags=['-Ctarget-feature=+crt-static']" \
    --config 'profile.release.lto="fat"' \
    --config 'profile.release.codegen-units=1' \
    --config 'profile.release.panic="abort"'

mkdir -p "$build/release"
# A running process holds the old binary open, and cargo may have linked it elsewhere: replace it.
install -m 755 "$build/$target/release/$binary" "$build/release/.$binary.new"
mv "$build/release/.$binary.new" "$build/release/$binary"
