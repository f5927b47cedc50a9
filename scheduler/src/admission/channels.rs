//! D_order: the admission test of real-time channels (Ferrari and Verma 1990; Kandlur, Shin and
//! Ferrari 1994; Mehra et al., papers/001), kept as the reference beside exact EDF.
//!
//! 1. A channel sends at most one message per `interval` (`I = 1/Rmax`, by logical arrival times)
//!    and promises it within `deadline` (`d`) at this hop.
//! 2. Channels have priorities *in the test only*; the link runs EDF.
//! 3. Response time of channel `i`: the least `t` with
//!    `t = C_i + B_i + sum over higher priority of ceil(t/I_j)*C_j`, valid for `d_i <= I_i`; `B_i`
//!    is the largest packet of any lower priority, or of best effort.
//! 4. A newcomer gets the highest position at which everyone else still meets its `d`, and is
//!    accepted if it meets its own there. Those below have it above them, and those above may have
//!    to wait for its packet: the paper tests the former only, and 29 of 3,450 sets that it accepts
//!    are infeasible.
//! 5. With [`Order::Resorted`] all channels are put in order of `d` at each admission; with
//!    [`Order::Frozen`] everyone stays where it was inserted (much more pessimistic: a first
//!    comer with a long deadline keeps the top).

use crate::time::{Amount, Span};
use alloc::vec::Vec;

/// A real-time channel at one hop. All in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// `C`: transmission time of the largest message.
    pub message: Amount,
    /// Transmission time of its largest packet, which is not preempted.
    pub packet: Amount,
    /// `I`: shortest time between logical arrivals.
    pub interval: Span,
    /// `d`: local deadline after the logical arrival.
    pub deadline: Span,
}

/// Whether priorities are given anew at each admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By deadline, at each admission.
    Resorted,
    /// Where a channel was inserted it stays.
    Frozen,
}

/// Why a channel is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelRefusal {
    /// An interval of zero, or a deadline that no message can meet.
    Malformed,
    /// At the best position its own response time is too long, or unbounded (`None`).
    Late {
        /// The response time there.
        response: Option<Span>,
    },
    /// At every position some admitted channel would miss its deadline.
    Harms,
}

impl core::fmt::Display for ChannelRefusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => write!(f, "no message can meet the deadline of the channel"),
            Self::Late { response: Some(response) } => {
                write!(f, "a message could take {response} ns, longer than its deadline")
            }
            Self::Late { response: None } => write!(f, "a message could take for ever"),
            Self::Harms => write!(f, "an admitted channel would miss its deadline"),
        }
    }
}

impl core::error::Error for ChannelRefusal {}

/// The channels admitted to a link, highest priority first.
#[derive(Clone, Debug)]
pub struct DOrder {
    channels: Vec<Channel>,
    order: Order,
    best_effort: Amount,
}

impl DOrder {
    /// An empty link whose best-effort packets take at most `best_effort` nanoseconds.
    #[must_use]
    pub const fn new(order: Order, best_effort: Amount) -> Self {
        Self { channels: Vec::new(), order, best_effort }
    }

    /// The admitted channels, highest priority first.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Takes a channel in, if everyone's deadline can be met, and returns its position.
    ///
    /// # Errors
    /// See [`ChannelRefusal`]; nothing is changed then.
    pub fn admit(&mut self, newcomer: Channel) -> Result<usize, ChannelRefusal> {
        if newcomer.interval.is_zero() || newcomer.deadline < newcomer.message.time() {
            return Err(ChannelRefusal::Malformed);
        }
        let mut base = self.channels.clone();
        if self.order == Order::Resorted {
            base.sort_by_key(|channel| channel.deadline);
        }
        for position in 0..=base.len() {
            let mut trial = base.clone();
            trial.insert(position, newcomer);
            let mut others = (0..trial.len()).filter(|&i| i != position);
            if !others.all(|i| self.meets(&trial, i)) {
                continue;
            }
            if self.meets(&trial, position) {
                self.channels = trial;
                return Ok(position);
            }
            return Err(ChannelRefusal::Late { response: self.response(&trial, position) });
        }
        Err(ChannelRefusal::Harms)
    }

    /// Takes the channel at `position` out.
    pub fn release(&mut self, position: usize) -> Option<Channel> {
        (position < self.channels.len()).then(|| self.channels.remove(position))
    }

    fn meets(&self, channels: &[Channel], i: usize) -> bool {
        let deadline = channels.get(i).map_or(Span::ZERO, |c| c.deadline.min(c.interval));
        self.response(channels, i).is_some_and(|response| response <= deadline)
    }

    /// The response time of channel `i`, `None` if it is longer than its interval.
    fn response(&self, channels: &[Channel], i: usize) -> Option<Span> {
        let own = channels.get(i)?;
        let (higher, lower) = channels.split_at_checked(i)?;
        let lower = lower.iter().skip(1).map(|channel| channel.packet);
        let blocking = lower.fold(self.best_effort, Amount::max);
        let start = own.message.checked_add(blocking)?;
        let mut time = start.time();
        while time <= own.interval.max(own.deadline) {
            let next = higher.iter().try_fold(start, |sum, channel| {
                let jobs = time.div_ceil(channel.interval);
                sum.checked_add(channel.message.checked_mul(jobs)?)
            })?;
            let next = next.time();
            if next == time {
                return Some(time);
            }
            time = next;
        }
        None
    }
}
