//! An export whose contract changes while it is used: the peer is a tenant process that the service
//! knows nothing of, as another VMM would be.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use moirai_api::{Change, PartStats, Stats};
use moirai_config::{Config, check, parse};
use moirai_service::{HostService, ServiceError};
use tempfile::TempDir;

use super::bench::{self, Tenant};

/// A disk with an export that has 4 of every 100 ms, and nothing of the slack.
fn configuration(folder: &TempDir) -> Config {
    let core = std::thread::available_parallelism().unwrap().get() - 1;
    let text = format!(
        "[host]\ncores = [{core}]\nstate_dir = \"FOLDER/state\"\n\
         [[disk]]\nname = \"disk\"\npath = \"FOLDER\"\n\
         [[export]]\nname = \"db\"\nsocket = \"FOLDER/db.sock\"\n[export.disk]\ndisk = \"disk\"\n\
         volume = \"volume\"\nperiod = \"100ms\"\nslice = \"4ms\"\n"
    );
    let text = text.replace("FOLDER", &folder.path().display().to_string());
    check(&parse("test", &text).unwrap()).unwrap()
}

fn part(stats: &Stats) -> &PartStats {
    &stats.tenants[0].parts[0]
}

/// Per mille of the disk that the export gets.
fn share(service: &HostService) -> u64 {
    let before = service.stats();
    std::thread::sleep(Duration::from_millis(1500));
    let after = service.stats();
    let served = part(&after).guaranteed_ns - part(&before).guaranteed_ns;
    assert_eq!((part(&after).errors, part(&after).extra_ns), (0, 0));
    served * 1000 / (after.now_ns - before.now_ns)
}

fn slice(slice: &str) -> Change {
    serde_json::from_str(&format!(r#"{{"disk": {{"0": {{"slice": "{slice}"}}}}}}"#)).unwrap()
}

#[test]
fn a_change_of_an_export_is_in_force_at_once_and_its_peer_stays() {
    let _turn = bench::turn();
    let folder = tempfile::tempdir().unwrap();
    bench::volume(folder.path(), 16 << 20);
    let config = configuration(&folder);
    let tables: Vec<_> = config.exports.iter().map(|export| export.table.clone()).collect();
    let service =
        HostService::start(config).expect("KVM and real-time priority are needed: run as root");
    service.export(&tables).unwrap();
    let socket = UnixStream::connect(folder.path().join("db.sock")).unwrap();
    let mut guest = Tenant::start("thrash", "mode=read depth=8 size=262144", vec![(2, 1, socket)]);
    guest.report("ready");
    let peer = service.exports()[0].peer;
    assert!(peer.is_some());

    let little = share(&service);
    let view = service.change_export("db", &slice("60ms")).unwrap();
    assert_eq!((view.peer, view.device.failed), (peer, None));
    let much = share(&service);
    let refused = service.change_export("db", &slice("100ms"));
    assert!(matches!(refused, Err(ServiceError::Refused(_))), "{refused:?}");
    let still_much = share(&service);
    service.change_export("db", &slice("4ms")).unwrap();
    // The slice that was released under the old contract is served to its end.
    std::thread::sleep(Duration::from_millis(200));
    let little_again = share(&service);

    println!("{little}, {much}, {still_much}, {little_again} per mille of 40, 600, 600, 40");
    // No more than a period is served twice in what is looked at; how much is wanted is up to what
    // else the machine has to do.
    assert!((20..=70).contains(&little), "{little} per mille of a contract for 40");
    assert!(much > 150 && still_much > 150, "{much} and {still_much} per mille of 600");
    assert!(little_again <= 70, "{little_again} per mille of a contract for 40");
    assert_eq!(service.exports()[0].peer, peer);
}
