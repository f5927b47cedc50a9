//! Entropy: the kernel's generator behind virtio-rng.
#![allow(unsafe_code, reason = "getrandom has no safe wrapper among our dependencies")]

use moirai_devices::fault::Fault;
use moirai_devices::rng;

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
        // SAFETY: the pointer and the length are those of a live, exclusively borrowed slice.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        // Fails only when a signal comes before the kernel has gathered its first entropy.
        done += usize::try_from(got).unwrap_or(0);
    }
    done
}
