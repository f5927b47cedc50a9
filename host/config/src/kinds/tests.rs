//! Every key of the configuration and of the bodies of the API, with values of every wrong kind.

use serde_json::{Value, json};

mod advice;

use super::super::{Document, parse};
use super::wrong_kinds;

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
    "u8",
    "i32",
    "f32",
    "serde",
    "field",
    "integer",
    "array",
    "float",
    "recurs",
    "slice index",
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

/// All keys of a configuration.
fn all_keys() -> Vec<Vec<String>> {
    let schema = schemars::schema_for!(Document).to_value();
    let mut found = Vec::new();
    keys(&schema, &schema, &[], &mut found);
    assert!(found.len() > 150, "{}", found.len());
    found
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
fn every_value_of_a_wrong_kind_is_found_and_no_right_one() {
    let mut wrong = 0;
    for path in all_keys() {
        for value in values() {
            let body = body(&path, &value);
            let found = wrong_kinds::<Document>(&body);
            for problem in &found {
                let key = path.last().expect("a key");
                assert!(problem.path.contains(key.as_str()), "{problem:?}");
                check_words(&format!("{} {}", problem.message, problem.help), &problem.path);
                assert!(problem.help.contains("write for example"), "{problem:?}");
            }
            wrong += found.len();
            let Err(error) = serde_json::from_value::<Document>(body.clone()) else { continue };
            let said = error.to_string();
            let of_kind = ["invalid type", "invalid value", "variant", "invalid length"];
            if of_kind.iter().any(|words| said.contains(words)) {
                assert!(!found.is_empty(), "{path:?} {value}: {said}");
            }
        }
    }
    assert!(wrong > 1000, "{wrong}");
}

/// Serde would take it for the table, whose first key is the first item.
#[test]
fn a_list_is_no_table() {
    for (line, key) in [("vsock = [3]", "vsock"), ("cpu = [\"10ms\", \"1ms\"]", "cpu")] {
        let text = format!("[[tenant]]\nname = \"a\"\nimage = \"i\"\n{line}\n");
        let report = parse("bad.toml", &text).expect_err(line);
        assert!(report.to_string().contains("bad.toml:4:"), "{report}");
        let problem = report.problems().next().expect("a problem");
        assert!(problem.message.contains(&format!("`{key}` takes a table")), "{report}");
        assert!(problem.help.contains(&format!(", or [tenant.{key}] and its keys")), "{report}");
    }
}

#[test]
fn what_is_nested_too_deeply_is_refused_at_its_line() {
    let keys = |depth: usize| vec!["a"; depth].join(".");
    for depth in [81, 300, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        for line in [
            format!("x = {open}1{close}"),
            format!("x = {}1{}", "{ a = ".repeat(depth), " }".repeat(depth)),
            format!("[{}]", keys(depth)),
            format!("[[{}]]", keys(depth)),
            format!("{} = 1", keys(depth)),
        ] {
            let text = format!("# a\n# b\n{line}\n# c\nz = 1\n");
            let report = parse("bad.toml", &text).expect_err("too deep");
            let problem = report.problems().next().expect("a problem");
            assert!(problem.message.contains("nested too deeply"), "{problem:?}");
            let said = report.to_string();
            assert!(said.contains("[bad.toml:3:"), "{said:.300}");
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
        "tenant[0].cpu.extra: `extra` takes true or false or a whole number from 0 to 4294967295, \
         not 1.5; write for example extra = true"
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
         write for example link = [{ name = \"up\", rate = \"100Mbit/s\" }], \
         or [[link]] and its keys below"
    );
    assert_eq!(
        said(json!({"disk": [{"name": "d", "path": "/", "max_unit": [1]}]})),
        "disk[0].max_unit: `max_unit` takes a time such as \"1ms\", or a whole number of \
         nanoseconds, not a list; write for example max_unit = \"1ms\""
    );
}
