//! What is said about bad configurations, word for word.

use std::path::Path;

use crate::{Report, check, load, parse};

/// What is said about `text`.
fn said(text: &str) -> String {
    let report = parse("bad.toml", text)
        .and_then(|document| {
            check(&document).map_err(|problems| Report::locate("bad.toml", text, problems))
        })
        .expect_err("a bad configuration");
    report.to_string()
}

/// What is said about a tenant on a host with one disk and one link.
fn said_of_tenant(lines: &str) -> String {
    let head = "[host]\ncores = [1]\n[[disk]]\nname = \"ssd\"\npath = \"/srv\"\n\
                [[link]]\nname = \"up\"\nrate = \"100Mbit/s\"\n[[tenant]]\nname = \"a\"\n";
    said(&format!("{head}{lines}"))
}

#[test]
fn a_missing_file_is_named() {
    let said = load(Path::new("/nowhere/moirai.toml")).expect_err("no file").to_string();
    assert!(said.contains("cannot read /nowhere/moirai.toml"), "{said}");
}

#[test]
fn text_that_is_no_toml_is_shown_with_its_line() {
    insta::assert_snapshot!(said("[host\ncores = [1]"), @r#"
     × unclosed table, expected `]`
      ╭─[bad.toml:1:6]
    1 │ [host
      ·      ▲
    2 │ cores = [1]
      ╰────
     help: see docs/config.schema.json for all tables, keys and kinds of values
    "#);
}

#[test]
fn an_unknown_key_is_shown_with_its_line() {
    insta::assert_snapshot!(said_of_tenant("image = \"i\"\n[tenant.cpu]\nslcie = \"1ms\""), @r#"
     × unknown key `slcie`, expected one of `period`, `slice`, `rate`, `deadline`, `extra`
       ╭─[bad.toml:13:1]
    12 │ [tenant.cpu]
    13 │ slcie = "1ms"
       · ─────
       ╰────
     help: see docs/config.schema.json for all tables, keys and kinds of values
    "#);
}

#[test]
fn a_missing_key_is_shown_at_its_table() {
    insta::assert_snapshot!(said_of_tenant("memory = \"64M\""), @r#"
     × neither `image` nor `kernel` is given
       ╭─[bad.toml:9:1]
     8 │ rate = "100Mbit/s"
     9 │ [[tenant]]
       · ──────────
    10 │ name = "a"
       ╰────
     help: add image = "NAME" for a library OS, or kernel = "PATH" for Linux
    "#);
}

#[test]
fn names_that_are_taken_or_impossible_are_refused() {
    let text = "[[link]]\nname = \"a b\"\nrate = \"1Mbit/s\"\ntap = \"t\"\n\
                [[disk]]\nname = \"d\"\npath = \"/a\"\n[[disk]]\nname = \"d\"\npath = \"/b\"";
    insta::assert_snapshot!(said(text), @r#"
     × "a b" cannot be the name of a link
      ╭─[bad.toml:2:8]
    1 │ [[link]]
    2 │ name = "a b"
      ·        ─────
    3 │ rate = "1Mbit/s"
      ╰────
     help: write for example "cinema": up to 32 letters, digits, '-', '_' and '.', beginning with a letter or a digit, because names become parts of paths
     × there are two disks named "d"
       ╭─[bad.toml:9:8]
     8 │ [[disk]]
     9 │ name = "d"
       ·        ───
    10 │ path = "/b"
       ╰────
     help: give each its own name
    "#);
}

#[test]
fn unknown_disks_links_and_cores_are_refused_with_what_there_is() {
    let text = "image = \"i\"\ncore = 7\n[[tenant.disk]]\ndisk = \"sdd\"\nvolume = \"v\"\n\
                [[tenant.net]]\nlink = \"down\"";
    insta::assert_snapshot!(said_of_tenant(text), @r#"
     × core 7 is not one of host.cores [1]
       ╭─[bad.toml:12:8]
    11 │ image = "i"
    12 │ core = 7
       ·        ─
    13 │ [[tenant.disk]]
       ╰────
     help: write for example 1, or add it there
     × there is no disk named "sdd"
       ╭─[bad.toml:14:8]
    13 │ [[tenant.disk]]
    14 │ disk = "sdd"
       ·        ─────
    15 │ volume = "v"
       ╰────
     help: write for example "ssd", or add a [[disk]] with that name
     × there is no link named "down"
       ╭─[bad.toml:17:8]
    16 │ [[tenant.net]]
    17 │ link = "down"
       ·        ──────
       ╰────
     help: write for example "up", or add a [[link]] with that name
    "#);
}

#[test]
fn a_slice_longer_than_its_period_is_refused() {
    let text = "image = \"i\"\n[tenant.cpu]\nperiod = \"10ms\"\nslice = \"12ms\"";
    insta::assert_snapshot!(said_of_tenant(text), @r#"
     × a slice of 12ms is longer than its period of 10ms
       ╭─[bad.toml:14:9]
    13 │ period = "10ms"
    14 │ slice = "12ms"
       ·         ──────
       ╰────
     help: a slice is what is served in every period: shorten it
    "#);
}

#[test]
fn zero_negative_and_absurd_times_are_refused() {
    let zero = "image = \"i\"\n[tenant.cpu]\nperiod = \"0ms\"\nslice = \"0ms\"";
    insta::assert_snapshot!(said_of_tenant(zero), @r#"
     × the period is zero
       ╭─[bad.toml:13:10]
    12 │ [tenant.cpu]
    13 │ period = "0ms"
       ·          ─────
    14 │ slice = "0ms"
       ╰────
     help: write for example "10ms": how often the slice is released
    "#);
    let negative = "image = \"i\"\n[tenant.cpu]\nperiod = \"-10ms\"\nslice = \"1ms\"";
    insta::assert_snapshot!(said_of_tenant(negative), @r#"
     × "-10ms" is negative; only values of zero or more make sense here
       ╭─[bad.toml:13:10]
    12 │ [tenant.cpu]
    13 │ period = "-10ms"
       ·          ───────
    14 │ slice = "1ms"
       ╰────
     help: write for example period = "10ms"
    "#);
    let absurd = "image = \"i\"\n[tenant.cpu]\nperiod = \"300min\"\nslice = \"1ms\"";
    insta::assert_snapshot!(said_of_tenant(absurd), @r#"
     × a period of 18000s is longer than 3600s
       ╭─[bad.toml:13:10]
    12 │ [tenant.cpu]
    13 │ period = "300min"
       ·          ────────
    14 │ slice = "1ms"
       ╰────
     help: write for example "10ms": promises about time need periods of milliseconds to seconds
    "#);
    let tiny = "image = \"i\"\n[tenant.cpu]\nperiod = \"10ns\"\nslice = \"1ns\"";
    insta::assert_snapshot!(said_of_tenant(tiny), @r#"
     × a period of 10ns is shorter than 10us
       ╭─[bad.toml:13:10]
    12 │ [tenant.cpu]
    13 │ period = "10ns"
       ·          ──────
    14 │ slice = "1ns"
       ╰────
     help: write for example "10ms": no scheduler decides that often
    "#);
    let nothing = "image = \"i\"\n[tenant.cpu]\nperiod = \"10ms\"\nslice = 0";
    insta::assert_snapshot!(said_of_tenant(nothing), @r#"
     × a slice of zero without `extra` would never get any service
       ╭─[bad.toml:14:9]
    13 │ period = "10ms"
    14 │ slice = 0
       ·         ─
       ╰────
     help: give it a slice, or extra = true to let it live on the slack
    "#);
}

#[test]
fn rates_that_make_no_sense_are_refused() {
    let text = "image = \"i\"\n[tenant.cpu]\nperiod = \"10ms\"\nrate = \"8Mbit/s\"\n\
                [[tenant.disk]]\ndisk = \"ssd\"\nvolume = \"v\"\nperiod = \"1s\"\nrate \
                = \"1MB/s\"\n\
                [[tenant.net]]\nlink = \"up\"\nperiod = \"10ms\"\nrate = \"200Mbit/s\"\n\
                [[tenant.net]]\nlink = \"up\"\nrate = \"5%\"";
    insta::assert_snapshot!(said_of_tenant(text), @r#"
     × 8Mbit/s says nothing about CPU time
       ╭─[bad.toml:14:8]
    13 │ period = "10ms"
    14 │ rate = "8Mbit/s"
       ·        ─────────
    15 │ [[tenant.disk]]
       ╰────
     help: write a share of the core, for example rate = "30%"
     × 1MB/s of a disk whose `bandwidth` is not declared
       ╭─[bad.toml:19:8]
    18 │ period = "1s"
    19 │ rate = "1MB/s"
       ·        ───────
    20 │ [[tenant.net]]
       ╰────
     help: add what the disk delivers to its [[disk]], for example bandwidth = "400MB/s", or write a share of its time, for example rate = "30%"
     × 200Mbit/s is more than the link's 100Mbit/s
       ╭─[bad.toml:23:8]
    22 │ period = "10ms"
    23 │ rate = "200Mbit/s"
       ·        ───────────
    24 │ [[tenant.net]]
       ╰────
     help: ask for less
     × a slice or a rate without a `period` is no contract
       ╭─[bad.toml:24:1]
    23 │ rate = "200Mbit/s"
    24 │ [[tenant.net]]
       · ──────────────
    25 │ link = "up"
       ╰────
     help: add a period, for example period = "10ms"
    "#);
}

#[test]
fn a_volume_outside_its_disk_is_refused() {
    let text = "image = \"i\"\n[[tenant.disk]]\ndisk = \"ssd\"\nvolume = \"../../etc/shadow\"";
    insta::assert_snapshot!(said_of_tenant(text), @r#"
     × the volume ../../etc/shadow is not below its disk's path
       ╭─[bad.toml:14:10]
    13 │ disk = "ssd"
    14 │ volume = "../../etc/shadow"
       ·          ──────────────────
       ╰────
     help: write for example "film.ts": a path relative to the disk's path, without ".."
    "#);
}

#[test]
fn numbers_out_of_range_are_refused() {
    let text = "image = \"i\"\nmemory = 5000\nvcpus = 0\nargs = \"a\\u0007\"\n\
                [[tenant.net]]\nlink = \"up\"\nmac = \"01:00:00:00:00:01\"";
    insta::assert_snapshot!(said_of_tenant(text), @r#"
     × 5000B of memory are not 2M to 1024G
       ╭─[bad.toml:12:10]
    11 │ image = "i"
    12 │ memory = 5000
       ·          ────
    13 │ vcpus = 0
       ╰────
     help: write for example "64M"
     × 0 virtual CPUs are not 1 to 8
       ╭─[bad.toml:13:9]
    12 │ memory = 5000
    13 │ vcpus = 0
       ·         ─
    14 │ args = "a\u0007"
       ╰────
     help: write for example 2: how many the guest gets
     × the arguments have characters that a guest's command line cannot have
       ╭─[bad.toml:14:8]
    13 │ vcpus = 0
    14 │ args = "a\u0007"
       ·        ─────────
    15 │ [[tenant.net]]
       ╰────
     help: write for example "ip=10.0.0.2/24": printable ASCII and blanks
     × "01:00:00:00:00:01" is not the address of one network card
       ╭─[bad.toml:17:7]
    16 │ link = "up"
    17 │ mac = "01:00:00:00:00:01"
       ·       ───────────────────
       ╰────
     help: write for example "02:00:00:00:00:01": six bytes, the first one even
    "#);
}

#[test]
fn hosts_disks_and_links_out_of_range_are_refused() {
    let text = "[host]\ncores = []\ncpu_capacity = 1.5\n[[disk]]\nname = \"d\"\npath = \"/\"\n\
                depth = 0\n[[link]]\nname = \"l\"\nrate = \"5%\"\nmtu = 9\naddress = \"10.0.0.1\"";
    insta::assert_snapshot!(said(text), @r#"
     × no core for tenants
      ╭─[bad.toml:2:9]
    1 │ [host]
    2 │ cores = []
      ·         ──
    3 │ cpu_capacity = 1.5
      ╰────
     help: write for example cores = [1]
     × a capacity of 1.5 is not between 0 and 1
      ╭─[bad.toml:3:16]
    2 │ cores = []
    3 │ cpu_capacity = 1.5
      ·                ───
    4 │ [[disk]]
      ╰────
     help: write for example 0.9: the share of a core that may be reserved
     × a depth of 0 is not 1 to 1024
      ╭─[bad.toml:7:9]
    6 │ path = "/"
    7 │ depth = 0
      ·         ─
    8 │ [[link]]
      ╰────
     help: write for example 4: how many requests the device gets at a time
     × 5% is not the rate of a link
       ╭─[bad.toml:10:8]
     9 │ name = "l"
    10 │ rate = "5%"
       ·        ────
    11 │ mtu = 9
       ╰────
     help: write for example "100Mbit/s"
     × an MTU of 9 is not 68 to 65521
       ╭─[bad.toml:11:7]
    10 │ rate = "5%"
    11 │ mtu = 9
       ·       ─
    12 │ address = "10.0.0.1"
       ╰────
     help: write for example 1500: the largest packet in bytes
     × "10.0.0.1" is not an IPv4 address with a prefix
       ╭─[bad.toml:12:11]
    11 │ mtu = 9
    12 │ address = "10.0.0.1"
       ·           ──────────
       ╰────
     help: write for example "10.0.0.1/24"
    "#);
}

#[test]
fn a_list_is_no_table_without_names_of_its_keys() {
    let tenant = "[[tenant]]\nname = \"a\"\nimage = \"i\"\n";
    for (text, place) in [
        ("host = []\n".to_owned(), "bad.toml:1:8"),
        (format!("{tenant}cpu = [\"10ms\", \"3ms\"]\n"), "bad.toml:4:7"),
        ("tenant = [[\"a\"]]\n".to_owned(), "bad.toml:1:11"),
    ] {
        let said = parse("bad.toml", &text).unwrap_err().to_string();
        assert!(said.contains("takes a table") && said.contains(place), "{said}");
    }
}
