//! What is written about configurations is true and complete.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use serde_json::Value;

use crate::units::{Rate, Size, Time, UnitError};
use moirai_scheduler::{Amount, Moment, PolicyKind, Span};

use crate::{PolicyName, check, json_schema, parse};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All that a part of a schema names: keys of tables, and words that a key may be.
fn names(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            if let Some(word) = members.get("const").and_then(Value::as_str) {
                found.insert(word.to_owned());
            }
            members.values().for_each(|member| names(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

#[test]
fn every_key_and_word_of_the_schema_is_explained() {
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    let mut found = BTreeSet::new();
    names(&schema, &mut found);
    assert!(found.len() > 60, "{found:?}");
    let (configuration, loads) = (document("configuration.md"), document("loads.md"));
    for name in &found {
        let written = [format!("`{name}`"), format!("`\"{name}\"`")];
        let tables = [format!("`[[{name}]]`"), format!("`[{name}]`")];
        let explained = written
            .iter()
            .chain(&tables)
            .any(|written| configuration.contains(written) || loads.contains(written));
        assert!(explained, "docs/configuration.md and docs/loads.md do not explain `{name}`");
    }
}

#[test]
fn the_example_of_the_document_is_a_good_configuration() {
    let text = document("configuration.md");
    let example: String =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let document = parse("configuration.md", &example).unwrap_or_else(|report| panic!("{report}"));
    let config = check(&document).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(config.tenants.len(), 1);
}

/// The units that a kind of value has, as its error lists them.
fn units<T: FromStr<Err = UnitError>>() -> Vec<String> {
    match "5".parse::<T>() {
        Err(UnitError::NoUnit { known, .. }) => known.split(", ").map(str::to_owned).collect(),
        _ => panic!("a number without a unit is taken"),
    }
}

fn is_quantity(text: &str) -> bool {
    text.parse::<Time>().is_ok() || text.parse::<Size>().is_ok() || text.parse::<Rate>().is_ok()
}

#[test]
fn the_units_that_are_listed_are_those_that_there_are() {
    let text = document("configuration.md");
    for (kind, units) in
        [("time", units::<Time>()), ("size", units::<Size>()), ("rate", units::<Rate>())]
    {
        let row = text.lines().find(|line| line.starts_with(&format!("| {kind} |")));
        let (examples, listed) = row.and_then(|row| row.split_once(';')).expect("a row");
        let listed = listed.split([' ', '|', '(']).map(|word| word.trim_end_matches(','));
        let listed: Vec<_> = listed.filter(|word| !word.is_empty()).take(units.len()).collect();
        assert_eq!(listed, units, "{kind}");
        let examples: Vec<_> = examples.split('`').skip(1).step_by(2).collect();
        assert!(examples.len() > 1, "{examples:?}");
        for example in examples {
            assert!(is_quantity(example.trim_matches('"')), "{example}");
        }
    }
}

/// A number with a short word behind it: that is a unit, or one of the words that stand there in
/// English.
#[test]
fn no_unit_is_named_that_there_is_not() {
    const WORDS: [&str; 10] = ["to", "or", "and", "is", "on", "in", "at", "of", "it", "th"];
    let mut quantities = 0;
    for name in ["configuration.md", "loads.md"] {
        let text = document(name);
        let letters = |c: char| c.is_alphabetic() || c == '/' || c == '%';
        let number = |c: char| c.is_ascii_digit() || c == '.';
        let begins = text.char_indices().zip(std::iter::once(' ').chain(text.chars()));
        let begins = begins.filter(|((_, now), before)| {
            now.is_ascii_digit() && !before.is_alphanumeric() && !"-._:/\"".contains(*before)
        });
        for ((at, _), _) in begins {
            let rest = &text[at..];
            let end = rest.find(|c| !number(c)).unwrap_or(rest.len());
            let (digits, rest) = rest.split_at(end);
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            let word = &rest[..rest.find(|c| !letters(c)).unwrap_or(rest.len())];
            let sentence_ends = digits.ends_with('.');
            let none = sentence_ends || word.is_empty() || word.starts_with('/');
            if none || word.chars().count() > 3 || WORDS.contains(&word) {
                continue;
            }
            assert!(is_quantity(&format!("{digits}{word}")), "{name}: {digits} {word}");
            quantities += 1;
        }
    }
    assert!(quantities > 10, "{quantities}");
}

#[test]
fn ranges_of_whole_numbers_are_written_as_they_are() {
    fn ranges(schema: &Value, found: &mut Vec<(String, u64, u64)>) {
        let members = schema.as_object().into_iter().flatten();
        for (key, below) in members {
            let bound = |name: &str| below.get(name).and_then(Value::as_u64);
            if let (Some(least), Some(most)) = (bound("minimum"), bound("maximum")) {
                found.push((key.clone(), least, most));
            }
            ranges(below, found);
        }
    }
    let schema: Value = serde_json::from_str(&json_schema()).expect("JSON");
    let mut found = Vec::new();
    ranges(&schema, &mut found);
    assert!(found.len() > 5, "{found:?}");
    let text = document("configuration.md") + &document("loads.md");
    // Nobody chooses a context id by its largest one.
    for (key, least, most) in found.into_iter().filter(|(key, ..)| key != "cid") {
        let row = format!("| `{key}` | {least} to {most}");
        assert!(text.contains(&row), "no row begins with {row}");
    }
}

#[test]
fn policies_have_the_names_that_the_scheduler_knows() {
    for policy in PolicyKind::ALL {
        let name = serde_json::Value::from(policy.as_str());
        let read: PolicyName = serde_json::from_value(name.clone()).expect("a policy's name");
        assert_eq!(read, PolicyName(policy));
        assert_eq!(serde_json::to_value(read).expect("a policy's name"), name);
    }
    let refused = serde_json::from_value::<PolicyName>("edf".into()).expect_err("no policy");
    for name in moirai_scheduler::POLICIES {
        assert!(refused.to_string().contains(&format!("`{name}`")), "{refused}");
    }
}

#[test]
fn policies_that_suit_a_core_say_who_is_owed() {
    use moirai_scheduler::{ClientId, Contract, Head, policy_by_name};
    let ten = Span::from_millis(10);
    let contract = Contract::new(ten, Amount::from_millis(1), ten, None).expect("a contract");
    for name in PolicyKind::ALL.into_iter().filter(|name| !name.is_fifo()) {
        let mut policy = policy_by_name(name.as_str(), 1).expect("a policy");
        policy.add(ClientId(0), contract, Moment::ZERO).expect("a place");
        policy.wake(ClientId(0), Head::default(), Moment::ZERO);
        let mut ranked = 0;
        if let Some(policy) = policy.ranked() {
            policy.ranks(Moment::ZERO, &mut |_| ranked += 1);
        }
        assert_eq!(ranked > 0, name.suits_a_core(), "{}", name.as_str());
    }
}
