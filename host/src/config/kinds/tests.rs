//! Every key of the configuration and of the bodies of the API, with values of every wrong kind.

use serde_json::{Value, json};

use super::super::{Document, parse};
use super::wrong_kinds;
use crate::api::{Exports, Launch};
use crate::service::Change;

/// Names of what the program is made of.
const NAMES: &[&str] = &[
    "enum",
    "untagged",
    "variant",
    "u16",
    "u32",
    "u64",
    "i64",
    "f64",
    "usize",
    "Option",
    "struct",
    "sequence",
    " map",
    "PathBuf",
    "Table",
    "floating point",
    "invalid type",
    "invalid value",
    "newtype",
    "tuple",
    "String",
    "bool",
    "unit value",
    "HashMap",
    "BTree",
    "Vec",
    "&str",
    "datetime",
];

/// One value of each kind, as JSON.
fn values() -> Vec<Value> {
    vec![
        json!(true),
        json!(-1),
        json!(1.5),
        json!(5_000_000_000_u64),
        json!("no such thing"),
        json!([]),
        json!([1.5]),
        json!([[]]),
        json!({}),
        json!({"a": 1}),
        json!([{"x": []}]),
    ]
}

/// The paths of all keys below the table of that name, from the schema: as (tables above, key).
fn keys(schema: &Value, node: &Value, above: &[String], found: &mut Vec<Vec<String>>) {
    let target = |node: &Value| -> Value {
        let mut node = node.clone();
        loop {
            let next = node.get("$ref").or_else(|| node.pointer("/anyOf/0/$ref"));
            let next = next.or_else(|| node.pointer("/items/$ref")).and_then(Value::as_str);
            match next {
                Some(name) => node = schema.pointer(&name[1..]).expect("a definition").clone(),
                None => return node,
            }
        }
    };
    for (key, below) in target(node)["properties"].as_object().into_iter().flatten() {
        let mut path = above.to_vec();
        path.push(key.clone());
        found.push(path.clone());
        keys(schema, below, &path, found);
    }
}

/// A body in which the last key of the path has that value. Tables that come in lists are lists.
fn body(path: &[String], value: &Value) -> Value {
    let lists = ["tenant", "export", "link", "disk", "net"];
    let mut body = value.clone();
    for (depth, key) in path.iter().enumerate().rev() {
        let is_list = depth + 1 < path.len()
            && lists.contains(&key.as_str())
            && !(depth > 0 && path[depth - 1] == "load")
            && !(depth > 0 && path[depth - 1] == "export");
        let inner = if is_list { json!([body]) } else { body };
        body = json!({ key.as_str(): inner });
    }
    body
}

fn check_words(said: &str, about: &str) {
    for name in NAMES {
        assert!(!said.contains(name), "{name}, {about}: {said}");
    }
}

#[test]
fn no_key_answers_a_wrong_value_with_names_of_the_program() {
    let schema = schemars::schema_for!(Document).to_value();
    let mut found = Vec::new();
    keys(&schema, &schema, &[], &mut found);
    assert!(found.len() > 150, "{}", found.len());
    let mut wrong = 0;
    for path in &found {
        for value in values() {
            let body = body(path, &value);
            let Ok(text) = toml::to_string(&body) else { continue };
            if let Err(report) = parse("bad.toml", &text) {
                check_words(&report.to_string().replace(&text, ""), &path.join("."));
                wrong += 1;
            }
            if serde_json::from_value::<Document>(body.clone()).is_err() {
                for problem in wrong_kinds::<Document>(&body) {
                    let key = path.last().expect("a key");
                    assert!(problem.path.contains(key.as_str()), "{problem:?}");
                    check_words(&format!("{} {}", problem.message, problem.help), &problem.path);
                    assert!(problem.help.contains("write for example"), "{problem:?}");
                }
            }
        }
    }
    assert!(wrong > 1000, "{wrong}");
}

/// What TOML has and JSON has not.
#[test]
fn numbers_that_no_key_takes_are_refused_as_they_were_written() {
    let schema = schemars::schema_for!(Document).to_value();
    let mut found = Vec::new();
    keys(&schema, &schema, &[], &mut found);
    let mut wrong = 0;
    for path in &found {
        let Ok(text) = toml::to_string(&body(path, &json!("@"))) else { continue };
        for number in
            ["nan", "+inf", "99999999999999999999", "-99999999999999999999", "0xFFFFFFFFFFFFFFFFF"]
        {
            let text = text.replace("\"@\"", number);
            if let Err(report) = parse("bad.toml", &text) {
                check_words(&report.to_string().replace(&text, ""), &path.join("."));
                wrong += 1;
            }
        }
    }
    assert!(wrong > 500, "{wrong}");
    let said =
        parse("bad.toml", "[[tenant]]\nname = \"a\"\nvcpus = nan\n").unwrap_err().to_string();
    assert!(said.contains("`vcpus` takes") && said.contains("not nan"), "{said}");
    let said = parse("bad.toml", "[host]\ncores = [\"0\"]\n").unwrap_err().to_string();
    assert!(said.contains("write for example cores = ["), "{said}");
}

#[test]
fn every_value_of_a_wrong_kind_is_found_and_no_right_one() {
    let schema = schemars::schema_for!(Document).to_value();
    let mut found = Vec::new();
    keys(&schema, &schema, &[], &mut found);
    for path in &found {
        for value in values() {
            let body = body(path, &value);
            let Err(error) = serde_json::from_value::<Document>(body.clone()) else {
                assert_eq!(wrong_kinds::<Document>(&body), [], "{path:?} {value}");
                continue;
            };
            let said = error.to_string();
            let of_kind = ["invalid type", "invalid value", "variant", "invalid length"];
            if of_kind.iter().any(|words| said.contains(words)) {
                assert!(!wrong_kinds::<Document>(&body).is_empty(), "{path:?} {value}: {said}");
            }
        }
    }
}

#[test]
fn examples_are_what_they_are_examples_of() {
    let schema = schemars::schema_for!(Document).to_value();
    let mut found = Vec::new();
    keys(&schema, &schema, &[], &mut found);
    for path in &found {
        for problem in wrong_kinds::<Document>(&body(path, &json!(-1))) {
            let Some((_, line)) = problem.help.split_once("write for example ") else { continue };
            let Ok(example) = toml::from_str::<toml::Table>(line) else { continue };
            let value = serde_json::to_value(example.values().next()).expect("a value");
            let right = body(path, &value);
            assert_eq!(wrong_kinds::<Document>(&right), [], "{path:?}: {line}");
        }
    }
}

#[test]
fn what_is_said_names_the_key_what_it_takes_and_an_example() {
    let said = |body: Value| {
        let found = wrong_kinds::<Document>(&body);
        let lines = found.iter().map(|problem| {
            let super::Problem { path, message, help } = problem;
            format!("{path}: {message}; {help}")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let tenant = |key: &str, value: Value| json!({"tenant": [{"name": "a", key: value}]});
    assert_eq!(
        said(tenant("cpu", json!({"extra": 1.5}))),
        "tenant[0].cpu.extra: `extra` takes true or false or a whole number from 0 to 4294967295, not 1.5; \
         write for example extra = true"
    );
    assert_eq!(
        said(json!({"host": {"cores": 1}})),
        "host.cores: `cores` takes a list of whole numbers, not 1; write for example cores = [1]"
    );
    assert_eq!(
        said(tenant("transport", json!("usb"))),
        "tenant[0].transport: `transport` has no \"usb\": expected one of `mmio`, `pci`; \
         write for example transport = \"mmio\""
    );
    assert_eq!(
        said(json!({"link": {"name": "up"}})),
        "link: `link` takes a list of tables, each headed [[link]], not a table; \
         write for example [[link]] and its keys below"
    );
    assert_eq!(
        said(json!({"disk": [{"name": "d", "path": "/", "max_unit": [1]}]})),
        "disk[0].max_unit: `max_unit` takes a time such as \"10ms\" or \"250us\", or a whole number of \
         nanoseconds, not a list; write for example max_unit = \"1ms\""
    );
}

#[test]
fn bodies_of_the_api_are_held_against_their_own_keys() {
    let found = wrong_kinds::<Launch>(&json!({"tenant": [{"name": 1}]}));
    assert_eq!(found.first().map(|it| it.path.as_str()), Some("tenant[0].name"));
    let found = wrong_kinds::<Exports>(&json!({"export": [{"net": {"queues": 70_000}}]}));
    assert_eq!(found.first().map(|it| it.path.as_str()), Some("export[0].net.queues"));
    let found = wrong_kinds::<Change>(&json!({"net": {"up": {"period": true}}}));
    assert_eq!(found.first().map(|it| it.path.as_str()), Some("net.up.period"));
    assert_eq!(wrong_kinds::<Change>(&json!([])).len(), 1);
}
