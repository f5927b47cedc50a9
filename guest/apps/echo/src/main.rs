//! `echo` returns UDP datagrams to their sender and answers ICMP echo requests.
//! Words: `ip=`, `gw=`, `port=7`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use moirai_sdk::{App, AppError, now};

moirai_sdk::main!("echo", run, ["ip", "gw", "port"]);

/// Polls in a row, so that a flood does not keep reports from being written.
const ROUNDS: usize = 16;

fn run(app: &mut App) -> Result<(), AppError> {
    let port = app.args().number("port", 7, (1, 65535))?;
    let mut network = app.network()?;
    let bound = u16::try_from(port).ok().and_then(|number| network.bind(number));
    let bound = bound.ok_or_else(|| AppError::Other(format!("cannot bind port {port}")))?;
    let address = format!("{}", network.address());
    app.ready(|fields| fields.text("ip", &address).number("port", port));
    let (mut datagrams, mut bytes, mut dropped) = (0, 0, 0);
    while app.running() {
        // Every poll may bring datagrams, also one that is there to send answers: who waits without
        // having looked leaves them lying until something else happens.
        let mut answered = true;
        for _ in 0..ROUNDS {
            network.poll(now())?;
            answered = false;
            while let Some((datagram, sender)) = network.receive_from(bound) {
                answered = true;
                datagrams += 1;
                bytes += datagram.len() as u64;
                dropped += u64::from(!network.send_to(bound, sender, &datagram));
            }
            if !answered {
                break;
            }
        }
        let deadline = if answered { Some(0) } else { network.poll_at() };
        app.wait(deadline, &mut [&mut network.nic().wake_on(0)]);
        if app.report_due() {
            app.report("report", |fields| {
                fields
                    .number("datagrams", datagrams)
                    .number("bytes", bytes)
                    .number("dropped", dropped)
            });
        }
    }
    Ok(())
}
