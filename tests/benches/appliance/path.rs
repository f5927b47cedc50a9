//! CPU time for a gigabyte from the disk through the guest to the link, beside loops of the host
//! that only read the file past the page cache and send it in packets of the same size.
//!
//! The film holds only clock references and filler, because only its rate matters. It is sent on
//! its own clock, so the figure includes the cost of waiting for the next packet.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use moirai_devices::backend::tap::Tap;
use rustix::fs::OFlags;

use crate::load::{Load, own_cpu_seconds};
use crate::net::{self, Frame};
use crate::options::Options;
use crate::pair::Pairs;
use crate::report::{Goal, Report};
use crate::server::Server;

const FILM: &str = "film.ts";
const FILM_BYTES: u64 = 64 << 20;
/// Rate of the film.
const RATE_BPS: u64 = 100_000_000;
const PACKET: usize = 188;
/// Payload of an RTP packet: 7 packets of the transport stream.
const PAYLOAD: usize = 7 * PACKET;
const RTP_HEADER: usize = 12;
const CHUNK: usize = 64 << 10;
const PAGE: usize = 4096;
const RECEIVERS: [usize; 2] = [1, 4];

/// Measures one receiver and a group of four.
pub(crate) fn measure(report: &mut Report, options: &Options) {
    let mut server = Server::start();
    let path = server.folder().join(FILM);
    write_film(&path).expect("room for the film in /var/tmp");
    let netns = server.netns();
    let (tap, socket) = (net::own_tap(&netns), net::veth(&netns));
    let _sinks = [server.sink("10.77.0.1:9"), server.sink("10.78.0.1:9")];
    for receivers in RECEIVERS {
        let mut said = String::new();
        let mut ours = || {
            let (cost, text) = stream(&mut server, receivers, options.run);
            said = text;
            cost
        };
        let name = match receivers {
            1 => "CPU per GB, disk to guest to link".to_owned(),
            _ => format!("the same, film read once for {receivers} receivers"),
        };
        let by_tap =
            Pairs::take(options.pairs, &mut ours, || read_and_write(&path, &tap, receivers));
        let by_socket =
            Pairs::take(options.pairs, &mut ours, || read_and_send(&path, &socket, receivers));
        report.compare(&name, "s/GB", "host, read and writev to a TAP", by_tap, Goal::None);
        report.compare(&name, "s/GB", "host, read and sendto over veth", by_socket, Goal::None);
        report.note(format!("{name}: {said}"));
    }
}

/// CPU seconds of the tenant and of the host service per gigabyte of film sent; and how it went.
fn stream(server: &mut Server, receivers: usize, time: Duration) -> (f64, String) {
    let devices = format!(
        "[[tenant.disk]]\ndisk = \"disk\"\nvolume = \"{FILM}\"\nreadonly = true\n\
         [[tenant.net]]\nlink = \"link\"\n"
    );
    let to = vec!["10.77.0.1:9"; receivers].join(",");
    let words = format!("ip=10.77.0.2/24 chunk={CHUNK} to={to}");
    let tenant = server.launch("streamer", &words, &devices);
    tenant.settle();
    let load = Load::of(&tenant, "link", time);
    let late = tenant.report()["late"].as_u64().unwrap_or_default();
    #[allow(clippy::cast_precision_loss, reason = "1316")]
    let film_bytes = load.completed * PAYLOAD as f64;
    let gigabytes = film_bytes / 1e9;
    let text = format!(
        "{:.0} Mbit/s; {:.2} s/GB in the tenant, {:.2} in the I/O domain, {:.2} in the rest of the \
         host service; {late} packets left the guest more than 1 ms late",
        film_bytes * 8.0 / load.seconds / 1e6,
        load.tenant_cpu / gigabytes,
        load.domain_cpu / gigabytes,
        (load.host_cpu - load.domain_cpu) / gigabytes,
    );
    ((load.tenant_cpu + load.host_cpu) / gigabytes, text)
}

/// CPU seconds per gigabyte: read, then write to a TAP with the headers in front.
fn read_and_write(path: &Path, tap: &Tap, receivers: usize) -> f64 {
    let frame = Frame::new(&[0; RTP_HEADER], PAYLOAD);
    cost(path, receivers, |payload| frame.write(tap, payload))
}

/// CPU seconds per gigabyte: read, then send on a socket.
fn read_and_send(path: &Path, socket: &UdpSocket, receivers: usize) -> f64 {
    let mut packet = vec![0; RTP_HEADER + PAYLOAD];
    cost(path, receivers, |payload| {
        // An ordinary program has the header in front of the payload, in one buffer.
        packet[RTP_HEADER..RTP_HEADER + payload.len()].copy_from_slice(payload);
        net::send(socket, &packet);
    })
}

/// CPU seconds per gigabyte sent, the film once.
fn cost(path: &Path, receivers: usize, mut send: impl FnMut(&[u8])) -> f64 {
    let direct = i32::try_from(OFlags::DIRECT.bits()).expect("a flag of open");
    let file = File::options().read(true).custom_flags(direct).open(path).expect("the film");
    let mut room = vec![0u8; CHUNK + PAGE];
    let start = room.as_ptr().align_offset(PAGE);
    let buffer = &mut room[start..start + CHUNK];
    let begin = own_cpu_seconds();
    let (mut at, mut sent) = (0u64, 0usize);
    while at + CHUNK as u64 <= FILM_BYTES {
        file.read_exact_at(buffer, at).expect("the film can be read past the page cache");
        for payload in buffer.chunks_exact(PAYLOAD) {
            for _ in 0..receivers {
                send(payload);
            }
            sent += receivers * PAYLOAD;
        }
        at += CHUNK as u64;
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let gigabytes = sent as f64 / 1e9;
    (own_cpu_seconds() - begin) / gigabytes
}

/// A film of even rate: a clock reference every 7 packets, the rest filler.
fn write_film(path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for index in 0..FILM_BYTES / PACKET as u64 {
        let mut packet = [0xff; PACKET];
        packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
        if index.is_multiple_of(7) {
            let ticks = index * PACKET as u64 * 8 * 27_000_000 / RATE_BPS;
            // ISO/IEC 13818-1, section 2.4.3.5: 33 bits at 90 kHz, 6 reserved, 9 bits at 27 MHz.
            let clock = ((ticks / 300) << 15) | (0x3f << 9) | (ticks % 300);
            packet[..6].copy_from_slice(&[0x47, 0x01, 0x00, 0x20, 183, 0x10]);
            packet[6..12].copy_from_slice(&clock.to_be_bytes()[2..]);
        }
        file.write_all(&packet)?;
    }
    let file = file.into_inner()?;
    file.set_len(FILM_BYTES)?;
    file.sync_all()
}
