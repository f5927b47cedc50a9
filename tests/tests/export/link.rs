//! A port of a link under a guest of QEMU.

use std::process::{Child, Command, Stdio};

use moirai_tests::{Host, said};

use super::qemu::{Device, Qemu};
use super::{export, port, socket};

const MAC: &str = "52:54:00:00:00:01";

/// An iperf3 server at the host's end of the link; killed with the value.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(host: &Host, tcp_port: &str) -> Self {
        let server = Command::new("ip")
            .args(["netns", "exec", &host.netns, "iperf3", "-s", "-p", tcp_port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("iperf3 can be run");
        Self(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn linux_behind_qemu_talks_over_our_link_and_goes_on_after_the_host_service_was_killed() {
    let host = Host::start();
    let table = port("port", MAC, "extra = true");
    export(&host, &table);
    let mut guest = Qemu::boot(&[Device::Net(&socket(&host, "port"), MAC, "10.77.0.2/24")]);
    let said_by_ping = guest.run("ping -c 5 -W 2 10.77.0.1");
    assert!(said_by_ping.contains(" 0% packet loss"), "{said_by_ping}");
    let server = Server::start(&host, "5201");
    for words in ["", "-R", "-u -b 5M"] {
        let report = guest.run(&format!("/usr/bin/iperf3 -c 10.77.0.1 -t 2 {words}"));
        assert!(report.contains("receiver"), "{words}: {report}");
    }
    drop(server);
    // Another address than the port's is not let through.
    let before = host.part("export/port", "link")["dropped_tx"].as_u64().unwrap();
    guest.run(
        "ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:99; \
               ip link set eth0 up; ! ping -c 2 -W 1 10.77.0.1",
    );
    guest.run(
        "ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:01; \
               ip link set eth0 up",
    );
    let after = host.part("export/port", "link")["dropped_tx"].as_u64().unwrap();
    assert!(after > before, "{before} to {after} packets were dropped");

    let (folder, netns) = host.kill();
    let host = Host::start_in(folder, netns, &[]);
    export(&host, &table);
    moirai_tests::wait_for("QEMU has connected again", || {
        !host.json(&["exports"])[0]["peer"].is_null()
    });
    guest.run("for try in 1 2 3 4 5; do ping -c 2 -W 2 10.77.0.1 && break; done");
    let ping = Command::new("ip")
        .args(["netns", "exec", &host.netns, "ping", "-c", "3", "-W", "2", "10.77.0.2"])
        .output()
        .unwrap();
    assert!(said(&ping).contains(" 0% packet loss"), "{}", said(&ping));
}
