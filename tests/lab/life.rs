//! How machines end, and what their end does to others.

use std::time::{Duration, Instant};

use moirai_tests::{Host, kill, lives, said, wait_for};

use super::guest::{Guest, Machine, PATIENCE};

#[test]
fn power_off_and_reboot_are_told_apart() {
    let host = Host::start();
    let mut guest = Guest::boot(&host, "linux", &Machine::default().on_link("10.77.0.2/24"));
    let first = guest.pid();
    guest.run("touch /tmp/before");
    guest.start("reboot -f");
    guest.ready();
    let view = guest.show();
    assert_eq!(view["restarts"], 1, "{view}");
    assert_ne!(guest.pid(), first, "a new process for a new machine");
    assert_eq!(guest.try_run("test -e /tmp/before").0, 1, "nothing of the old memory");
    guest.run("ping -c 1 -W 5 10.77.0.1");
    let end = guest.power_off();
    assert!(end.contains("powered itself off"), "{end}");
}

#[test]
fn stop_presses_the_power_button() {
    let host = Host::start();
    for transport in ["mmio", "pci"] {
        let machine = Machine { transport, ..Machine::default() };
        let mut guest = Guest::boot(&host, transport, &machine);
        let begin = Instant::now();
        let stopped = host.ask(&["stop", transport]);
        assert!(stopped.status.success(), "{}", said(&stopped));
        guest.expect("guest: power button");
        assert!(begin.elapsed() < Duration::from_secs(25), "the guest did it, not the limit");
    }
}

#[test]
fn a_guest_that_ignores_its_power_button_is_stopped_after_a_while() {
    let host = Host::start();
    let more = "stop_after = \"2s\"\n".to_owned();
    let mut guest = Guest::boot(&host, "deaf", &Machine { more, ..Machine::default() });
    guest.run("killall dd");
    let pid = guest.pid();
    host.stop_failed("deaf");
    wait_for("the process has gone", || !lives(pid));
}

#[test]
fn a_tenant_process_that_is_killed_takes_no_other_with_it() {
    let host = Host::start();
    let machine = Machine::default();
    let victim = Guest::boot(&host, "victim", &machine.clone().on_link("10.77.0.2/24"));
    let mut other = Guest::boot(&host, "other", &machine.clone().on_link("10.77.0.3/24"));
    kill(victim.pid());
    wait_for("the victim has ended", || host.json(&["show", "victim"])["phase"] == "ended");
    assert_eq!(host.json(&["show", "victim"])["end"]["ok"], false);
    other.run("ping -c 3 -W 5 10.77.0.1");
    drop(victim);
    host.stop_failed("victim");
    let mut again = Guest::boot(&host, "victim", &machine.on_link("10.77.0.2/24"));
    again.run("ping -c 3 -W 5 10.77.0.1");
}

#[test]
fn a_host_service_that_is_killed_leaves_nothing_and_starts_again() {
    let host = Host::start();
    let guest = Guest::boot(&host, "linux", &Machine::default().on_link("10.77.0.2/24"));
    let pid = guest.pid();
    drop(guest);
    let (folder, netns) = host.kill();
    wait_for("the tenant dies with its host", || !lives(pid));
    let again = Host::start_in(folder, netns.clone(), &[]);
    let mut guest = Guest::boot(&again, "linux", &Machine::default().on_link("10.77.0.2/24"));
    guest.run("ping -c 3 -W 5 10.77.0.1");
    drop(guest);
    drop(again);
    assert!(!moirai_runtime::netns::path(&netns).exists(), "the namespace is removed");
}

#[test]
fn eight_tenants_run_at_once() {
    let host = Host::start();
    let mut guests: Vec<_> = (2..10)
        .map(|number| {
            let transport = if number % 2 == 0 { "pci" } else { "mmio" };
            let machine = Machine { transport, memory: "192M", ..Machine::default() };
            let address = format!("10.77.0.{number}/24");
            Guest::launch(&host, &format!("tenant-{number}"), &machine.on_link(&address))
        })
        .collect();
    let begin = Instant::now();
    for guest in &mut guests {
        guest.ready();
        assert!(begin.elapsed() < 2 * PATIENCE);
    }
    for guest in &mut guests {
        guest.run("ping -c 2 -W 10 10.77.0.1");
        assert_eq!(guest.show()["phase"], "running");
    }
}
