//! Tests of the command line.
#![allow(clippy::cast_possible_truncation, reason = "tests cut numbers to size on purpose")]

use super::*;

#[test]
fn devices_are_read_as_linux_and_qemu_write_them() {
    let args = Args::parse(
        "virtio_mmio.device=4K@0xd0000000:5 a=b virtio_mmio.device=512@0xfeb00e00:12 \
         virtio_mmio.device=0x1000@0xd0001000:6:1",
    );
    let expected = [
        DeviceWindow { base: 0xd000_0000, size: 0x1000, gsi: 5 },
        DeviceWindow { base: 0xfeb0_0e00, size: 512, gsi: 12 },
        DeviceWindow { base: 0xd000_1000, size: 0x1000, gsi: 6 },
    ];
    assert_eq!(args.devices(), expected);
}

#[test]
fn device_outside_the_mapped_memory_is_ignored() {
    for word in ["4K@0xfffffffff000:5", "4K@0xffffffff:5", "4K@0xd0000001:5", "4K@", "@:", ""] {
        let args = Args::parse(&format!("virtio_mmio.device={word}"));
        assert_eq!(args.devices(), [], "{word}");
    }
}

#[test]
fn unknown_words_are_refused_by_name_with_those_that_there_are() {
    let list = |line: &str| Args::parse(line).list(&[&["report_ms"], &["loop", "to"]]);
    for line in ["", "loop=0 to=1", "loop=0 loop=1 virtio_mmio.device=4K@0xd0000000:5"] {
        assert_eq!(list(line), Ok(()), "{line}");
    }
    let firecracker =
        "reboot=k panic=1 pci=off nomodule 8250.nr_uarts=0 i8042.noaux root=/dev/vda rw";
    assert_eq!(list(firecracker), Ok(()), "other VMMs say this to all guests");
    for (line, word) in [
        ("loop=0 lop=0", "lop=0"),
        ("Loop=0", "Loop=0"),
        ("loop", "loop"),
        ("loop = 0", "="),
        ("loop=0 --", "--"),
        ("=", "="),
        ("loop=0,to=1 tö=1", "tö=1"),
    ] {
        let expected =
            format!("{word}: there is no such word; the words are report_ms=, loop=, to=");
        let error = list(line).unwrap_err().to_string();
        assert_eq!(error, expected);
    }
}

#[test]
fn word_that_is_asked_for_has_to_be_listed() {
    let mut args = Args::parse("size=1");
    args.list(&[&["size"]]).unwrap();
    assert_eq!(args.number("size", 9, (0, 10)), Ok(1));
    assert_eq!(args.number("depth", 9, (0, 10)), Err(ArgError::Unlisted { key: "depth" }));
    assert_eq!(args.cidr("ip"), Err(ArgError::Unlisted { key: "ip" }));
}

#[test]
fn own_address_is_that_of_one_host() {
    let own = |ip: &str| Args::parse(&format!("ip={ip}")).cidr("ip").map(|it| it.prefix);
    for ip in ["10.0.0.2/24", "10.0.0.2/0", "10.0.0.0/31", "10.0.0.255/32", "192.168.1.1/8"] {
        assert!(own(ip).is_ok(), "{ip}");
    }
    for (ip, why) in [
        ("0.0.0.0/0", "nobody"),
        ("0.1.2.3/8", "nobody"),
        ("10.77.0.0/24", "the network"),
        ("10.77.0.255/24", "everybody's"),
        ("127.0.0.1/8", "loopback"),
        ("224.0.0.1/4", "a group"),
        ("239.1.1.1/24", "a group"),
        ("240.0.0.1/8", "no host"),
        ("255.255.255.255/32", "no host"),
    ] {
        let error = own(ip).unwrap_err().to_string();
        assert!(error.starts_with(&format!("ip={ip}: ")) && error.contains(why), "{error}");
        assert!(error.ends_with("for example ip=10.0.0.2/24"), "{error}");
    }
}

#[test]
fn gateway_has_to_be_another_host_of_the_own_network() {
    let check = |ip: &str, gateway: &str| {
        let cidr = Args::parse(&format!("ip={ip}")).cidr("ip").unwrap();
        cidr.check_gateway(gateway.parse().unwrap()).map_err(|error| error.to_string())
    };
    for (ip, gateway) in
        [("10.0.0.2/24", "10.0.0.1"), ("10.0.0.2/31", "10.0.0.3"), ("10.0.0.2/0", "10.9.9.9")]
    {
        assert_eq!(check(ip, gateway), Ok(()), "{gateway}");
    }
    let outside = check("10.0.0.2/24", "10.0.1.1").unwrap_err();
    assert_eq!(
        outside,
        "gw=10.0.1.1: it is outside our own network, so nothing leaves through it: give gw= \
         another address in the network of ip=10.0.0.2/24, or leave gw= out"
    );
    for (ip, gateway, why) in [
        ("10.0.0.2/24", "10.0.0.2", "our own"),
        ("10.0.0.2/24", "10.0.0.255", "no host"),
        ("10.0.0.2/24", "10.0.0.0", "no host"),
        ("10.0.0.2/32", "10.0.0.1", "outside"),
        ("10.0.0.2/0", "239.1.1.1", "no host"),
        ("10.0.0.2/24", "255.255.255.255", "outside"),
    ] {
        assert!(check(ip, gateway).unwrap_err().contains(why), "{gateway}");
    }
}

#[test]
fn vmm_says_where_the_data_of_volumes_ends() {
    let mut args = Args::parse("moirai.volume_bytes=188,5000 size=1");
    assert_eq!(args.list(&[&["size"]]), Ok(()));
    assert_eq!([0, 1, 2].map(|number| args.volume_bytes(number)), [Some(188), Some(5000), None]);
    for silent in ["", "moirai.volume_bytes=", "moirai.volume_bytes=x"] {
        assert_eq!(Args::parse(silent).volume_bytes(0), None, "{silent}");
    }
}

#[test]
fn last_word_counts_and_words_that_nobody_lists_do_no_harm() {
    let args = Args::parse("reboot=t quiet size=1 size=2 =");
    assert_eq!(args.number("size", 9, (0, 10)), Ok(2));
    assert_eq!(args.number("depth", 9, (0, 10)), Ok(9));
}

#[test]
fn number_out_of_range_names_the_range() {
    let error = Args::parse("size=70000").number("size", 1, (1, 65507)).unwrap_err();
    assert_eq!(error.to_string(), "size=70000: has to be from 1 to 65507");
    assert!(matches!(
        Args::parse("size=-1").number("size", 1, (0, 9)),
        Err(ArgError::Malformed { .. })
    ));
}

/// All that applications ask for, as it stands in their source: key, default and range of a number.
fn numbers() -> Vec<(String, [u64; 3])> {
    let guest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut sources = vec![guest.join("sdk/src/lib.rs")];
    let apps = std::fs::read_dir(guest.join("apps")).unwrap();
    sources.extend(apps.map(|app| app.unwrap().path().join("src/main.rs")));
    let mut found = Vec::new();
    for path in sources {
        let text = std::fs::read_to_string(path).unwrap();
        let flat: String = text.split_whitespace().collect();
        // Three arguments, the last of which is a pair: others called `number` are fields of
        // reports.
        for call in flat.split("args.number(").chain(flat.split("args().number(")).skip(1) {
            let Some((key, rest)) = call.strip_prefix('"').and_then(|it| it.split_once('"')) else {
                continue;
            };
            let (default, range) = rest.trim_start_matches(',').split_once(",(").unwrap();
            let (min, max) = range.split_once("))").unwrap().0.split_once(',').unwrap();
            found.push((key.to_owned(), [default, min, max].map(constant)));
        }
    }
    found
}

fn constant(text: &str) -> u64 {
    match text {
        "u64::MAX" => u64::MAX,
        "MS_MAX" | "US_MAX" => 1 << 40,
        "CHUNK_MIN" => 4096,
        "CHUNK_MAX" => 4 << 20,
        "FALLBACK_BPS" => 8_000_000,
        "SECTOR" => crate::request::SECTOR,
        // Another word of `pulse`, which has this default.
        "period" => 20_000,
        _ => {
            let plain = text.replace('_', "");
            let (number, shift) = plain.split_once("<<").unwrap_or((&plain, "0"));
            let number: u64 = number.parse().unwrap_or_else(|_| panic!("{text} is unknown here"));
            number << shift.parse::<u32>().unwrap()
        }
    }
}

/// Asks with a wrong value; then with the example of the error.
fn example_does<T: core::fmt::Debug>(
    word: &str,
    ask: impl Fn(&Args) -> Result<T, ArgError>,
) -> String {
    let message = ask(&Args::parse(word)).unwrap_err().to_string();
    let (_, example) = message.rsplit_once("for example ").unwrap();
    let answer = ask(&Args::parse(example));
    assert!(answer.is_ok(), "{message}: {answer:?}");
    message
}

#[test]
fn example_of_every_word_of_every_application_is_taken_where_it_is_pasted() {
    let numbers = numbers();
    for key in ["for_ms", "loop", "chunk", "rate", "work_us", "depth", "seed", "port", "size"] {
        assert!(numbers.iter().any(|(name, _)| name == key), "{key} was not found");
    }
    for (key, [default, min, max]) in numbers {
        let key: &'static str = key.leak();
        for value in ["no", "", "-1", "99999999999999999999"] {
            let message = example_does(&format!("{key}={value}"), |args| {
                args.number(key, default, (min, max))
            });
            let expected = format!("{key}={value}: expected a number from {min} to {max}, ");
            assert!(message.starts_with(&expected), "{message}");
        }
    }
    let mode = |args: &Args| args.choice("mode", &["read", "write", "mixed"]);
    let expected = "mode=x: expected one of read, write, mixed, for example mode=read";
    assert_eq!(example_does("mode=x", mode), expected);
    example_does("ip=x", |args| args.cidr("ip"));
    example_does("gw=x", |args| args.address("gw"));
    example_does("to=x", |args| args.endpoints("to"));
    example_does("reads=2", |args| args.endpoints("to"));
}

#[test]
fn network_prefix_decides_what_is_near() {
    let cidr = Args::parse("ip=10.0.0.2/24").cidr("ip").unwrap();
    assert!(cidr.contains(Ipv4Addr::new(10, 0, 0, 255)));
    assert!(!cidr.contains(Ipv4Addr::new(10, 0, 1, 2)));
    assert_eq!(Args::parse("").cidr("ip"), Ok(cidr), "the default that guest/README.md names");
    let any = Args::parse("ip=10.0.0.2/0").cidr("ip").unwrap();
    assert!(any.contains(Ipv4Addr::new(192, 168, 0, 1)));
    for bad in ["ip=10.0.0.2/33", "ip=10.0.0.2", "ip=x/8", "ip="] {
        assert!(Args::parse(bad).cidr("ip").is_err(), "{bad}");
    }
}

#[test]
fn next_hop_is_everybody_a_neighbour_the_gateway_or_nobody() {
    let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    let cidr = Args::parse("ip=10.0.0.2/24").cidr("ip").unwrap();
    let gateway = Some(address("10.0.0.254"));
    for (to, near, far) in [
        ("10.0.0.9", NextHop::Neighbour(address("10.0.0.9")), None),
        ("10.0.0.255", NextHop::Everybody, None),
        ("255.255.255.255", NextHop::Everybody, None),
        ("239.1.1.1", NextHop::Neighbour(address("239.1.1.1")), None),
        ("10.0.1.255", NextHop::None, gateway.map(NextHop::Neighbour)),
    ] {
        assert_eq!(cidr.next_hop(None, address(to)), near, "{to}");
        assert_eq!(cidr.next_hop(gateway, address(to)), far.unwrap_or(near), "{to}");
    }
    let whole = |prefix| Ipv4Cidr { address: address("10.0.0.2"), prefix }.broadcast();
    assert_eq!(whole(0), Some(Ipv4Addr::BROADCAST));
    assert_eq!(whole(20), Some(address("10.0.15.255")));
    assert_eq!(whole(30), Some(address("10.0.0.3")));
    assert_eq!((whole(31), whole(32)), (None, None));
}

#[test]
fn list_of_endpoints_is_read_or_refused_as_a_whole() {
    let args = Args::parse("to=10.0.0.1:5004,10.0.0.9:6");
    let expected = [
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 5004),
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 6),
    ];
    assert_eq!(args.endpoints("to").unwrap(), expected);
    assert!(Args::parse("to=10.0.0.1:5004,").endpoints("to").is_err());
    let error = Args::parse("").endpoints("to").unwrap_err().to_string();
    assert_eq!(error, "the command line lacks to=, for example to=10.0.0.1:5004,10.0.0.1:5006");
}

#[test]
fn arbitrary_text_does_no_harm() {
    let letters = ['=', '@', ':', ' ', ',', '/', '.', '0', '9', 'x', 'K', 'é', 'v'];
    let mut seed = 1u64;
    for _ in 0..20_000 {
        let mut line = String::from("virtio_mmio.device=4K@0xd");
        for _ in 0..20 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            line.push(letters[(seed >> 33) as usize % letters.len()]);
        }
        let args = Args::parse(&line.replace(' ', " to="));
        let _ = (args.endpoints("to"), args.cidr("to"), args.number("to", 0, (0, 9)));
        assert!(args.devices().iter().all(|window| window.base + window.size <= 1 << 32));
    }
}
