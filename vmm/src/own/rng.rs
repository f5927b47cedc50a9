//! Entropy: the kernel's generator behind virtio-rng.

use moirai_devices::fault::Fault;
use moirai_devices::rng;
use rustix::rand::{GetRandomFlags, getrandom};

use super::model::{Model, Queues};

/// The device; it has no state.
#[derive(Debug)]
pub(super) struct Rng;

impl Model for Rng {
    fn serve(&mut self, queues: &mut Queues) -> Result<(), Fault> {
        queues.each(0, |mem, queue| rng::serve(mem, queue, fill))
    }
}

/// Fills `bytes`; returns how many it has.
fn fill(bytes: &mut [u8]) -> usize {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        // Fails only when a signal comes before the kernel has gathered its first entropy.
        done += getrandom(rest, GetRandomFlags::empty()).unwrap_or(0);
    }
    done
}
