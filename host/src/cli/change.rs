//! The `KEY=VALUE` of `moirai set`: `cpu.slice=4ms`, `disk.rate=30%`, `net.uplink.extra=true`,
//! `memory=128M`.

use serde::de::DeserializeOwned;

use super::{Failure, Status};
use moirai_api::Change;
use moirai_config::document::{ContractTable, Extra};

/// Reads all changes into one.
///
/// # Errors
/// The first that cannot be understood.
pub(super) fn parse(words: &[String]) -> Result<Change, Failure> {
    let mut change = Change::default();
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| bad(word, "it has no ="))?;
        if key == "memory" {
            change.memory = Some(read(value).map_err(|why| bad(word, &why))?);
            continue;
        }
        let (place, key) = key.rsplit_once('.').ok_or_else(|| bad(word, "it has no key"))?;
        let table = match place.split_once('.') {
            None if place == "cpu" => change.cpu.get_or_insert_default(),
            None if place == "disk" => change.disk.entry("0".to_owned()).or_default(),
            None if place == "net" => change.net.entry("0".to_owned()).or_default(),
            Some(("disk", name)) => change.disk.entry(name.to_owned()).or_default(),
            Some(("net", name)) => change.net.entry(name.to_owned()).or_default(),
            _ => return Err(bad(word, "it names neither cpu nor disk nor net")),
        };
        set(table, key, value).map_err(|why| bad(word, &why))?;
    }
    Ok(change)
}

fn bad(word: &str, why: &str) -> Failure {
    let message = format!(
        "cannot understand {word:?}: {why}; write for example cpu.slice=4ms, disk.rate=30%, \
         net.NAME.extra=true"
    );
    Failure::new(Status::Bad, message)
}

fn set(table: &mut ContractTable, key: &str, value: &str) -> Result<(), String> {
    match key {
        "period" => table.period = Some(read(value)?),
        "slice" => table.slice = Some(read(value)?),
        "rate" => table.rate = Some(read(value)?),
        "deadline" => table.deadline = Some(read(value)?),
        "extra" => table.extra = Some(extra(value)?),
        _ => return Err(format!("{key} is not one of period, slice, rate, deadline, extra")),
    }
    Ok(())
}

/// As in the configuration: a text with a unit, or an integer where that is allowed.
fn read<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    let number = value.parse::<u64>().ok();
    let whole = number.and_then(|number| serde_json::from_value(number.into()).ok());
    // What is no number for this key is a text that says what it lacks.
    whole
        .map_or_else(|| serde_json::from_value(value.into()).map_err(|error| error.to_string()), Ok)
}

fn extra(value: &str) -> Result<Extra, String> {
    match value {
        "true" => Ok(Extra::Shares(true)),
        "false" => Ok(Extra::Shares(false)),
        weight => weight.parse().map(Extra::Weight).map_err(|_| {
            format!("{weight:?} is not true, false or a weight, which is a whole number")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Change, Failure> {
        parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_become_one_change() {
        let words = ["cpu.slice=4ms", "cpu.period=20000000", "disk.rate=30%", "net.up.extra=2"];
        let change = parsed(&words).expect("understood");
        let json = serde_json::to_string(&change).expect("JSON");
        insta::assert_snapshot!(json, @r#"
    {"cpu":{"period":"20ms","slice":"4ms"},"disk":{"0":{"rate":"30%"}},"net":{"up":{"extra":2}}}
    "#);
    }

    #[test]
    fn each_bad_word_is_said() {
        for (word, why) in [
            ("cpu.slice", "no ="),
            ("slice=4ms", "no key"),
            ("gpu.slice=4ms", "neither"),
            ("cpu.speed=4", "not one of"),
            ("cpu.slice=-4ms", "negative"),
            ("cpu.extra=maybe", "not true"),
            ("cpu.extra=1.5", "a whole number"),
            ("disk.rate=5", "\"5\" has no unit"),
        ] {
            let failure = parsed(&[word]).expect_err(word);
            assert!(failure.message.contains(why), "{}", failure.message);
            assert_eq!(failure.status, Status::Bad);
        }
    }
}
