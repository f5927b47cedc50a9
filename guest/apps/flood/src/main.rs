//! `flood` sends UDP datagrams as fast as the link's ring takes them.
//!
//! Words: `ip=`, `gw=`, `to=ADDRESS:PORT,...` (in turn), `size=1400` (bytes of UDP payload),
//! `count=0` (datagrams; 0: for ever), `port=9` (the source port).
//!
//! Like `streamer`, it reports a receiver that cannot be reached by an event, and leaves it out as
//! long as it has no route or no neighbour. If no receiver has one for ten seconds, `count=`
//! datagrams will never be sent, and `flood` ends as a failure; without `count=` it goes on trying.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::rc::Rc;
use moirai_sdk::{App, AppError, Buffer, MS, Payload, Receivers, SendError, Stack, now, receivers};

moirai_sdk::main!("flood", run, ["ip", "gw", "to", "size", "count", "port"]);

/// Wake when the device has sent so many of the packets that fill its ring.
const BATCH: u16 = 32;
/// A link that has not taken anything for so long is asked whether it has given up.
const SILENCE_NS: u64 = 2000 * MS;

/// What is sent, to whom, and how much of it was.
struct Flood {
    receivers: Receivers,
    payload: Payload,
    /// Whose turn it is.
    turn: usize,
    sent: u64,
    /// How often the ring was full.
    full: u64,
}

fn run(app: &mut App) -> Result<(), AppError> {
    let args = app.args();
    let addresses = args.endpoints("to")?;
    let size = args.number("size", 1400, (1, 65507))?;
    let count = args.number("count", 0, (0, u64::MAX))?;
    let port = u16::try_from(args.number("port", 9, (1, 65535))?).unwrap_or(9);
    let mut network = app.network()?;
    let len = usize::try_from(size).unwrap_or(0);
    let payload = Payload { buffer: Rc::new(Buffer::new(len)?), start: 0, len };
    let receivers = Receivers::new(&addresses, port);
    let mut flood = Flood { receivers, payload, turn: 0, sent: 0, full: 0 };
    receivers::find(app, &mut network, &mut flood.receivers)?;
    app.ready(|fields| fields.number("size", size).number("count", count));

    let limit = if count == 0 { u64::MAX } else { count };
    flood.send_all(app, &mut network, limit)?;
    receivers::drain(app, &mut network, &mut flood.receivers)?;
    flood.report(app);
    receivers::verdict(&flood.receivers)
}

impl Flood {
    fn send_all(&mut self, app: &mut App, network: &mut Stack, limit: u64) -> Result<(), AppError> {
        let mut moved_at = now();
        while app.running() && self.sent < limit {
            if limit < u64::MAX && self.receivers.is_hopeless(now()) {
                break;
            }
            receivers::poll(network, &mut self.receivers)?;
            let before = self.sent;
            let error = self.fill(network, limit, now());
            receivers::tell(app, &mut self.receivers);
            if self.sent > before {
                moved_at = now();
            } else if now() > moved_at + SILENCE_NS {
                network.nic().check_alive()?;
                moved_at = now();
            }
            match error {
                None => {}
                Some(SendError::Full) => {
                    self.full += 1;
                    app.wait(Some(moved_at + SILENCE_NS), &mut [&mut network.nic().wake_on(BATCH)]);
                }
                Some(SendError::Unresolved | SendError::NoRoute) => {
                    app.wait(Some(now() + 10 * MS), &mut [&mut network.nic().wake_on(0)]);
                }
                Some(error @ SendError::TooLarge) => {
                    let size = self.payload.len;
                    return Err(AppError::Other(format!("size={size}: {error}")));
                }
            }
            if app.report_due() {
                self.report(app);
            }
        }
        Ok(())
    }

    /// Sends until the ring is full or `limit` datagrams were sent. Who has no way or no neighbour
    /// is left out; the error says so if that is everybody.
    fn fill(&mut self, network: &mut Stack, limit: u64, now: u64) -> Option<SendError> {
        let (port, count) = (self.receivers.source_port(), self.receivers.addresses().count());
        let mut failed = 0;
        while self.sent < limit {
            let to = self.receivers.address(self.turn)?;
            let result = network.send(port, to, &[], [Some(self.payload.clone()), None]);
            self.receivers.tried(self.turn, result, now);
            match result {
                Ok(()) => (self.sent, failed) = (self.sent + 1, 0),
                Err(SendError::Unresolved | SendError::NoRoute) => failed += 1,
                Err(error) => return Some(error),
            }
            self.turn = (self.turn + 1) % count;
            if failed == count {
                return result.err();
            }
        }
        None
    }

    fn report(&self, app: &App) {
        app.report("report", |fields| {
            fields
                .number("packets", self.sent)
                .number("bytes", self.sent.saturating_mul(self.payload.len as u64))
                .number("ring_full", self.full);
            receivers::count(fields, &self.receivers)
        });
    }
}
