//! The last events of our guests: a guest that failed says so, and what arrives is the film.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::UdpSocket;
use std::time::Duration;

use moirai_runtime::netns::in_netns;
use moirai_tests::{Host, core, said, wait_for};
use serde_json::Value;

const PACKET: usize = 188;
const RTP_HEADER: usize = 12;
const ALL: [&str; 7] = ["carnage", "echo", "flood", "hostile", "pulse", "streamer", "thrash"];

/// A tenant with a link and a film.
fn tenant(image: &str, args: &str) -> String {
    format!(
        "[[tenant]]\nname = \"guest\"\nimage = \"{image}\"\nargs = \"{args}\"\nmemory = \"32M\"\n\
         core = {}\ncpu = {{ period = \"20ms\", slice = \"5ms\", extra = true }}\n\
         [[tenant.disk]]\ndisk = \"disk\"\nvolume = \"film.ts\"\nreadonly = true\nextra = true\n\
         [[tenant.net]]\nlink = \"link\"\nextra = true\n",
        core()
    )
}

/// A film in which every packet differs, 1 ms each, with a clock reference in every tenth.
fn film(packets: u64) -> Vec<u8> {
    let packet = |number: u64| {
        let mut packet = [u8::try_from(number % 251 + 1).unwrap(); PACKET];
        packet[..6].copy_from_slice(&[0x47, 0x01, 0x00, 0x30, 7, 0]);
        if number.is_multiple_of(10) {
            packet[5] = 0x10;
            let field = (number * 90) << 15 | 0x7e00;
            packet[6..12].copy_from_slice(&field.to_be_bytes()[2..]);
        }
        packet
    };
    (0..packets).flat_map(packet).collect()
}

/// Runs a guest to its end; how the host says that it ended, and its console.
fn run(host: &Host, image: &str, args: &str) -> (Value, String) {
    // Its status says whether the tenant runs; a guest may have ended before it is asked.
    let _ = host.try_launch(&tenant(image, args));
    let mut view = Value::Null;
    wait_for(&format!("{image} {args} ends\n{}", host.log()), || {
        view = host.json(&["show", "guest"]);
        view["phase"] == "ended"
    });
    let console = host.console("guest");
    let stopped = host.ask(&["stop", "guest"]);
    // 5: it is stopped, and had failed.
    let ended = if view["end"]["ok"] == true { 0 } else { 5 };
    assert_eq!(stopped.status.code(), Some(ended), "{}", said(&stopped));
    eprintln!("{image} {args}: {}\n{console}", view["end"]);
    (view["end"].clone(), console)
}

#[test]
fn guest_that_reached_nobody_or_got_wrong_words_ends_as_a_failure_that_says_so() {
    let host = Host::start();
    std::fs::write(host.folder().join("film.ts"), film(300)).unwrap();
    let fails = |image: &str, args: &str, message: &str| {
        let (end, console) = run(&host, image, args);
        assert_eq!(end["ok"], false, "{image} {args}: {end}\n{console}");
        let last = console.lines().last().unwrap_or_default();
        assert!(last.contains("\"event\":\"error\"") && last.contains(message), "{console}");
        console
    };
    // Linux refuses everybody once a second, after a few times: each has an address of its own.
    for (image, words, own) in [
        ("streamer", "loop=0", "ip=10.77.0.2/24"),
        ("flood", "count=50 for_ms=1000", "ip=10.77.0.3/24"),
    ] {
        let nobody = "no receiver could be reached: 10.77.0.1:5004 refused";
        let console = fails(image, &format!("{own} {words} to=10.77.0.1:5004"), nobody);
        assert!(console.contains(r#""receiver":"10.77.0.1:5004","reason":"refused""#));
        assert!(
            console.lines().any(|line| line.contains("report") && !line.contains(r#""refused":0"#))
        );
        fails(image, &format!("{own} {words} to=10.9.9.9:9"), "10.9.9.9:9 no route");
        let gateway = "gw=10.78.0.1: it is outside our own network";
        fails(image, &format!("{own} {words} gw=10.78.0.1 to=10.77.0.1:9"), gateway);
    }
    for image in ALL {
        fails(image, "lop=0", "lop=0: there is no such word; the words are ");
    }
    let (end, console) = run(&host, "hostile", "attack=garbage");
    assert_eq!(end["ok"], false, "a guest that panics: {end}\n{console}");
}

#[test]
fn what_a_receiver_gets_is_every_whole_packet_of_the_film_and_no_other() {
    let host = Host::start();
    let whole = film(500);
    let socket = in_netns(&host.netns, || UdpSocket::bind("10.77.0.1:5004")).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let holed = |from: usize, len: usize| {
        let mut holed = whole.clone();
        holed[PACKET * from..PACKET * (from + len)].fill(0);
        holed
    };
    let without = |from: usize, len: usize| {
        [&whole[..PACKET * from], &whole[PACKET * (from + len)..]].concat()
    };
    let far = [&whole[..PACKET * 200], &vec![0; 20 << 20][..], &whole[PACKET * 200..]].concat();
    for (name, film, expected, lost) in [
        ("as it is", whole.clone(), whole.clone(), 0),
        ("cut by a byte", whole[..whole.len() - 1].to_vec(), without(499, 1), 187),
        ("cut by 100 bytes", whole[..whole.len() - 100].to_vec(), without(499, 1), 88),
        ("zeroed in the middle", holed(100, 20), without(100, 20), 20 * 188),
        ("zeroed at the end", holed(480, 20), without(480, 20), 20 * 188),
        ("with 20 MiB of zeros", far, whole.clone(), 20 << 20),
        ("of four packets", whole[..PACKET * 4].to_vec(), whole[..PACKET * 4].to_vec(), 0),
        ("of one packet", whole[..PACKET].to_vec(), whole[..PACKET].to_vec(), 0),
    ] {
        std::fs::write(host.folder().join("film.ts"), film).unwrap();
        let (end, console) = run(&host, "streamer", "ip=10.77.0.2/24 loop=0 to=10.77.0.1:5004");
        let mut got: Vec<u8> = Vec::new();
        let mut datagram = [0; 2048];
        while let Ok(len) = socket.recv(&mut datagram) {
            got.extend(&datagram[RTP_HEADER..len]);
        }
        assert!(got == expected, "{name}: {} bytes instead of {}", got.len(), expected.len());
        assert!(console.contains(&format!("\"lost_bytes\":{lost},")), "{name}: {console}");
        assert_eq!(console.contains("the film is damaged"), lost > 0, "{name}: {console}");
        assert_eq!(end["ok"], true, "{name}: {end}");
    }
}

#[test]
fn receiver_that_comes_late_has_got_the_film_and_one_that_leaves_is_told_with_the_time() {
    let host = Host::start();
    std::fs::write(host.folder().join("film.ts"), film(5000)).unwrap();
    let bind = || in_netns(&host.netns, || UdpSocket::bind("10.77.0.1:5004")).unwrap().unwrap();
    // Linux refuses by sender: each guest has an address of its own.
    let streams =
        |own: &str| run(&host, "streamer", &format!("ip={own}/24 loop=0 to=10.77.0.1:5004"));
    let (end, console) = std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(1200));
            bind()
        });
        let ended = streams("10.77.0.4");
        drop(late.join().unwrap());
        ended
    });
    assert_eq!(end["ok"], true, "{end}\n{console}");
    let refused = console.find(r#""receiver":"10.77.0.1:5004","reason":"refused""#).unwrap();
    let back = console.find("10.77.0.1:5004 is back").unwrap();
    assert!(refused < back, "{console}");

    let (end, console) = std::thread::scope(|scope| {
        let early = bind();
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(2000));
            drop(early);
        });
        streams("10.77.0.5")
    });
    assert_eq!(end["ok"], false, "{end}\n{console}");
    let last = console.lines().last().unwrap_or_default();
    assert!(last.contains("no receiver is left: 10.77.0.1:5004 refused since t_ms="), "{console}");

    let (end, console) = run(&host, "flood", "ip=10.77.0.6/24 count=50 to=10.9.9.9:9");
    assert_eq!(end["ok"], false, "it waits for a way for ten seconds only: {end}\n{console}");
    assert!(console.contains("no receiver could be reached: 10.9.9.9:9 no route"), "{console}");
}
