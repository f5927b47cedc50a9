//! `flood` sends UDP datagrams as fast as the link's ring takes them.
//!
//! Words: `ip=`, `gw=`, `to=ADDRESS:PORT,...` (in turn), `size=1400` (bytes of UDP payload),
//! `count=0` (datagrams; 0: for ever), `port=9` (ours).
#![no_std]
#![no_main]

extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::rc::Rc;
use core::net::SocketAddrV4;
use moirai_sdk::{App, AppError, Buffer, MS, Payload, SendError, Stack, now};

moirai_sdk::main!("flood", run);

/// Wake when the device has sent so many of the packets that fill its ring.
const BATCH: u16 = 32;
/// A link that has not taken anything for so long is asked whether it has given up.
const SILENCE_NS: u64 = 2000 * MS;
/// At the end, packets that the link has not taken yet are waited for no longer than this.
const DRAIN_NS: u64 = 5000 * MS;

fn run(app: &mut App) -> Result<(), AppError> {
    let args = app.args();
    let receivers = args.endpoints("to")?;
    let size = args.number("size", 1400, (1, 65507))?;
    let count = args.number("count", 0, (0, u64::MAX))?;
    let port = u16::try_from(args.number("port", 9, (1, 65535))?).unwrap_or(9);
    let mut network = app.network()?;
    let len = usize::try_from(size).unwrap_or(0);
    let payload = Payload { buffer: Rc::new(Buffer::new(len)?), start: 0, len };
    app.ready(|fields| fields.number("size", size).number("count", count));

    let limit = if count == 0 { u64::MAX } else { count };
    let (mut sent, mut full, mut waited) = (0u64, 0u64, 0u64);
    let mut turn = receivers.iter().cycle();
    tell_unroutable(app, &mut network, &receivers);
    let mut moved_at = now();
    while app.running() && sent < limit {
        network.poll(now())?;
        let outcome =
            fill(&mut network, &mut turn, port, &payload, (limit - sent, receivers.len()));
        sent += outcome.sent;
        if outcome.sent > 0 {
            moved_at = now();
        } else if now() > moved_at + SILENCE_NS {
            network.nic().check_alive()?;
            moved_at = now();
        }
        match outcome.error {
            None => {}
            Some(SendError::Full) => {
                full += 1;
                app.wait(Some(moved_at + SILENCE_NS), &mut [&mut network.nic().wake_on(BATCH)]);
            }
            Some(SendError::Unresolved | SendError::NoRoute) => {
                waited += 1;
                app.wait(Some(now() + 10 * MS), &mut [&mut network.nic().wake_on(0)]);
            }
            Some(error) => return Err(AppError::Other(format!("size={size}: {error}"))),
        }
        if app.report_due() {
            report(app, sent, size, full, waited);
        }
    }
    let patience = now() + DRAIN_NS;
    while network.nic().unsent() > 0 && now() < patience {
        app.wait(Some(patience), &mut [&mut network.nic().wake_on(1)]);
        network.poll(now())?;
    }
    report(app, sent, size, full, waited);
    if sent == 0 && waited > 0 {
        return Err(AppError::Other("no receiver could be reached: nothing was sent".to_owned()));
    }
    Ok(())
}

/// Names the receivers to which there is no way at all.
fn tell_unroutable(app: &App, network: &mut Stack, receivers: &[SocketAddrV4]) {
    for to in receivers.iter().filter(|to| !network.has_route(*to.ip())) {
        let receiver = format!("{to}");
        let message = format!("{receiver} cannot be reached: {}", SendError::NoRoute);
        app.report("error", |fields| {
            fields.text("receiver", &receiver).text("reason", "no route").text("message", &message)
        });
    }
}

struct Outcome {
    sent: u64,
    error: Option<SendError>,
}

/// Sends until the ring is full, at most `limit`. Who cannot be reached is left out; the error says so
/// if that is everybody.
fn fill<'a>(
    network: &mut Stack,
    turn: &mut impl Iterator<Item = &'a SocketAddrV4>,
    port: u16,
    payload: &Payload,
    (limit, receivers): (u64, usize),
) -> Outcome {
    let (mut sent, mut failed) = (0, 0);
    while sent < limit {
        let Some(to) = turn.next() else { break };
        if let Err(error) = network.send(port, *to, &[], [Some(payload.clone()), None]) {
            let unreachable = matches!(error, SendError::Unresolved | SendError::NoRoute);
            failed += 1;
            if unreachable && failed < receivers {
                continue;
            }
            return Outcome { sent, error: Some(error) };
        }
        failed = 0;
        sent += 1;
    }
    Outcome { sent, error: None }
}

fn report(app: &App, sent: u64, size: u64, full: u64, waited: u64) {
    app.report("report", |fields| {
        fields
            .number("packets", sent)
            .number("bytes", sent.saturating_mul(size))
            .number("ring_full", full)
            .number("unresolved", waited)
    });
}
