//! `echo` returns UDP datagrams to their sender and answers ICMP echo requests.
//! Words: `ip=`, `gw=`, `port=7`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use moirai_sdk::{App, AppError, now};

moirai_sdk::main!("echo", run);

fn run(app: &mut App) -> Result<(), AppError> {
    let port = app.args().number("port", 7, (1, 65535))?;
    let mut network = app.network()?;
    let bound = u16::try_from(port).ok().and_then(|number| network.bind(number));
    let bound = bound.ok_or_else(|| AppError::Other(format!("cannot bind port {port}")))?;
    let address = format!("{}", network.address());
    app.ready(|fields| fields.text("ip", &address).number("port", port));
    let (mut datagrams, mut bytes, mut dropped) = (0, 0, 0);
    while app.running() {
        network.poll(now())?;
        while let Some((datagram, sender)) = network.receive_from(bound) {
            datagrams += 1;
            bytes += datagram.len() as u64;
            dropped += u64::from(!network.send_to(bound, sender, &datagram));
        }
        network.poll(now())?;
        let deadline = network.poll_at();
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
