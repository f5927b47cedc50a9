//! Who may be in an image at the same time.
//!
//! Requests whose clusters are known go past the worker, many at once. A request that changes where
//! clusters are has the image to itself. So a cluster that was looked up stays where it is until
//! the request that looked it up is over, and nobody else gets a cluster while an operation on it
//! is in flight.

/// A request's place at the turnstile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pass {
    /// Not there yet, or gone.
    #[default]
    None,
    /// Waits to have the image to itself.
    Queued,
    /// In, with others.
    Shared,
    /// In, alone.
    Alone,
}

/// The turnstile of one image.
#[derive(Debug, Default)]
pub(super) struct Turnstile {
    shared: usize,
    alone: bool,
    queued: usize,
}

impl Turnstile {
    /// Lets a request in, alone or with others. If not, it has to try again after another one left;
    /// one that wants to be alone keeps others from coming in until then.
    pub(super) fn enter(&mut self, pass: &mut Pass, alone: bool) -> bool {
        if matches!(pass, Pass::Shared | Pass::Alone) {
            return true;
        }
        let queued = *pass == Pass::Queued;
        let free = if alone { self.shared == 0 } else { self.queued == 0 || queued };
        if self.alone || !free {
            if alone && !queued {
                self.queued += 1;
                *pass = Pass::Queued;
            }
            return false;
        }
        self.leave(pass);
        if alone {
            self.alone = true;
            *pass = Pass::Alone;
        } else {
            self.shared += 1;
            *pass = Pass::Shared;
        }
        true
    }

    /// A request that is in alone turns out to change nothing: it goes on with others.
    pub(super) fn share(&mut self, pass: &mut Pass) {
        if *pass == Pass::Alone {
            self.alone = false;
            self.shared += 1;
            *pass = Pass::Shared;
        }
    }

    /// Whether nobody would be let in now.
    pub(super) fn is_closed(&self) -> bool {
        self.alone || self.queued > 0
    }

    /// A request is over, or does not want in any more.
    pub(super) fn leave(&mut self, pass: &mut Pass) {
        match std::mem::take(pass) {
            Pass::None => {}
            Pass::Queued => self.queued = self.queued.saturating_sub(1),
            Pass::Shared => self.shared = self.shared.saturating_sub(1),
            Pass::Alone => self.alone = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whoever is alone is alone, and everybody who goes on trying gets in.
        #[test]
        fn nobody_is_with_one_that_is_alone_and_all_get_in(
            wants in prop::collection::vec((any::<bool>(), 1_u32..4), 1..40),
        ) {
            let mut turnstile = Turnstile::default();
            let mut guests: Vec<_> =
                wants.iter().map(|(alone, stay)| (*alone, *stay, Pass::None)).collect();
            for _ in 0..wants.len() * 5 + 5 {
                for (alone, stay, pass) in guests.iter_mut().filter(|(_, stay, _)| *stay > 0) {
                    if turnstile.enter(pass, *alone) {
                        *stay -= 1;
                        // Every other one that was alone finds that it need not be.
                        if *stay == 1 && *alone {
                            turnstile.share(pass);
                        }
                    }
                    if *stay == 0 {
                        turnstile.leave(pass);
                    }
                }
                let alone = guests.iter().filter(|(.., pass)| *pass == Pass::Alone).count();
                let shared = guests.iter().filter(|(.., pass)| *pass == Pass::Shared).count();
                prop_assert!(alone <= 1 && (alone == 0 || shared == 0));
            }
            prop_assert!(guests.iter().all(|(_, stay, _)| *stay == 0), "{guests:?}");
        }
    }
}
