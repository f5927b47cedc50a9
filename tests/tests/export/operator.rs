//! Exports as an operator sees them, and peers that are no VMMs.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use moirai_tests::{Host, said, wait_for};

use super::{disk, export, port, socket, try_export};

const PROMISE: &str = "period = \"100ms\"\nslice = \"30ms\"";

fn reserved(host: &Host) -> f64 {
    let stats = host.stats();
    let resources = stats["resources"].as_array().cloned().unwrap();
    let disk = resources.iter().find(|resource| resource["name"] == "disk/disk").unwrap();
    disk["reserved"].as_f64().unwrap()
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
    assert_eq!(reserved(&host), 300e6);

    let refused = try_export(&host, &disk(&host, "more", "period = \"100ms\"\nslice = \"80ms\""));
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("export/more"), "{}", said(&refused));
    assert!(!socket(&host, "more").exists());

    let ended = host.ask(&["unexport", "db"]);
    assert!(ended.status.success(), "{}", said(&ended));
    assert!(!path.exists() && reserved(&host) == 0.0);
    assert!(said(&host.ask(&["unexport", "db"])).contains("no export named"));
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
    // GET_FEATURES, version 1, no payload.
    let question = [1_u32, 1, 0].map(u32::to_ne_bytes).concat();

    let mut garbage = connect();
    garbage.write_all(&[0xff; 4096]).unwrap();
    wait_for("garbage is refused", || view()["device"]["failed"].is_string());

    let mut half = connect();
    half.write_all(&question[..7]).unwrap();
    wait_for("the next one is served", || view()["device"]["failed"].is_null());
    drop(half);

    let mut whole = connect();
    whole.write_all(&question).unwrap();
    let mut answer = [0; 20];
    whole.set_read_timeout(Some(moirai_tests::PATIENCE)).unwrap();
    std::io::Read::read_exact(&mut whole, &mut answer).unwrap();
    assert_eq!(answer[..8], [1_u32, 5].map(u32::to_ne_bytes).concat());
    let ended = host.ask(&["unexport", "db"]);
    assert!(ended.status.success(), "{}", said(&ended));
    let mut rest = Vec::new();
    assert_eq!(std::io::Read::read_to_end(&mut whole, &mut rest).unwrap(), 0, "it was hung up on");
    assert!(!host.log().contains("panicked"), "{}", host.log());
}
