//! Receivers of a stream on the network: who answers that nothing arrives, how that is told, and
//! the end.

use crate::{App, AppError, Fields, MS, Receivers, Stack, now};
use alloc::format;
use moirai_libos::idle;
use moirai_libos::receivers::Change;

/// Receivers that do not answer ARP hold up the start no longer than this.
pub const PATIENCE_NS: u64 = 1000 * MS;
/// At the end, packets that the link has not taken yet are waited for no longer than this.
const DRAIN_NS: u64 = 5000 * MS;
/// Then, answers of receivers that may have got nothing are waited for no longer than this.
const ANSWER_NS: u64 = 500 * MS;

/// Takes in what has arrived, also from receivers that say that a packet did not.
///
/// # Errors
/// [`AppError::Device`].
pub fn poll(network: &mut Stack, receivers: &mut Receivers) -> Result<(), AppError> {
    network.poll(now())?;
    while let Some(answer) = network.take_unreachable() {
        receivers.answered(&answer, now());
    }
    Ok(())
}

/// Are the next hops of all receivers known that have one? Those that are not are asked for, all at
/// once.
pub fn resolved(network: &mut Stack, receivers: &Receivers) -> bool {
    receivers.addresses().filter(|to| !network.resolved(*to.ip())).count() == 0
}

/// Finds the receivers, as far as they can be found in [`PATIENCE_NS`].
///
/// # Errors
/// [`AppError::Device`].
pub fn find(app: &App, network: &mut Stack, receivers: &mut Receivers) -> Result<(), AppError> {
    let patience = now() + PATIENCE_NS;
    while !resolved(network, receivers) && app.running() && now() < patience {
        poll(network, receivers)?;
        app.wait(Some((now() + 10 * MS).min(patience)), &mut [&mut network.nic().wake_on(0)]);
        poll(network, receivers)?;
    }
    Ok(())
}

/// Prints which receivers cannot be reached any more: an `error` event with `receiver` and
/// `reason`; and which can again: a `back` event with `receiver`.
pub fn tell(app: &App, receivers: &mut Receivers) {
    while let Some((address, change)) = receivers.take_change() {
        let receiver = format!("{address}");
        match change {
            Change::Lost(trouble) => {
                let (reason, hint) = trouble.words();
                let message =
                    format!("{receiver} cannot be reached: {reason} ({hint}); going on trying");
                app.report("error", |fields| {
                    let fields = fields.text("receiver", &receiver).text("reason", reason);
                    fields.text("message", &message)
                });
            }
            Change::Back => {
                let message = format!("{receiver} is back: it takes what is sent to it");
                app.report("back", |fields| {
                    fields.text("receiver", &receiver).text("message", &message)
                });
            }
        }
    }
}

/// The counters of what did not arrive, for a report.
pub fn count<'a>(fields: &'a mut Fields, receivers: &Receivers) -> &'a mut Fields {
    let counters = receivers.counters();
    fields
        .number("unresolved", counters.unresolved)
        .number("unrouted", counters.unrouted)
        .number("refused", counters.refused)
        .number("unreachable", counters.unreachable)
}

/// Lets leave what was sent, and waits for who may answer to it. Who was not sent anything because
/// the time was over before there was a way to it could not be reached.
///
/// # Errors
/// [`AppError::Device`].
pub fn drain(app: &App, network: &mut Stack, receivers: &mut Receivers) -> Result<(), AppError> {
    for (number, to) in receivers.untried() {
        if let Err(error) = network.reach(*to.ip()) {
            receivers.tried(number, Err(error), now());
        }
    }
    let patience = now() + DRAIN_NS;
    while network.nic().unsent() > 0 && now() < patience {
        idle::wait(Some(patience), &mut [&mut network.nic().wake_on(1)]);
        poll(network, receivers)?;
    }
    let patience = now() + ANSWER_NS;
    while receivers.is_uncertain(now()) && now() < patience {
        idle::wait(Some(patience), &mut [&mut network.nic().wake_on(0)]);
        poll(network, receivers)?;
    }
    tell(app, receivers);
    Ok(())
}

/// How the stream has ended.
///
/// # Errors
/// [`AppError::Other`] if nobody has got it.
pub fn verdict(receivers: &Receivers) -> Result<(), AppError> {
    receivers.verdict(now()).map_or(Ok(()), |message| Err(AppError::Other(message)))
}
