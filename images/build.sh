#!/bin/sh
# Builds the library OS applications and places them, as ELF images, in target/images.
# MOIRAI_IMAGES: another place for them. CARGO_TARGET_DIR is honoured.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
images=${MOIRAI_IMAGES:-$root/target/images}
build=${CARGO_TARGET_DIR:-$root/guest/target}
case $build in /*) ;; *) build=$PWD/$build ;; esac

# Cargo reads guest/.cargo/config.toml (target, linker script) only from inside guest/.
cd "$root/guest"
# An application that is new is not in the lock file yet: add it, change nothing else.
for app in apps/*/; do
    grep -qx "name = \"$(basename "$app")\"" Cargo.lock || { cargo update --quiet --workspace; break; }
done
CARGO_TARGET_DIR=$build cargo build --locked --release --workspace

mkdir -p "$images"
for app in apps/*/; do
    name=$(basename "$app")
    # A VMM may hold the old image open: replace it, do not write into it.
    install -m 755 "$build/x86_64-unknown-none/release/$name" "$images/.$name.new"
    mv "$images/.$name.new" "$images/$name"
done
echo "images in $images: $(ls "$images" | tr '\n' ' ')"
