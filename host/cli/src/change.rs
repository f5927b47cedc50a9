//! The `KEY=VALUE` of `moirai set`: `cpu.slice=4ms`, `disk.rate=30%`, `net.uplink.extra=true`,
//! `memory=128M`.

use std::str::FromStr;

use serde::de::DeserializeOwned;

use super::{Failure, Status};
use moirai_api::client::ClientError;
use moirai_api::{Change, ErrorBody};
use moirai_config::Problem;
use moirai_config::document::{ContractTable, Extra};
use moirai_config::units::UnitError;

/// Keys of a contract.
const KEYS: [&str; 5] = ["period", "slice", "rate", "deadline", "extra"];

/// Reads all changes into one.
///
/// # Errors
/// The first that cannot be understood.
pub(super) fn parse(words: &[String]) -> Result<Change, Failure> {
    let mut change = Change::default();
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| bad(word, "it has no ="))?;
        if key == "memory" {
            change.memory = Some(read(value, "M").map_err(|why| bad(word, &why))?);
            continue;
        }
        let (place, key) = key.rsplit_once('.').ok_or_else(|| bad(word, &whose(key)))?;
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

/// What is missing before a key that stands alone.
fn whose(key: &str) -> String {
    match KEYS.contains(&key) {
        true => format!("it does not say whose {key}: put cpu., disk. or net. before it"),
        false => format!(
            "there is no key {key:?}: there are memory, and after a dot {}",
            KEYS.join(", ")
        ),
    }
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
        "period" => table.period = Some(read(value, "ms")?),
        "slice" => table.slice = Some(read(value, "ms")?),
        "rate" => table.rate = Some(read(value, "%")?),
        "deadline" => table.deadline = Some(read(value, "ms")?),
        "extra" => table.extra = Some(extra(value)?),
        _ => return Err(format!("{key} is not one of {}", KEYS.join(", "))),
    }
    Ok(())
}

/// A number with a unit. In a file a bare number counts nanoseconds or bytes; whoever types one
/// here hardly means those. Zero needs none.
fn read<T: DeserializeOwned + FromStr<Err = UnitError>>(
    value: &str,
    unit: &str,
) -> Result<T, String> {
    if value == "0"
        && let Ok(zero) = serde_json::from_value(0.into())
    {
        return Ok(zero);
    }
    value.parse().map_err(|error| match error {
        UnitError::NoUnit { .. } => format!("{error}, as in {value}{unit}"),
        error => error.to_string(),
    })
}

/// What the host service says of a change is said as for a file: here it is put as `set` takes it.
pub(super) fn in_its_syntax(error: ClientError) -> ClientError {
    let ClientError::Refused(mut body) = error else { return error };
    body.error = said(&body);
    ClientError::Refused(body)
}

fn said(body: &ErrorBody) -> String {
    let mut lines = Vec::new();
    for Problem { path, message, help } in &body.problems {
        let place = place(path);
        let at = place.rsplit_once('.').map_or(place.as_str(), |(at, _)| at);
        lines.push(format!("{place}: {}; {}", typed(message, at), typed(help, at)));
    }
    for (plan, refusal) in
        body.refused.iter().flat_map(|it| it.refusals.iter().map(move |r| (it, r)))
    {
        let at = match refusal.resource.split_once('/') {
            Some(("disk", name)) => format!("disk.{name}"),
            Some(("link", name)) => format!("net.{name}"),
            _ => "cpu".to_owned(),
        };
        lines.push(format!("{}: not admitted: {}", plan.name, typed(&refusal.to_string(), &at)));
    }
    if lines.is_empty() { body.error.clone() } else { lines.join("\n") }
}

/// `tenant[0].disk[1].rate` is `disk.1.rate` to `set`.
fn place(path: &str) -> String {
    let own = ["tenant[0].", "export[0]."].iter().find_map(|table| path.strip_prefix(table));
    own.unwrap_or(path).replace('[', ".").replace(']', "")
}

/// `slice = "4ms"` becomes `cpu.slice=4ms`, where `at` is `cpu`.
fn typed(text: &str, at: &str) -> String {
    let mut text = text.to_owned();
    for key in KEYS {
        while let Some((before, after)) = text.split_once(&format!("{key} = ")) {
            let (value, rest) = match after.strip_prefix('"').and_then(|it| it.split_once('"')) {
                Some((value, rest)) => (value, rest),
                None => after.split_at(after.find([' ', ',', ';']).unwrap_or(after.len())),
            };
            // Changes are words of a command: no commas between them.
            let word = format!("{at}.{key}={value}");
            let follows = before.strip_suffix(", ").filter(|it| it.contains(&format!("{at}.")));
            text = match follows {
                Some(before) => format!("{before} {word}{rest}"),
                None => format!("{before}{word}{rest}"),
            };
        }
    }
    text
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
        let words = ["cpu.slice=4ms", "cpu.period=20ms", "disk.rate=30%", "net.up.extra=2"];
        let change = parsed(&words).expect("understood");
        let json = serde_json::to_string(&change).expect("JSON");
        insta::assert_snapshot!(json, @r#"
    {"cpu":{"period":"20ms","slice":"4ms"},"disk":{"0":{"rate":"30%"}},"net":{"up":{"extra":2}}}
    "#);
    }

    #[test]
    fn zero_needs_no_unit() {
        let change = parsed(&["cpu.slice=0", "memory=0"]).expect("understood");
        assert_eq!(change.cpu.and_then(|cpu| cpu.slice), "0ns".parse().ok());
    }

    #[test]
    fn what_the_host_service_advises_can_be_typed() {
        for (path, help, wanted) in [
            ("tenant[0].cpu.slice", "write slice = \"9603760ns\"", "cpu.slice=9603760ns"),
            (
                "tenant[0].disk[1].rate",
                "write period = \"1s\", rate = \"30%\"",
                "disk.1.period=1s disk.1.rate=30%",
            ),
            ("export[0].disk.slice", "write extra = true; or less", "disk.extra=true; or less"),
        ] {
            let (message, help) = ("too much".to_owned(), help.to_owned());
            let problems = vec![Problem { path: path.to_owned(), message, help }];
            let body = ErrorBody { problems, ..ErrorBody::new(moirai_api::ErrorKind::Bad, "") };
            let said = in_its_syntax(ClientError::Refused(Box::new(body))).to_string();
            assert!(said.ends_with(wanted) && !said.contains('['), "{said}");
        }
    }

    #[test]
    fn each_bad_word_is_said() {
        for (word, why) in [
            ("cpu.slice", "no ="),
            ("slice=4ms", "whose slice"),
            ("foo=1", "no key \"foo\""),
            ("gpu.slice=4ms", "neither"),
            ("cpu.speed=4", "not one of"),
            ("cpu.slice=-4ms", "negative"),
            ("cpu.extra=maybe", "not true"),
            ("cpu.extra=1.5", "a whole number"),
            ("disk.rate=5", "\"5\" has no unit"),
            ("disk.rate=5", "as in 5%"),
            ("cpu.slice=4", "as in 4ms"),
            ("cpu.period=20000000", "has no unit"),
            ("net.up.deadline=1.5", "as in 1.5ms"),
            ("memory=128", "as in 128M"),
        ] {
            let failure = parsed(&[word]).expect_err(word);
            assert!(failure.message.contains(why), "{}", failure.message);
            assert_eq!(failure.status, Status::Bad);
        }
    }
}
