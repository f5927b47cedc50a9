//! Links: a Linux guest talks with the host over a TAP in the link's network namespace.

use std::process::{Child, Command, Stdio};

use moirai_tests::{Host, program};
use serde_json::Value;

use super::guest::{Guest, Machine, tools};

const HOST: &str = "10.77.0.1";
const GUEST: &str = "10.77.0.2";

/// A program in the link's namespace that ends with the value.
struct Peer(Child);

impl Peer {
    fn start(host: &Host, words: &[&str]) -> Self {
        let child = Command::new("ip")
            .args(["netns", "exec", &host.netns])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("ip netns exec");
        Self(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn on_link(host: &Host, machine: Machine) -> Guest<'_> {
    tools(host);
    let mut guest = Guest::boot(host, "linux", &machine.on_link("10.77.0.2/24").with_tools());
    guest.mount_tools(1);
    guest
}

fn pings(transport: &'static str, vcpus: u32) {
    let host = Host::start();
    let machine = Machine { transport, vcpus, ..Machine::default() };
    let mut guest = Guest::boot(&host, "linux", &machine.on_link("10.77.0.2/24"));
    guest.run(&format!("ping -c 3 -W 5 {HOST}"));
    program(&[
        "ip",
        "netns",
        "exec",
        &host.netns,
        "ping",
        "-c",
        "3",
        "-s",
        "1400",
        "-W",
        "5",
        GUEST,
    ]);
}

#[test]
fn host_and_guest_ping_each_other_over_mmio() {
    pings("mmio", 1);
}

#[test]
fn host_and_guest_ping_each_other_over_pci() {
    pings("pci", 2);
}

/// Bytes that arrived, of an iperf3 run from inside the guest.
fn iperf(guest: &mut Guest<'_>, words: &str) -> (f64, Value) {
    let text = guest.run(&format!("chroot /mnt /bin/iperf3 -J -t 3 -c {HOST} {words}"));
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let sum = if words.contains("-u") { "sum" } else { "sum_received" };
    let sum = report["end"][sum].clone();
    (sum["bytes"].as_f64().unwrap_or_default(), sum)
}

#[test]
fn iperf3_runs_both_ways_over_tcp_and_udp() {
    let host = Host::start();
    let mut guest = on_link(&host, Machine { transport: "pci", ..Machine::default() });
    let _server = Peer::start(&host, &["iperf3", "-s"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    for words in ["", "-R"] {
        let (bytes, sum) = iperf(&mut guest, words);
        assert!(bytes > 1e5, "TCP {words}: {sum}");
    }
    // Slow enough for an emulated machine: then nearly everything has to arrive.
    for words in ["-u -b 4M", "-u -b 4M -R"] {
        let (bytes, sum) = iperf(&mut guest, words);
        assert!(bytes > 1e5, "UDP {words}: {sum}");
        assert!(sum["lost_percent"].as_f64().is_some_and(|lost| lost < 10.0), "{words}: {sum}");
    }
}

/// 32 MiB each way over TCP; the checksums are made by two different programs.
#[test]
fn a_large_file_arrives_as_it_was() {
    let host = Host::start();
    let mut guest = on_link(&host, Machine { vcpus: 2, ..Machine::default() });
    let file = host.folder().join("large");
    let file = file.to_string_lossy();
    program(&["dd", "if=/dev/urandom", &format!("of={file}"), "bs=1M", "count=32", "status=none"]);
    let sum = program(&["md5sum", &file]);
    let sum = sum.split_whitespace().next().expect("a checksum");
    let from = format!("OPEN:{file}");
    let _server = Peer::start(&host, &["socat", "-u", &from, "TCP-LISTEN:5555,reuseaddr"]);
    let socat = "sleep 1; chroot /mnt /bin/socat -u";
    let received = guest.run(&format!("{socat} TCP:{HOST}:5555 - | tee /tmp/large | md5sum"));
    assert!(received.starts_with(sum), "to the guest: {received}, not {sum}");

    let to = format!("OPEN:{file}.back,creat,trunc");
    let mut server = Peer::start(&host, &["socat", "-u", "TCP-LISTEN:5556,reuseaddr", &to]);
    guest.run(&format!("{socat} - TCP:{HOST}:5556 </tmp/large"));
    let _ = server.0.wait();
    let received = program(&["md5sum", &format!("{file}.back")]);
    assert!(received.starts_with(sum), "from the guest: {received}, not {sum}");
}
