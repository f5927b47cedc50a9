//! What is written about configurations is true and complete.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::config::{PolicyName, check, json_schema, parse};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
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

#[test]
fn policies_have_the_names_that_the_scheduler_knows() {
    let names = PolicyName::ALL.map(PolicyName::as_str);
    assert_eq!(names.as_slice(), moirai_scheduler::POLICIES);
    for policy in PolicyName::ALL {
        let read: PolicyName =
            serde_json::from_value(policy.as_str().into()).expect("a policy's name");
        assert_eq!(read, policy);
    }
}

#[test]
fn policies_that_suit_a_core_say_who_is_owed() {
    use moirai_scheduler::{ClientId, Contract, Head, policy_by_name};
    let contract = Contract::new(10_000_000, 1_000_000, 10_000_000, None).expect("a contract");
    for name in PolicyName::ALL.into_iter().filter(|name| *name != PolicyName::Fifo) {
        let mut policy = policy_by_name(name.as_str(), 1).expect("a policy");
        policy.add(ClientId(0), contract, 0).expect("a place");
        policy.wake(ClientId(0), Head::default(), 0);
        let mut ranked = 0;
        policy.ranks(0, &mut |_| ranked += 1);
        assert_eq!(ranked > 0, name.suits_a_core(), "{}", name.as_str());
    }
}
