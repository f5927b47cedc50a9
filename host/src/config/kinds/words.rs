//! Words and examples for the kinds of values.

use super::written::written;
use serde_json::Value;

use super::{fits, type_of};

/// Values that show what a key is for, where those of its kind say little. As they stand in a
/// configuration file.
const EXAMPLES: &[(&str, &str)] = &[
    ("address", "\"10.0.0.1/24\""),
    ("args", "\"ip=10.0.0.2/24\""),
    ("bandwidth", "\"400MB/s\""),
    ("block_size", "4096"),
    ("bridge", "\"br0\""),
    ("cid", "3"),
    ("cmdline", "\"root=/dev/vda console=ttyS0\""),
    ("core", "1"),
    ("cores", "[1]"),
    ("count", "8"),
    ("cpu_capacity", "0.95"),
    ("disk", "\"ssd\""),
    ("files", "[\"a.raw\", \"b.raw\"]"),
    ("group", "\"main\""),
    ("image", "\"streamer\""),
    ("initrd", "\"/srv/initrd\""),
    ("io_core", "0"),
    ("kernel", "\"/srv/vmlinux\""),
    ("link", "\"up\""),
    ("mac", "\"02:00:00:00:00:01\""),
    ("max_unit", "\"1ms\""),
    ("memory", "\"64M\""),
    ("memory_reserve", "\"512M\""),
    ("metrics", "\"127.0.0.1:9100\""),
    ("mtu", "1500"),
    ("name", "\"cinema\""),
    ("netns", "\"moirai\""),
    ("path", "\"/srv/volumes\""),
    ("queues", "1"),
    ("serial", "\"disk-1\""),
    ("socket", "\"/run/moirai/host.sock\""),
    ("state_dir", "\"/run/moirai\""),
    ("tap", "\"moirai0\""),
    ("unit", "\"64K\""),
    ("vcpus", "2"),
    ("volume", "\"film.ts\""),
];

/// Whether a schema is that of a time, a size or a rate.
pub(super) fn is_quantity(schema: &Value) -> bool {
    words_of_quantity(schema).is_some()
}

fn words_of_quantity(schema: &Value) -> Option<&str> {
    let text = schema.get("description")?.as_str()?;
    let kinds = ["A time such as", "A size such as", "A rate such as"];
    kinds.iter().any(|kind| text.starts_with(kind)).then_some(text)
}

/// The values of a choice; empty for what is none.
pub(super) fn choices(kind: &Value) -> Vec<&str> {
    let listed = kind.get("enum").and_then(Value::as_array).into_iter().flatten();
    let one = kind.get("const").into_iter();
    let described = kind.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let described = described.flat_map(choices);
    listed.chain(one).filter_map(Value::as_str).chain(described).collect()
}

/// The largest number that a whole number may be.
pub(super) fn most(kind: &Value) -> u64 {
    match kind.get("format").and_then(Value::as_str) {
        Some("uint8") => u8::MAX.into(),
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        _ => u64::MAX,
    }
}

/// What a key with these kinds takes.
pub(super) fn takes(kinds: &[&Value], key: &str) -> String {
    let words: Vec<_> = kinds.iter().filter_map(|kind| words(kind, key)).collect();
    words.join(" or ")
}

fn words(kind: &Value, key: &str) -> Option<String> {
    if let Some(text) = words_of_quantity(kind) {
        let text = text.split(" (").next().unwrap_or(text);
        let text = text.trim_end_matches('.').replacen('A', "a", 1);
        return Some(text.replace("an integer", "a whole number"));
    }
    let choices = choices(kind);
    if !choices.is_empty() {
        return Some(format!("one of `{}`", choices.join("`, `")));
    }
    Some(match type_of(kind) {
        "boolean" => "true or false".to_owned(),
        "integer" => match most(kind) {
            u64::MAX => "a whole number of 0 or more".to_owned(),
            most => format!("a whole number from 0 to {most}"),
        },
        "number" => "a number".to_owned(),
        "string" => "a text in quotes".to_owned(),
        "array" => match kind.get("items").map(|items| (items, type_of(items))) {
            Some((_, "integer")) => "a list of whole numbers".to_owned(),
            Some((items, "string")) if items.get("$ref").is_none() => "a list of texts".to_owned(),
            _ => format!("a list of tables, each headed [[{key}]]"),
        },
        "object" if key.is_empty() => "a table of keys and values".to_owned(),
        "object" => "a table with keys of its own".to_owned(),
        _ => return None,
    })
}

/// A right value for the key, with the key where that helps.
pub(super) fn example(kinds: &[&Value], key: &str) -> Option<String> {
    let listed = EXAMPLES.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    let listed = listed.filter(|text| kinds.iter().any(|kind| suits(kind, text)));
    let value = listed.map(str::to_owned).or_else(|| {
        let quantity = kinds.iter().find_map(|kind| words_of_quantity(kind));
        let quoted = quantity.and_then(|text| text.split('"').nth(1));
        if let Some(value) = quoted {
            return Some(format!("\"{value}\""));
        }
        if let Some(choice) = kinds.iter().find_map(|kind| choices(kind).first().copied()) {
            return Some(format!("\"{choice}\""));
        }
        kinds.iter().find_map(|kind| match type_of(kind) {
            "boolean" => Some("true".to_owned()),
            "integer" => Some("1".to_owned()),
            "string" => Some("\"text\"".to_owned()),
            _ => None,
        })
    });
    match value {
        Some(value) => Some(format!("{key} = {value}")),
        None => kinds.iter().find_map(|kind| match type_of(kind) {
            "array" if !key.is_empty() => Some(format!("[[{key}]] and its keys below")),
            "object" if !key.is_empty() => Some(format!("[{key}] and its keys below")),
            _ => None,
        }),
    }
}

/// Whether the example `text` is of this kind.
fn suits(kind: &Value, text: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
    let list = type_of(kind) == "array"
        && value.as_array().is_some_and(|items| {
            let schema = kind.get("items");
            items.iter().all(|item| schema.is_some_and(|schema| fits(schema, item)))
        });
    let quantity = words_of_quantity(kind).is_some_and(|words| {
        value.as_str().is_none_or(|text| match words.starts_with("A size") {
            true => text.ends_with(['K', 'M', 'G']),
            false => !text.ends_with(['K', 'M', 'G']),
        })
    });
    list || (fits(kind, &value) && (quantity || words_of_quantity(kind).is_none()))
}

/// How a value is called that does not fit.
pub(super) fn shown(value: &Value) -> String {
    const LETTERS: usize = 40;
    match value {
        Value::Null => "nothing (null)".to_owned(),
        Value::String(text) if text.chars().count() > LETTERS => {
            let begin: String = text.chars().take(LETTERS).collect();
            format!("the text {:?}", begin + "...")
        }
        Value::String(text) => format!("the text {text:?}"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) if written(value).is_some() => {
            written(value).unwrap_or_default().to_owned()
        }
        Value::Object(table) if table.keys().any(|key| key.contains("datetime")) => {
            "a date".to_owned()
        }
        Value::Object(_) => "a table".to_owned(),
    }
}
