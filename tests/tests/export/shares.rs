//! Two VMs of QEMU with contracts on one disk and one link: each gets its own. Without scheduling
//! they do not.

use std::time::{Duration, Instant};

use moirai_tests::Host;
use serde_json::Value;

use super::link::Server;
use super::qemu::{Device, Qemu};
use super::{disk, export, port, socket};

const MACS: [&str; 2] = ["52:54:00:00:00:01", "52:54:00:00:00:02"];
/// Reads as fast as it is let, for longer than anybody looks.
const READ: &str = "/usr/bin/fio --name=r --filename=/dev/vda --direct=1 --ioengine=libaio \
                    --iodepth=32 --rw=randread --bs=256k --time_based --runtime=600 \
                    >/dev/null 2>&1 &";

/// Two guests that want all of the disk and all of the link.
struct World {
    _servers: [Server; 2],
    _guests: [Qemu; 2],
    host: Host,
}

impl World {
    fn new(words: &[&str]) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let netns = format!("moirai-x{}-{}", std::process::id(), words.len());
        let host = Host::start_in(folder, netns, words);
        // Little enough that emulated guests on a busy machine always want more.
        let [a, b] = ["10%", "3%"];
        let contract = |rate: &str| format!("period = \"100ms\"\nrate = \"{rate}\"\nextra = false");
        let text = [
            disk(&host, "disk-a", &contract(a)),
            disk(&host, "disk-b", &contract(b)),
            port("net-a", MACS[0], &contract(a)),
            port("net-b", MACS[1], &contract(b)),
        ];
        export(&host, &text.concat());
        let begin = |which: &str, mac: &str, ip: &str| {
            let [disk, net] = ["disk", "net"].map(|kind| socket(&host, &format!("{kind}-{which}")));
            Qemu::begin(&[Device::Disk(&disk), Device::Net(&net, mac, ip)])
        };
        let mut guests = [begin("a", MACS[0], "10.77.0.2/24"), begin("b", MACS[1], "10.77.0.3/24")];
        let servers = ["5201", "5202"].map(|port| Server::start(&host, port));
        for (guest, port) in guests.iter_mut().zip(["5201", "5202"]) {
            guest.wait_until_ready();
            guest.run(READ);
            guest.run(&format!(
                "/usr/bin/iperf3 -c 10.77.0.1 -p {port} -t 600 -u -b 40M -l 1400 >/dev/null 2>&1 &"
            ));
        }
        let world = Self { _servers: servers, _guests: guests, host };
        world.wait_until_busy();
        world
    }

    /// Programs take a while to start in a guest that is emulated.
    fn wait_until_busy(&self) {
        let begin = Instant::now();
        let parts = [("disk-a", "disk"), ("disk-b", "disk"), ("net-a", "link"), ("net-b", "link")];
        for (name, kind) in parts {
            let part = || self.host.part(&format!("export/{name}"), kind);
            while part()["completed"].as_u64() < Some(200) {
                assert!(begin.elapsed() < Duration::from_secs(120), "{name} is idle: {}", part());
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Per mille of disk or link that each got in five seconds.
    fn shares(&self, kind: &str) -> [u64; 2] {
        let names = ["a", "b"]
            .map(|which| format!("export/{}-{which}", if kind == "link" { "net" } else { kind }));
        // One look at both: on a busy machine a second one comes late.
        let look = || {
            let stats = self.host.stats();
            let of = |name: &String| served(&stats, name);
            (stats["now_ns"].as_u64().unwrap(), names.each_ref().map(of))
        };
        let (begin, before) = look();
        std::thread::sleep(Duration::from_secs(5));
        let (end, after) = look();
        [0, 1].map(|which| (after[which] - before[which]) * 1000 / (end - begin))
    }
}

/// What an export got so far, in nanoseconds.
fn served(stats: &Value, name: &str) -> u64 {
    let exports = stats["tenants"].as_array().unwrap();
    let export = exports.iter().find(|export| export["name"] == name).unwrap();
    let part = &export["parts"][0];
    part["guaranteed_ns"].as_u64().unwrap() + part["extra_ns"].as_u64().unwrap()
}

#[test]
fn two_guests_of_qemu_get_what_their_contracts_say_of_disk_and_link() {
    let world = World::new(&[]);
    std::thread::sleep(Duration::from_secs(2));
    for kind in ["disk", "link"] {
        let [a, b] = world.shares(kind);
        println!("{kind}: {a} and {b} per mille under contracts for 100 and 30");
        assert!((75..=105).contains(&a) && (22..=32).contains(&b), "{kind}: {a} and {b}");
    }
}

#[test]
fn without_scheduling_two_guests_of_qemu_get_what_they_take() {
    let world = World::new(&["--no-scheduling"]);
    std::thread::sleep(Duration::from_secs(2));
    for kind in ["disk", "link"] {
        let [a, b] = world.shares(kind);
        println!("{kind}: {a} and {b} per mille without scheduling");
        assert!(b > 60, "{kind}: {a} and {b}: the second one was held to its contract");
    }
}
