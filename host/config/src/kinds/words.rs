//! Words for the kinds of values.

use serde_json::Value;

use super::written::written;
use super::{is_date, keys_of, type_of};
use crate::units::{Rate, Size, Time};

/// Whether a schema is that of a time, a size or a rate.
pub(super) fn is_quantity(schema: &Value) -> bool {
    words_of_quantity(schema).is_some()
}

/// What is wrong with a text that is to be a time, a size or a rate.
pub(super) fn wrong_quantity(kinds: &[&Value], value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let words = kinds.iter().find_map(|kind| words_of_quantity(kind))?;
    let wrong = match words.as_bytes() {
        [b'A', b' ', b't', ..] => text.parse::<Time>().err(),
        [b'A', b' ', b's', ..] => text.parse::<Size>().err(),
        _ => text.parse::<Rate>().err(),
    };
    wrong.map(|wrong| wrong.rule())
}

/// The first example in the description of a quantity.
pub(super) fn quantity_example(kind: &Value) -> Option<&str> {
    words_of_quantity(kind)?.split('"').nth(1)
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

/// The largest number that there is room for.
pub(super) fn widest(kind: &Value) -> u64 {
    match kind.get("format").and_then(Value::as_str) {
        Some("uint8") => u8::MAX.into(),
        Some("uint16") => u16::MAX.into(),
        Some("uint32") => u32::MAX.into(),
        _ => u64::MAX,
    }
}

/// The smallest and the largest number that a key takes; without a largest one there is no limit
/// that anybody would meet.
fn range(kind: &Value) -> (u64, Option<u64>) {
    let bound = |name: &str| kind.get(name).and_then(Value::as_u64);
    let most = bound("maximum").or_else(|| Some(widest(kind)).filter(|most| *most < u64::MAX));
    (bound("minimum").unwrap_or(0), most)
}

/// What a key with these kinds takes; `example` is a value that it takes.
pub(super) fn takes(
    kinds: &[&Value],
    path: &str,
    example: impl FnOnce() -> Option<String>,
) -> String {
    let example = example().unwrap_or_default();
    let words: Vec<_> = kinds.iter().filter_map(|kind| words(kind, path, &example)).collect();
    words.join(" or ")
}

fn words(kind: &Value, path: &str, example: &str) -> Option<String> {
    if let Some(text) = words_of_quantity(kind) {
        let what = text.split(" such as").next().unwrap_or(text).replacen('A', "a", 1);
        let number = text.split_once("or an integer of ").map(|(_, unit)| unit);
        let number = number.map(|unit| format!(", or a whole number of {unit}"));
        let number = number.unwrap_or_default();
        return Some(format!("{what} such as {example}{}", number.trim_end_matches('.')));
    }
    let choices = choices(kind);
    if !choices.is_empty() {
        return Some(format!("one of `{}`", choices.join("`, `")));
    }
    let keys = keys_of(path);
    Some(match type_of(kind) {
        "boolean" => "true or false".to_owned(),
        "integer" => match range(kind) {
            (least, None) => format!("a whole number of {least} or more"),
            (least, Some(most)) => format!("a whole number from {least} to {most}"),
        },
        "number" => "a number".to_owned(),
        "string" => "a text in quotes".to_owned(),
        "array" => match kind.get("items").map(|items| (items, type_of(items))) {
            Some((_, "integer")) => "a list of whole numbers".to_owned(),
            Some((items, "string")) if items.get("$ref").is_none() => "a list of texts".to_owned(),
            _ => format!("a list of tables, each headed [[{keys}]]"),
        },
        "object" if keys.is_empty() => "a table of keys and values".to_owned(),
        "object" => "a table with keys of its own".to_owned(),
        _ => return None,
    })
}

/// The line above the keys of a table, or of one in a list of them.
pub(super) fn header(kinds: &[&Value], path: &str) -> Option<String> {
    let keys = keys_of(path);
    kinds.iter().find_map(|kind| match type_of(kind) {
        "object" => Some(format!("[{keys}]")),
        "array" => {
            let items = kind.get("items")?;
            items.get("$ref").map(|_| format!("[[{keys}]]"))
        }
        _ => None,
    })
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
        Value::Object(table) if is_date(table) => "a date".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}
