//! A right value for every key, to be pasted in place of a wrong one.

use serde_json::Value;

use super::words::{choices, is_quantity, quantity_example};
use super::{Walk, Wanted, keys_of, type_of};

/// Values that show what a key is for, where those of its kind say little. As they stand in a
/// configuration file, by the end of the key's path: the longest one that fits counts.
const EXAMPLES: &[(&str, &str)] = &[
    ("address", "\"10.0.0.1/24\""),
    ("addresses", "[\"10.0.0.2\"]"),
    ("args", "\"ip=10.0.0.2/24\""),
    ("bandwidth", "\"400MB/s\""),
    ("block_size", "\"4K\""),
    ("bridge", "\"br0\""),
    ("broadcast", "\"2%\""),
    ("cid", "3"),
    ("cmdline", "\"root=/dev/vda console=ttyS0\""),
    ("core", "1"),
    ("cores", "[1]"),
    ("count", "8"),
    ("cpu", "{ period = \"10ms\", slice = \"2ms\" }"),
    ("cpu_capacity", "0.9"),
    ("depth", "4"),
    ("disk", "[{ name = \"ssd\", path = \"/srv/volumes\" }]"),
    ("disk.name", "\"ssd\""),
    ("disk.disk", "\"ssd\""),
    ("export", "[{ name = \"vm\", socket = \"/run/moirai/vm.sock\", net = { link = \"up\" } }]"),
    ("export.disk", "{ disk = \"ssd\", volume = \"film.ts\" }"),
    ("export.name", "\"vm\""),
    ("export.net", "{ link = \"up\" }"),
    ("export.socket", "\"/run/moirai/vm.sock\""),
    ("extra", "true"),
    ("files", "[\"a.raw\", \"b.raw\"]"),
    ("group", "\"main\""),
    ("host", "{ cores = [1] }"),
    ("image", "\"streamer\""),
    ("initrd", "\"/srv/initrd\""),
    ("io_core", "0"),
    ("kernel", "\"/srv/vmlinux\""),
    ("link", "[{ name = \"up\", rate = \"100Mbit/s\" }]"),
    ("link.name", "\"up\""),
    ("link.rate", "\"100Mbit/s\""),
    ("load", "{ cpu = { kind = \"busy\" } }"),
    ("load.cpu", "{ kind = \"busy\" }"),
    ("load.disk", "{ kind = \"busy\" }"),
    ("load.link", "{ kind = \"busy\" }"),
    ("mac", "\"02:00:00:00:00:01\""),
    ("max_unit", "\"1ms\""),
    ("memory", "\"64M\""),
    ("memory_reserve", "\"512M\""),
    ("metrics", "\"127.0.0.1:9100\""),
    ("mtu", "1500"),
    ("name", "\"cinema\""),
    ("net.link", "\"up\""),
    ("netns", "\"moirai\""),
    ("path", "\"/srv/volumes\""),
    ("period", "\"10ms\""),
    ("queues", "1"),
    ("rate", "\"30%\""),
    ("receive", "\"10%\""),
    ("reserved", "[\"10.0.0.254\"]"),
    ("serial", "\"disk-1\""),
    ("slice", "\"2ms\""),
    ("socket", "\"/run/moirai/host.sock\""),
    ("state_dir", "\"/run/moirai\""),
    ("stop_after", "\"30s\""),
    ("stripe", "{ files = [\"a.raw\", \"b.raw\"] }"),
    ("tap", "\"moirai0\""),
    ("tenant", "[{ name = \"cinema\", image = \"streamer\" }]"),
    ("tenant.disk", "[{ disk = \"ssd\", volume = \"film.ts\" }]"),
    ("tenant.net", "[{ link = \"up\" }]"),
    ("unit", "\"1ms\""),
    ("stripe.unit", "\"64K\""),
    ("vcpus", "2"),
    ("volume", "\"film.ts\""),
    ("vsock", "{ cid = 3 }"),
];

/// A value that the key takes. Where it has to name something of the `document`, it does.
pub(super) fn example(root: &Value, document: &Value, wanted: Wanted<'_>) -> Option<String> {
    let header = keys_of(wanted.path);
    if header.is_empty() {
        return None;
    }
    let mut listed: Vec<_> = EXAMPLES.iter().filter(|(end, _)| ends_with(&header, end)).collect();
    listed.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
    let listed = listed.into_iter().map(|(_, text)| named(document, &header, text));
    let mut listed = listed.filter(|text| suits(root, wanted, text));
    listed.next().or_else(|| wanted.kinds.iter().find_map(|kind| plain(kind)))
}

/// An example that says nothing but what kind of value it is.
fn plain(kind: &Value) -> Option<String> {
    if is_quantity(kind) {
        return quantity_example(kind).map(|text| format!("\"{text}\""));
    }
    if let Some(choice) = choices(kind).first() {
        return Some(format!("\"{choice}\""));
    }
    match type_of(kind) {
        "boolean" => Some("true".to_owned()),
        "integer" => Some("1".to_owned()),
        "string" => Some("\"text\"".to_owned()),
        _ => None,
    }
}

fn ends_with(header: &str, end: &str) -> bool {
    header.strip_suffix(end).is_some_and(|begin| begin.is_empty() || begin.ends_with('.'))
}

/// The example with the disk, the link, the cores that the document has: any others would be wrong.
fn named(document: &Value, header: &str, text: &str) -> String {
    let first = |place: &str| document.pointer(place).filter(|value| !value.is_null());
    let name = |place: &str| first(place)?.as_str().map(|name| format!("{name:?}"));
    let mut text = text.to_owned();
    if header != "disk"
        && let Some(disk) = name("/disk/0/name")
    {
        text = text.replace("\"ssd\"", &disk);
    }
    if header != "link"
        && let Some(link) = name("/link/0/name")
    {
        text = text.replace("\"up\"", &link);
    }
    match (header, first("/host/cores/0").and_then(Value::as_u64)) {
        ("tenant.core", Some(core)) => core.to_string(),
        ("tenant.cores", Some(core)) => format!("[{core}]"),
        _ => text,
    }
}

/// Whether the example `text` is of one of these kinds.
fn suits(root: &Value, wanted: Wanted<'_>, text: &str) -> bool {
    let Ok(example) = toml::from_str::<toml::Table>(&format!("value = {text}")) else {
        return false;
    };
    let Some(Ok(value)) = example.get("value").map(serde_json::to_value) else { return false };
    wanted.kinds.iter().any(|kind| {
        let mut found = Vec::new();
        Walk { root, document: &Value::Null, found: &mut found }.visit(kind, &value, "", None);
        found.is_empty()
    })
}
