#!/bin/sh
# Builds moirai-tenant statically linked, position independent and as a whole, and places it in
# target/release: without a dynamic linker it starts sooner and touches a megabyte less.
# CARGO_TARGET_DIR is honoured.
set -eu
cd "$(dirname "$0")/.."
build=${CARGO_TARGET_DIR:-target}
target=x86_64-unknown-linux-gnu

# The flags are given here because they concern this binary only: with `--target`, build scripts
# and procedural macros do not see them, and the host service is linked as usual.
cargo build --release --locked -p moirai-vmm --bin moirai-tenant --target "$target" \
    --config "target.$target.rustflags=['-Ctarget-feature=+crt-static']" \
    --config 'profile.release.lto="fat"' \
    --config 'profile.release.codegen-units=1' \
    --config 'profile.release.panic="abort"'

mkdir -p "$build/release"
# A running tenant holds the old binary open, and cargo may have linked it elsewhere: replace it.
install -m 755 "$build/$target/release/moirai-tenant" "$build/release/.moirai-tenant.new"
mv "$build/release/.moirai-tenant.new" "$build/release/moirai-tenant"
