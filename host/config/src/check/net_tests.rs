use crate::{Config, Document, check, parse};

fn document(link: &str, net: &str) -> Document {
    let text = format!(
        "[host]\ncores = [0]\n[[link]]\nname = \"l\"\nrate = \"10Mbit/s\"\n{link}\n\
         [[export]]\nname = \"e\"\nsocket = \"/run/e.sock\"\n[export.net]\nlink = \"l\"\n{net}\n"
    );
    parse("t.toml", &text).expect("a document")
}

fn right(link: &str, net: &str) -> Config {
    check(&document(link, net)).expect("a configuration")
}

/// The only thing that is wrong.
fn wrong(link: &str, net: &str) -> String {
    let found = check(&document(link, net)).err().unwrap_or_default();
    let [problem] = &found[..] else { panic!("{found:?}") };
    format!("{}: {}", problem.path, problem.message)
}

fn receive(net: &str) -> u32 {
    match &right("", net).exports[0].device {
        crate::export::ExportDevice::Net(net) => net.receive,
        crate::export::ExportDevice::Volume(_) => 0,
    }
}

#[test]
fn addresses_that_no_guest_can_have_are_refused_at_their_key() {
    for address in ["10.0.0.2/24", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::", "ff02::1", "x"]
    {
        let said = wrong("", &format!("addresses = [\"{address}\"]"));
        assert!(said.starts_with("export[0].net.addresses: "), "{said}");
        let said = wrong(&format!("reserved = [\"{address}\"]"), "");
        assert!(said.starts_with("link[0].reserved: "), "{said}");
    }
    for (link, net, expected) in [
        ("", "addresses = []", "export[0].net.addresses: a guest with no address"),
        ("", "addresses = [\"10.0.0.2\", \"10.0.0.2\"]", "10.0.0.2 is written twice"),
        ("address = \"10.0.0.1/24\"", "addresses = [\"10.0.0.1\"]", "10.0.0.1 is the host's"),
        ("reserved = [\"fe80::1\"]", "addresses = [\"fe80:0::1\"]", "fe80::1 is the host's"),
        ("", "addresses = [\"10.0.0.2\"]\nspoofing = \"allow\"", "export[0].net.spoofing: "),
    ] {
        assert!(wrong(link, net).contains(expected), "{}", wrong(link, net));
    }
    let config = right("address = \"10.0.0.1/24\"\nreserved = [\"fe80::1\"]", "");
    let reserved: Vec<_> = config.links[0].reserved.iter().map(ToString::to_string).collect();
    assert_eq!(reserved, ["fe80::1", "10.0.0.1"]);
}

#[test]
fn what_receiving_may_take_is_a_share_of_the_time_and_follows_the_contract() {
    assert_eq!(receive(""), 100);
    assert_eq!(receive("period = \"10ms\"\nslice = \"1ms\""), 100);
    assert_eq!(receive("period = \"10ms\"\nslice = \"6ms\""), 150);
    assert_eq!(receive("receive = \"1.5%\"\nperiod = \"10ms\"\nslice = \"6ms\""), 15);
    assert_eq!(right("", "").links[0].broadcast, 20);
    assert_eq!(right("broadcast = \"100%\"", "").links[0].broadcast, 1000);
    for rate in ["10Mbit/s", "0%", "0.01%"] {
        let said = wrong("", &format!("receive = \"{rate}\""));
        assert!(said.starts_with("export[0].net.receive: "), "{said}");
        let said = wrong(&format!("broadcast = \"{rate}\""), "");
        assert!(said.starts_with("link[0].broadcast: "), "{said}");
    }
}
