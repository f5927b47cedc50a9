//! What is to be listened to again after a while.

use moirai_scheduler::Moment;

use crate::DeviceId;
use crate::later::Later;
use crate::token::Token;

/// Sources that are not listened to at the moment.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    /// What is to be listened to, and could not be.
    pub(crate) unheard: Later<Token>,
    /// Devices whose peer has talked too much.
    pub(crate) muted: Later<DeviceId>,
}

impl Retries {
    /// When the next of them is to be tried.
    pub(crate) fn at(&self) -> Option<Moment> {
        self.unheard.at().into_iter().chain(self.muted.at()).min()
    }
}
