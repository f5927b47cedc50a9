//! Exports as an operator sees them, and peers that are no VMMs.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use moirai_tests::{Host, said, wait_for};

use super::{disk, export, port, socket, try_export};

const PROMISE: &str = "period = \"100ms\"\nslice = \"30ms\"";

fn reserved(host: &Host) -> u64 {
    let stats = host.stats();
    let resources = stats["resources"].as_array().cloned().unwrap();
    let disk = resources.iter().find(|resource| resource["name"] == "disk/disk").unwrap();
    disk["reserved"].as_u64().unwrap()
}

/// GET_FEATURES, version 1, no payload.
fn question() -> Vec<u8> {
    [1_u32, 1, 0].map(u32::to_ne_bytes).concat()
}

/// Asks for the features and waits for the answer.
fn ask_for_features(peer: &mut UnixStream) {
    peer.write_all(&question()).unwrap();
    let mut answer = [0; 20];
    peer.set_read_timeout(Some(moirai_tests::PATIENCE)).unwrap();
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..8], [1_u32, 5].map(u32::to_ne_bytes).concat());
}

#[test]
fn an_export_is_admitted_listed_counted_and_ended() {
    let host = Host::start();
    export(&host, &disk(&host, "db", PROMISE));
    let path = socket(&host, "db");
    let file = std::fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o7777, 0o660);
    assert!(said(&host.ask(&["exports"])).contains("disk/disk"));
    assert_eq!(host.part("export/db", "disk")["reserved"], 300_000_000);
    assert_eq!(reserved(&host), 300_000_000);

    let refused = try_export(&host, &disk(&host, "more", "period = \"100ms\"\nslice = \"80ms\""));
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("export/more"), "{}", said(&refused));
    assert!(!socket(&host, "more").exists());

    let ended = host.ask(&["unexport", "db"]);
    assert!(ended.status.success(), "{}", said(&ended));
    assert!(!path.exists() && reserved(&host) == 0);
    assert!(said(&host.ask(&["unexport", "db"])).contains("no export named"));
}

#[test]
fn a_contract_of_an_export_is_changed_while_its_peer_stays() {
    let host = Host::start();
    export(&host, &disk(&host, "db", PROMISE));
    export(&host, &port("n", "52:54:00:00:00:01", "period = \"10ms\"\nrate = \"10Mbit/s\""));
    let mut peer = UnixStream::connect(socket(&host, "db")).unwrap();
    ask_for_features(&mut peer);

    let changed = host.ask(&["set", "export/db", "disk.slice=10ms", "disk.period=50ms"]);
    assert!(changed.status.success(), "{}", said(&changed));
    assert!(said(&changed).contains("10ms every 50ms"), "{}", said(&changed));
    ask_for_features(&mut peer);
    let view = host.json(&["exports"])[0].clone();
    assert_eq!(view["peer"], std::process::id());
    assert_eq!(view["device"]["contract"]["period_ns"], 50_000_000);
    assert!(view["device"]["failed"].is_null(), "{view}");
    assert_eq!(host.part("export/db", "disk")["reserved"], 200_000_000);
    assert_eq!(reserved(&host), 200_000_000);
    assert!(said(&host.ask(&["top", "--once"])).contains("10ms every 50ms"));

    let changed = host.json(&["set", "export/n", "net.link.rate=20Mbit/s"]);
    assert_eq!(changed["device"]["contract"]["slice_ns"], 2_000_000);
    assert_eq!(host.part("export/n", "link")["reserved"], 200_000_000);
}

#[test]
fn a_change_of_an_export_that_is_refused_or_makes_no_sense_changes_nothing() {
    let host = Host::start();
    export(&host, &disk(&host, "db", PROMISE));
    export(&host, &disk(&host, "more", "period = \"100ms\"\nslice = \"20ms\""));
    for (name, word, status, why) in [
        ("export/db", "disk.slice=80ms", 3, "export/db: not admitted: disk/disk"),
        ("export/gone", "disk.slice=1ms", 2, "no export named \"gone\""),
        ("db", "disk.slice=1ms", 2, "no tenant named \"db\""),
        ("export/../db", "disk.slice=1ms", 2, "can have the name"),
        ("export/db", "net.rate=1Mbit/s", 2, "export/db has no net"),
        ("export/db", "disk.ssd.slice=1ms", 2, "export/db has no disk \"ssd\""),
        ("export/db", "cpu.slice=1ms", 2, "export/db has no cpu"),
        ("export/db", "memory=64M", 2, "export/db has no memory"),
        ("export/db", "disk.slice=0ms", 2, "a slice of zero"),
        ("export/db", "disk.period=10ms", 2, "longer than its period"),
        ("export/db", "disk.speed=1", 2, "not one of period"),
    ] {
        let output = host.ask(&["set", name, word]);
        assert_eq!(output.status.code(), Some(status), "{name} {word}: {}", said(&output));
        assert!(said(&output).contains(why), "{why}: {}", said(&output));
    }
    let view = host.json(&["exports"])[0].clone();
    assert_eq!(view["device"]["contract"]["slice_ns"], 30_000_000);
    assert_eq!(host.part("export/db", "disk")["reserved"], 300_000_000);
    assert_eq!(reserved(&host), 500_000_000);
}

#[test]
fn what_cannot_be_exported_is_said_with_its_line() {
    let host = Host::start();
    export(&host, &disk(&host, "db", ""));
    std::fs::write(host.folder().join("file.sock"), "precious").unwrap();
    let same_volume = disk(&host, "db", "").replace("\"db\"", "\"other\"").replace("db.sock", "o");
    for (text, why) in [
        (disk(&host, "db", "").replace("db.sock", "other.sock"), "an export named \"db\" already"),
        (same_volume, "in use by export/db"),
        (disk(&host, "file", ""), "is no socket"),
        (disk(&host, "gone", "").replace("gone.img", "missing.img"), "missing.img"),
        (port("n", "01:00:00:00:00:00", ""), "not the address of one network card"),
        (disk(&host, "far", "").replace("far.sock", "no/such/folder/s"), "cannot listen"),
    ] {
        let output = try_export(&host, &text);
        assert_eq!(output.status.code(), Some(2), "{text}: {}", said(&output));
        assert!(said(&output).contains(why), "{why}: {}", said(&output));
    }
    let tenant = "[[tenant]]\nname = \"t\"\nimage = \"carnage\"\n[[tenant.disk]]\ndisk = \"disk\"\n\
                  volume = \"db.img\"\n";
    let output = host.try_launch(tenant);
    assert!(said(&output).contains("in use by export/db"), "{}", said(&output));
    assert_eq!(host.json(&["exports"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn peers_that_send_garbage_or_stop_in_mid_message_make_room_for_the_next_one() {
    let host = Host::start();
    export(&host, &disk(&host, "db", PROMISE));
    let connect = || UnixStream::connect(socket(&host, "db")).unwrap();
    let view = || host.json(&["exports"])[0].clone();

    let mut garbage = connect();
    garbage.write_all(&[0xff; 4096]).unwrap();
    wait_for("garbage is refused", || view()["device"]["failed"].is_string());

    let mut half = connect();
    half.write_all(&question()[..7]).unwrap();
    wait_for("the next one is served", || view()["device"]["failed"].is_null());
    drop(half);

    let mut whole = connect();
    ask_for_features(&mut whole);
    let ended = host.ask(&["unexport", "db"]);
    assert!(ended.status.success(), "{}", said(&ended));
    let mut rest = Vec::new();
    assert_eq!(whole.read_to_end(&mut rest).unwrap(), 0, "it was hung up on");
    assert!(!host.log().contains("panicked"), "{}", host.log());
}
