# Moirai: `make demo` and `make test` do all set-up themselves (Debian 12, root, /dev/kvm, Rust).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export CARGO_TERM_PROGRESS_WHEN ?= never

SECONDS_DEMO ?= 30
SECONDS_FUZZ ?= 60
SECONDS_CHAOS ?= 3600
POINTS_POWER ?= 1000
IO_TURNS ?= 100000000

.PHONY: all host images setup demo test lab bench lint prove fuzz chaos power mutants docs clean

all: host images

host:
	cargo build --release --locked -p moirai-cli
	vmm/build.sh
	image/build.sh

images: | setup-target
	images/build.sh

setup: setup-target
	images/packages.sh

setup-target:
	@rustup target list --installed | grep -qx x86_64-unknown-none || rustup target add x86_64-unknown-none

.PHONY: setup-target

# The main job: five tenants, one core, one disk, one link; with and without Moirai's scheduling.
demo: setup host images
	target/release/moirai demo --seconds $(SECONDS_DEMO)

test: setup host images
	tests/run.sh

# Linux tenants in a machine of their own: `make lab TEST=name` runs what has that in its name.
lab: setup host images
	tests/lab/run.sh test $(TEST)

bench: setup host images
	tests/bench.sh

# Formats, words, licences, dependencies, clippy. Installs its tools itself.
lint: setup-target
	tests/lint.sh

prove:
	cargo run --release --locked -p moirai-simulator --bin prove
	MOIRAI_IO_TURNS=$(IO_TURNS) cargo test --release --locked -p moirai-io --lib proof -- --nocapture

# Bytes made by libFuzzer for every parser that somebody reaches who is not to be trusted
# (fuzz/src/lib.rs). Hours of it: make fuzz SECONDS_FUZZ=3600.
fuzz: setup-target
	SECONDS_FUZZ=$(SECONDS_FUZZ) fuzz/run.sh

# An hour of faults at random on a host service under load. SEED=n repeats the faults of a run.
chaos: setup host images
	cargo run --quiet --locked -p moirai-tests --bin chaos -- --seconds $(SECONDS_CHAOS) $(if $(SEED),--seed $(SEED))

# Cuts the power of a disk at so many points of each case; what was flushed has to be there.
power: setup host images
	cargo run --quiet --locked -p moirai-tests --bin chaos -- $(if $(SEED),--seed $(SEED)) power --points $(POINTS_POWER)

# Breaks the scheduler in every way there is, to see whether its tests notice. Half an hour.
mutants:
	scheduler/mutants.sh

docs:
	cargo doc --workspace --no-deps --locked

clean:
	cargo clean
	rm -rf guest/target
