//! The contract between a policy and whoever owns the resource.
//!
//! A *policy* decides which client is served next. Its *owner* (the CPU dispatcher, the I/O domain,
//! the simulator) knows the clock, holds the work and does the serving. The owner calls:
//!
//! | call | when |
//! | --- | --- |
//! | [`Policy::add`], [`Policy::remove`], [`Policy::change`] | a contract came, ended, changed |
//! | [`Policy::wake`] | a client has work, or the head of its queue is another unit now |
//! | [`Policy::block`] | a client has no more work |
//! | [`Policy::pick`] | the resource is free: once per unit of work |
//! | [`Policy::charge`] | preemptible: service was given, as often as the owner can measure |
//! | [`Policy::hand_out`], [`Policy::complete`] | whole units: one went to the device, came back |
//! | [`Policy::timeout`] | to learn when to ask again |
//! | [`Ranked::ranks`] | on a core, where a kernel does the switching |
//!
//! Time never goes backwards for a policy: a `now` that lies before the latest one seen counts as
//! the latest one.

use crate::contract::Contract;
use crate::time::{Amount, Moment, Span};

/// Names a client to a policy. Chosen by the owner; small numbers, reused freely after `remove`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// Which account pays for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Owed by the contract.
    Guaranteed,
    /// Slack, given because the contract has `extra`.
    Extra,
}

/// The first unit in a client's queue, as far as a policy may want to know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// What the unit will probably cost, in nanoseconds of service; zero if unknown or unbounded.
    pub cost: Amount,
    /// When the unit arrived in the queue; policies with logical arrival times (real-time
    /// channels) and first-come-first-served need it. For a ranked client (see [`Ranked::ranks`]):
    /// when it woke, if that is known later; zero: now.
    pub arrival: Moment,
    /// Where on the medium the unit lies (a sector); zero where that has no meaning.
    pub position: u64,
}

/// The decision of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Whom to serve.
    pub client: ClientId,
    /// On which account.
    pub service: Service,
    /// A preemptible resource must ask again no later than this.
    pub until: Moment,
    /// Picks with the same number form one round; an owner may reorder a round for its device.
    /// Policies without rounds count every pick as a round of its own.
    pub round: u64,
}

/// A unit in the device: what [`Policy::hand_out`] gives and [`Policy::complete`] takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    /// Whose unit.
    pub client: ClientId,
    /// Which account pays.
    pub service: Service,
    /// What it was reckoned to cost, in nanoseconds.
    pub estimate: Amount,
    /// By when it is promised to be done; `None`: it is not.
    pub due: Option<Moment>,
    /// The slice it was handed out of, by number, and since when that is promised.
    pub(crate) slice: u64,
    pub(crate) since: Moment,
    /// How often slices had been cut.
    pub(crate) cuts: u64,
    /// Its client keeps its place for what may come back of it.
    pub(crate) holds: bool,
}

/// A promise that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Whose.
    pub client: ClientId,
    /// Since when it was promised: a wake-up or a refill.
    pub since: Moment,
    /// By when.
    pub deadline: Moment,
    /// By how much it was late at least: what of the slice was not begun by then, or how long after
    /// it the unit came back. In nanoseconds.
    pub late: Span,
}

/// What a client got so far. `guaranteed + extra` is all that was charged to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Service charged to the contract.
    pub guaranteed: Amount,
    /// Service taken from the slack.
    pub extra: Amount,
    /// Slices that were promised, wanted until their deadline, and not given by then; on a device
    /// with units also those of which one came back late.
    pub misses: u64,
    /// Guaranteed service lost because whole periods passed without a decision (a host stall).
    pub stall_loss: Amount,
    /// Number of slices released so far.
    pub refills: u64,
}

/// A client that is owed time now, or would be if it woke, for owners that let a kernel do the
/// switching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Who is owed.
    pub client: ClientId,
    /// By when.
    pub deadline: Moment,
    /// How much is left of the slice; never zero.
    pub budget: Amount,
    /// Asleep, with its refill behind it: the deadline moves on as long as it sleeps.
    pub floats: bool,
}

/// What a client does, as its policy sees it. It is in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Has work and is owed service.
    Running,
    /// Has work, and the rest of its budget is in the device: keeps its place, and nobody after it
    /// is served, until it is known what its units cost.
    Settling,
    /// Has work, but no budget: waits for its refill, or for slack.
    Waiting,
    /// Has no work.
    Idle,
}

/// The runtime state of a contract, for displays and for proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientState {
    /// What it does.
    pub mode: Mode,
    /// `d`: the current slice is due then, absolute.
    pub deadline: Moment,
    /// `nr`: the next slice is released then, absolute.
    pub refill: Moment,
    /// `r`: what is left of the slice, in nanoseconds; negative: debt.
    pub left: i64,
    /// Whether what is left is promised by the deadline: it is not where a wake-up came too late
    /// for it.
    pub promised: bool,
}

/// Why a policy refuses a call. A refused call changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// `add` of an id that is in use.
    Exists(ClientId),
    /// A call for an id that is not (or no longer) there.
    Unknown(ClientId),
    /// More clients than the policy was made for.
    Full {
        /// How many it holds at most.
        capacity: usize,
    },
}

impl core::fmt::Display for PolicyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Exists(id) => write!(f, "client {} exists already", id.0),
            Self::Unknown(id) => write!(f, "there is no client {}", id.0),
            Self::Full { capacity } => write!(f, "all {capacity} places are taken"),
        }
    }
}

impl core::error::Error for PolicyError {}

/// Decides who is served next. See the module for who calls what, and when.
pub trait Policy: Send {
    /// Lets a client in. Its first slice is released when it first wakes. The only call that may
    /// allocate.
    ///
    /// # Errors
    /// [`PolicyError::Exists`] and [`PolicyError::Full`].
    fn add(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError>;

    /// Takes a client out, in whatever state it is, and returns its account.
    ///
    /// # Errors
    /// [`PolicyError::Unknown`].
    fn remove(&mut self, id: ClientId, now: Moment) -> Result<Account, PolicyError>;

    /// Gives a client another contract. Takes effect at its next refill; what is left of the
    /// current slice, and any debt, stay.
    ///
    /// # Errors
    /// [`PolicyError::Unknown`].
    fn change(&mut self, id: ClientId, contract: Contract, now: Moment) -> Result<(), PolicyError>;

    /// The client has work and `head` is its first unit. Called again after a unit was taken from
    /// the queue and another one is there. No effect for an unknown client.
    fn wake(&mut self, id: ClientId, head: Head, now: Moment);

    /// The client has no work left. No effect for an unknown client.
    fn block(&mut self, id: ClientId, now: Moment);

    /// Chooses whom to serve now; `None` if nobody may be served before [`Policy::timeout`] or the
    /// next `wake`. May release slices whose time has come. The owner of a non-preemptible
    /// resource calls it once per unit and follows with `wake` or `block`.
    fn pick(&mut self, now: Moment) -> Option<Pick>;

    /// Books `cost` nanoseconds of service given to a client. The account is that of the `Pick`;
    /// for a ranked client (see [`Ranked::ranks`]) it is `Guaranteed` while it was ranked, else
    /// `Extra`. No effect for an unknown client: a unit may end after its client was removed.
    fn charge(&mut self, id: ClientId, service: Service, cost: Amount, now: Moment);

    /// The unit that was picked goes to the device, where it will cost about `estimate`
    /// nanoseconds. Its slice pays now. Follow with [`Policy::wake`] or [`Policy::block`], and with
    /// [`Policy::complete`] when it comes back. Policies that charge afterwards do nothing here.
    fn hand_out(&mut self, pick: &Pick, estimate: Amount, now: Moment) -> Ticket {
        let Pick { client, service, .. } = *pick;
        Ticket { client, service, estimate, due: None, slice: 0, since: now, cuts: 0, holds: false }
    }

    /// A unit came back at `now` and has cost `cost` nanoseconds of service. What it was charged
    /// too much or too little is settled; if it is late, that is a miss. No effect for an unknown
    /// client.
    fn complete(&mut self, ticket: Ticket, cost: Amount, now: Moment) {
        self.charge(ticket.client, ticket.service, cost, now);
    }

    /// A unit is inside for longer than any should be, and may never come back. Its client keeps no
    /// place for it any more, so that nobody waits with it; if it is late already, that is a miss
    /// now. May be called again; follow with [`Policy::complete`] all the same.
    fn overdue(&mut self, ticket: &mut Ticket, now: Moment) {
        let _ = (ticket, now);
    }

    /// Visits the misses since the last call, each once, in the order in which they were found; of
    /// more than a few hundred the oldest are forgotten (not so in [`Account::misses`]).
    fn take_misses(&mut self, visit: &mut dyn FnMut(Miss)) {
        let _ = visit;
    }

    /// Brings [`Account::misses`] up to `now` for clients that nothing has happened to since their
    /// deadline: before a report. Walks over all clients.
    fn judge(&mut self, now: Moment) {
        let _ = now;
    }

    /// When the owner must call `pick` (or `ranks`) again even if nothing happens. `None`: never.
    /// The ends of budgets are not in it: `pick` gives one in `until`, `ranks` in each `budget`,
    /// and only the owner knows which of the ranked can run at all. The time at which the order of
    /// the ranked changes is that of the latest `ranks`: ask it after `wake`, `block` and `charge`.
    fn timeout(&self, now: Moment) -> Option<Moment>;

    /// The same policy for a core, if it suits one.
    fn ranked(&mut self) -> Option<&mut dyn Ranked> {
        None
    }

    /// What the client got so far, `None` for an unknown client.
    fn account(&self, id: ClientId) -> Option<Account>;

    /// Tells the policy what admission calls `B`: what may be inside the device and cannot be taken
    /// back, in nanoseconds. One largest unit, where a window bounds it. Zero, where it is not
    /// called: a preemptible resource.
    fn set_blocking(&mut self, blocking: Amount) {
        let _ = blocking;
    }

    /// Tells the policy what a wake-up costs the resource, in nanoseconds: two switches and the
    /// caches. The first wake-up of a slice is admitted with it; a client that wakes again within
    /// the same slice pays this from it.
    fn set_wake_cost(&mut self, cost: Amount) {
        let _ = cost;
    }

    /// The runtime state of a client, `None` for an unknown one and under policies without budgets.
    fn state(&self, id: ClientId) -> Option<ClientState> {
        let _ = id;
        None
    }
}

/// A policy that knows all who are owed time, in order. A core needs that: a kernel switches
/// between ranked clients by itself and tells nobody, so when the owner learns that a client woke
/// it calls [`Policy::wake`] with the time of that as the arrival of the head.
pub trait Ranked: Policy {
    /// Visits those that are owed time, earliest deadline first, and those that would be if they
    /// woke now: a sleeper whose refill has passed with its whole slice by `now + D`, another with
    /// what a wake-up would leave it. A policy that makes no guarantee visits nobody.
    fn ranks(&mut self, now: Moment, visit: &mut dyn FnMut(Rank));
}
