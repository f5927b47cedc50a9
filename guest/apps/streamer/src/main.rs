//! `streamer` sends the MPEG transport stream on its volume as RTP (RFC 2250) to a list of
//! receivers, paced by the stream's own clock, and counts what it sent late.
//!
//! Words: `ip=`, `gw=`, `to=ADDRESS:PORT,...`, `port=5004` (the source port), `reads=4` in flight,
//! `chunk=65536` bytes each, `loop=1` (start again at the end; 0: stop), `program=0` (whose clock
//! counts; 0: the first's), `bytes=0` (length of the film; 0: its volume's), `rate=8000000` (bits
//! per second where the film has no clock), `start_ms=0` (not before then), `late_us=1000` (later
//! than this counts as late), `ttl=64` (of what goes to multicast groups).
//!
//! An `error` event names a receiver that cannot be reached (`receiver`, `reason`). `streamer`
//! tries it again with every packet; the others do not wait for it. It skips and counts places
//! where the film is damaged, and reports them by `error` events.
#![no_std]
#![no_main]

extern crate alloc;

mod sender;

use alloc::format;
use moirai_media::damage::Damage;
use moirai_media::film::{CHUNK_MAX, FilmError, Next, Settings};
use moirai_media::pace::FALLBACK_BPS;
use moirai_sdk::{
    App, AppError, Args, Disk, MS, Receivers, SECTOR, Stack, VirtioError, Volume, now, receivers,
};
use sender::{Pause, Sender};

moirai_sdk::main!(
    "streamer",
    run,
    [
        "ip", "gw", "to", "port", "reads", "chunk", "loop", "program", "bytes", "rate", "start_ms",
        "late_us", "ttl"
    ]
);

/// The film on the tenant's disk.
type Film = moirai_media::film::Film<Disk>;

/// Devices that have not moved anything for so long are asked whether they have given up.
const SILENCE_NS: u64 = 2000 * MS;
/// While the ring is full: wake when the device has sent so many packets.
const LINK_BATCH: u16 = 16;
const CHUNK_MIN: u64 = 4096;

fn run(app: &mut App) -> Result<(), AppError> {
    let args = app.args();
    let addresses = args.endpoints("to")?;
    let settings = settings(args)?;
    let start_ns = args.number("start_ms", 0, (0, 3_600_000))? * MS;
    let late_ns = args.number("late_us", 1000, (0, 10_000_000))? * 1000;
    let port = u16::try_from(args.number("port", 5004, (1, 65535))?).unwrap_or(5004);
    let ttl = u8::try_from(args.number("ttl", 64, (1, 255))?).unwrap_or(64);
    let mut network = app.network()?;
    network.set_multicast_ttl(ttl);
    let mut film = Film::new(app.volume()?, settings).map_err(film_error)?;
    let capacity = film.volume().capacity();
    let mut sender = Sender::new(Receivers::new(&addresses, port), late_ns, now());

    prepare(app, &sender, &mut film, &mut network)?;
    app.ready(|fields| {
        fields.number("receivers", addresses.len() as u64).number("volume_bytes", capacity)
    });
    sender.start_at(now().max(start_ns));
    stream(app, &mut sender, &mut film, &mut network)?;
    receivers::verdict(&sender.receivers)
}

/// What the words say about the film.
fn settings(args: &Args) -> Result<Settings, AppError> {
    let nonzero = |number: u64| Some(number).filter(|&it| it > 0);
    let program = u16::try_from(args.number("program", 0, (0, 65535))?).unwrap_or(0);
    Ok(Settings {
        chunk: args.number("chunk", 65536, (CHUNK_MIN, CHUNK_MAX))?.next_multiple_of(SECTOR),
        reads: u16::try_from(args.number("reads", 4, (1, 32))?).unwrap_or(1),
        looped: args.number("loop", 1, (0, 1))? == 1,
        program: Some(program).filter(|&it| it > 0),
        bytes: nonzero(args.number("bytes", 0, (0, u64::MAX))?),
        rate_bps: args.number("rate", FALLBACK_BPS, (1000, 100_000_000_000))?,
    })
}

/// Fills the buffers and finds the receivers.
fn prepare(
    app: &App,
    sender: &Sender,
    film: &mut Film,
    network: &mut Stack,
) -> Result<(), AppError> {
    let patience = now() + receivers::PATIENCE_NS;
    loop {
        film.poll().map_err(film_error)?;
        let found = receivers::resolved(network, &sender.receivers) || now() > patience;
        network.poll(now())?;
        let loaded = !matches!(film.peek().map_err(film_error)?, Next::Wait);
        if (loaded && found) || !app.running() {
            return Ok(());
        }
        let deadline = now() + 10 * MS;
        app.wait(Some(deadline), &mut [film.volume(), &mut network.nic().wake_on(0)]);
    }
}

/// Sends the film; what was sent before an error still leaves.
fn stream(
    app: &mut App,
    sender: &mut Sender,
    film: &mut Film,
    network: &mut Stack,
) -> Result<(), AppError> {
    let mut told = Damage::default();
    let outcome = send_all(app, sender, film, network, &mut told);
    tell_film(app, film, &mut told);
    receivers::drain(app, network, &mut sender.receivers)?;
    report(app, sender, film);
    outcome
}

fn send_all(
    app: &mut App,
    sender: &mut Sender,
    film: &mut Film,
    network: &mut Stack,
    told: &mut Damage,
) -> Result<(), AppError> {
    let mut moved_at = now();
    while app.running() {
        receivers::poll(network, &mut sender.receivers)?;
        film.poll().map_err(film_error)?;
        let pause = sender.send_due(film, network, now())?;
        receivers::tell(app, &mut sender.receivers);
        network.nic().kick();
        let silence_ends = moved_at + SILENCE_NS;
        let (until, chains) = match pause {
            Pause::Until(time) => (time, 0),
            Pause::Disk => (silence_ends, 0),
            Pause::Link => (silence_ends, LINK_BATCH),
            Pause::Finished => break,
        };
        let time = now();
        if matches!(pause, Pause::Until(_)) {
            moved_at = time;
        } else if time > silence_ends {
            film.volume().check_alive()?;
            network.nic().check_alive()?;
            moved_at = time;
        }
        let until = network.poll_at().map_or(until, |at| at.min(until));
        app.wait(Some(until), &mut [film.volume(), &mut network.nic().wake_on(chains)]);
        if app.report_due() {
            tell_film(app, film, told);
            report(app, sender, film);
        }
    }
    Ok(())
}

/// Prints what is to be said of the film and was not, and what it has lost since it was `told`.
fn tell_film(app: &App, film: &mut Film, told: &mut Damage) {
    while let Some(note) = film.take_note() {
        let message = format!("{note}");
        app.report("error", |fields| fields.text("message", &message));
    }
    let damage = film.damage();
    let messages = [damage.message(told.places), damage.broken_message(told.broken)];
    for message in messages.iter().flatten() {
        app.report("error", |fields| fields.text("message", message));
    }
    *told = damage;
}

fn report(app: &App, sender: &mut Sender, film: &Film) {
    let Sender { counters, receivers, .. } = sender;
    let damage = film.damage();
    let (declared_jumps, clock_jumps) = film.clock_jumps();
    app.report("report", |fields| {
        fields
            .number("packets", counters.packets)
            .number("bytes", counters.bytes)
            .number("late", counters.late)
            .number("underruns", counters.underruns)
            .number("worst_late_us", counters.worst_late_ns / 1000)
            .number("max_late_us", counters.max_late_ns / 1000);
        receivers::count(fields, receivers)
            .number("bytes_read", film.bytes_read)
            .number("read_errors", film.read_errors)
            .number("passes", film.passes())
            .number("lost_bytes", damage.bytes)
            .number("lost_packets", damage.packets)
            .number("damaged_packets", damage.broken)
            .number("clock_jumps", clock_jumps)
            .number("declared_jumps", declared_jumps)
    });
    counters.worst_late_ns = 0;
}

fn film_error(error: FilmError<VirtioError>) -> AppError {
    AppError::Other(format!("{error}"))
}
