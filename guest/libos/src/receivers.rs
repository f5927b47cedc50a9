//! Who is sent to, and whether they can be reached. Trouble is told once when it begins, and again
//! when it has changed or has been over. Every packet is a new try; at the end there is a verdict.
//!
//! Pure: what was tried and who answered come in, with the time.

use crate::icmp::{Reason, Unreachable};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddrV4;
use thiserror::Error;

/// ICMP answers come late and seldom: after so long without one, the trouble is over.
const SILENT_NS: u64 = 10_000_000_000;
/// Who has got packets for so long without an answer has got them: answers to a stream come once a
/// second.
const CONFIRMED_NS: u64 = 2_000_000_000;
/// More receivers than this are not written out.
const WRITTEN_MAX: usize = 8;

/// A datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The ring is full: wait until the device has sent something.
    #[error("the link's ring is full")]
    Full,
    /// The receiver is not in our network, and there is no gateway.
    #[error("no route: it is outside our network, and gw= names no gateway")]
    NoRoute,
    /// The next hop has not answered ARP yet.
    #[error("no neighbour: the next hop does not answer ARP")]
    Unresolved,
    /// Headers and payload are more than a packet of this link holds.
    #[error("the datagram is larger than the link's packets")]
    TooLarge,
}

/// Why a receiver cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no way to it.
    NoRoute,
    /// Its next hop does not answer ARP.
    NoNeighbour,
    /// It, or a router, has answered that a packet did not arrive.
    Answered(Reason),
}

impl Trouble {
    /// The reason in a word or two, and what may help.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NoRoute => ("no route", "it is outside the network of ip=, and gw= is missing"),
            Self::NoNeighbour => ("no neighbour", "it, or the gateway to it, does not answer ARP"),
            Self::Answered(Reason::Refused) => ("refused", "nobody listens at its port"),
            Self::Answered(Reason::NoWay) => ("no way", "a router cannot or may not reach it"),
            Self::Answered(Reason::TooLarge) => {
                ("too large", "a link on the way takes only smaller packets")
            }
        }
    }
}

/// What did not arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Not sent, because the receiver's next hop has not answered ARP.
    pub unresolved: u64,
    /// Not sent, because there is no route to the receiver.
    pub unrouted: u64,
    /// ICMP answers of receivers at whose port nobody listens.
    pub refused: u64,
    /// Other ICMP answers that say a packet did not arrive.
    pub unreachable: u64,
}

/// How a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was tried.
    New,
    /// It gets packets since then, as far as is known.
    Served { since: u64 },
    /// It does not, since then; the last answer came at `heard`.
    Troubled { why: Trouble, since: u64, heard: u64 },
}

#[derive(Debug)]
struct Receiver {
    address: SocketAddrV4,
    state: State,
    /// It has got packets for so long that somebody must have taken them.
    confirmed: bool,
}

/// The receivers of a stream, in the order in which they were named.
#[derive(Debug)]
pub struct Receivers {
    source_port: u16,
    list: Vec<Receiver>,
    fresh: VecDeque<(SocketAddrV4, Trouble)>,
    counters: Counters,
}

impl Receivers {
    /// Receivers of what is sent from `source_port`.
    #[must_use]
    pub fn new(addresses: &[SocketAddrV4], source_port: u16) -> Self {
        let receiver = |&address| Receiver { address, state: State::New, confirmed: false };
        let list = addresses.iter().map(receiver).collect();
        Self { source_port, list, fresh: VecDeque::new(), counters: Counters::default() }
    }

    /// Their addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.list.iter().map(|receiver| receiver.address)
    }

    /// The address of one; `None` if there are not so many.
    #[must_use]
    pub fn address(&self, number: usize) -> Option<SocketAddrV4> {
        self.list.get(number).map(|receiver| receiver.address)
    }

    /// The port that they are sent to from.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        self.source_port
    }

    /// What did not arrive so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The next trouble that is new, oldest first.
    pub fn take_trouble(&mut self) -> Option<(SocketAddrV4, Trouble)> {
        self.fresh.pop_front()
    }

    /// A packet for receiver `number` was handed to the link, or was not.
    pub fn tried(&mut self, number: usize, result: Result<(), SendError>, now: u64) {
        let Some(receiver) = self.list.get_mut(number) else { return };
        let trouble = match result {
            Ok(()) => return receiver.served(now),
            Err(SendError::Full | SendError::TooLarge) => return,
            Err(SendError::NoRoute) => {
                self.counters.unrouted += 1;
                Trouble::NoRoute
            }
            Err(SendError::Unresolved) => {
                self.counters.unresolved += 1;
                Trouble::NoNeighbour
            }
        };
        if receiver.begin(trouble, now) {
            self.fresh.push_back((receiver.address, trouble));
        }
    }

    /// Somebody has said that a packet did not arrive.
    pub fn answered(&mut self, answer: &Unreachable, now: u64) {
        if answer.source.port() != self.source_port {
            return;
        }
        let mut known = false;
        // A receiver may be named twice.
        for receiver in self.list.iter_mut().filter(|to| to.address == answer.destination) {
            let trouble = Trouble::Answered(answer.reason);
            if receiver.begin(trouble, now) && !known {
                self.fresh.push_back((receiver.address, trouble));
            }
            known = true;
        }
        match answer.reason {
            _ if !known => {}
            Reason::Refused => self.counters.refused += 1,
            Reason::NoWay | Reason::TooLarge => self.counters.unreachable += 1,
        }
    }

    /// May an answer still come that says that nothing has arrived?
    #[must_use]
    pub fn is_uncertain(&self, now: u64) -> bool {
        self.list.iter().any(|receiver| receiver.is_uncertain(now))
    }

    /// Is there anybody who has got what was sent, up to now? `None`: yes, or nothing was tried.
    /// Who has left within the last seconds counts.
    #[must_use]
    pub fn verdict(&self, now: u64) -> Option<String> {
        if !self.list.iter().all(|receiver| receiver.is_lost(now)) || self.list.is_empty() {
            return None;
        }
        let mut text = String::from("no receiver could be reached");
        if self.list.iter().any(|receiver| receiver.confirmed) {
            text.push_str(" at the end");
        }
        for (place, receiver) in self.list.iter().take(WRITTEN_MAX).enumerate() {
            let State::Troubled { why, .. } = receiver.state else { continue };
            let (reason, hint) = why.words();
            let before = if place == 0 { ": " } else { "; " };
            text.push_str(&format!("{before}{} {reason} ({hint})", receiver.address));
        }
        if self.list.len() > WRITTEN_MAX {
            text.push_str(&format!("; and {} more", self.list.len() - WRITTEN_MAX));
        }
        Some(text)
    }
}

impl Receiver {
    fn served(&mut self, now: u64) {
        match self.state {
            State::Served { .. } => {}
            State::Troubled { why: Trouble::Answered(_), heard, .. }
                if now.saturating_sub(heard) <= SILENT_NS => {}
            State::New | State::Troubled { .. } => self.state = State::Served { since: now },
        }
    }

    /// True if that is new.
    fn begin(&mut self, why: Trouble, now: u64) -> bool {
        let (before, since) = match self.state {
            State::New => (None, now),
            State::Served { since } => {
                self.confirmed |= now.saturating_sub(since) > CONFIRMED_NS;
                (None, now)
            }
            State::Troubled { why, since, .. } => (Some(why), since),
        };
        self.state = State::Troubled { why, since, heard: now };
        before != Some(why)
    }

    fn is_uncertain(&self, now: u64) -> bool {
        let ip = self.address.ip();
        let answers = !ip.is_multicast() && !ip.is_broadcast();
        let young = |since| now.saturating_sub(since) <= CONFIRMED_NS;
        answers && matches!(self.state, State::Served { since } if young(since))
    }

    fn is_lost(&self, now: u64) -> bool {
        match self.state {
            State::New | State::Served { .. } => false,
            State::Troubled { since, .. } => {
                !self.confirmed || now.saturating_sub(since) > CONFIRMED_NS
            }
        }
    }
}

#[cfg(test)]
#[path = "receivers_tests.rs"]
mod tests;
