//! What each key takes, in words for people: said where a value is of the wrong kind.
//!
//! Serde's own messages name what the program is made of, and it takes a list for a table if the
//! items fit. So [`wrong_kinds`] holds the values of a text against the schema that the same types
//! give (`docs/config.schema.json`), before serde reads them. The schema knows every key; nothing
//! lists them a second time. Serde finds unknown keys and missing ones ([`in_words`]).

mod examples;
mod words;
pub(super) mod written;

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::problem::Problem;
use examples::example;
use words::{choices, shown, takes};

/// Everything in `value` that is not of the kind that its key takes, by the schema of `T`.
#[must_use]
pub fn wrong_kinds<T: JsonSchema + 'static>(value: &Value) -> Vec<Problem> {
    let schema = schema_of::<T>();
    let mut found = Vec::new();
    Walk { root: &schema, document: value, found: &mut found }.visit(&schema, value, "", None);
    found
}

/// The schema of `T`. It is made once: every body of a request is held against one.
fn schema_of<T: JsonSchema + 'static>() -> Arc<Value> {
    static MADE: Mutex<BTreeMap<TypeId, Arc<Value>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let schema = made.entry(TypeId::of::<T>());
    Arc::clone(schema.or_insert_with(|| Arc::new(schemars::schema_for!(T).to_value())))
}

/// What serde says of keys, in the words of a configuration.
#[must_use]
pub fn in_words(message: &str) -> String {
    const WORDS: [(&str, &str); 5] = [
        ("there are no fields", "there are no keys"),
        ("unknown field", "unknown key"),
        ("missing field", "missing key"),
        ("duplicate field", "the same key twice:"),
        ("cannot recurse further; max recursion depth met", TOO_DEEP),
    ];
    if message == "recursion limit" {
        return TOO_DEEP.to_owned();
    }
    // At its beginning only: the rest may be what somebody has written.
    let word = WORDS.iter().find(|(from, _)| message.starts_with(from));
    word.map_or_else(|| message.to_owned(), |(from, to)| message.replacen(from, to, 1))
}

const TOO_DEEP: &str = "tables or lists are nested too deeply: no key lies so deep";

struct Walk<'a> {
    root: &'a Value,
    /// What is looked at: an example names what is there.
    document: &'a Value,
    found: &'a mut Vec<Problem>,
}

/// What a value is to be an example of: the kinds of a key, and where the key is.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    kinds: &'a [&'a Value],
    path: &'a str,
}

impl<'a> Walk<'a> {
    /// Holds the value at `path` against its schema. An item of a list comes with what the `list`
    /// wants.
    fn visit(&mut self, schema: &'a Value, value: &Value, path: &str, list: Option<Wanted<'_>>) {
        let kinds = kinds(self.root, schema);
        let wanted = Wanted { kinds: &kinds, path };
        if written::written(value).is_some() {
            return self.wrong(wanted, value, list);
        }
        for kind in &kinds {
            match (value, type_of(kind)) {
                (Value::Object(table), "object") if !is_date(table) => {
                    return self.visit_table(kind, table, path);
                }
                (Value::Array(items), "array") => {
                    let Some(schema) = kind.get("items") else { return };
                    for (index, item) in items.iter().enumerate() {
                        self.visit(schema, item, &format!("{path}[{index}]"), Some(wanted));
                    }
                    return;
                }
                _ => {}
            }
        }
        if let Some(message) = words::wrong_quantity(&kinds, value) {
            let help = self.help(list.unwrap_or(wanted));
            return self.found.push(Problem { path: path.to_owned(), message, help });
        }
        if !kinds.iter().any(|kind| fits(kind, value)) {
            self.wrong(wanted, value, list);
        }
    }

    fn visit_table(&mut self, kind: &'a Value, table: &Map<String, Value>, path: &str) {
        for (key, value) in table {
            let known = kind.get("properties").and_then(|keys| keys.get(key));
            // A table of tables by name has no keys of its own.
            let named = || kind.get("additionalProperties").filter(|schema| schema.is_object());
            if let Some(schema) = known.or_else(named) {
                let dot = if path.is_empty() { "" } else { "." };
                self.visit(schema, value, &format!("{path}{dot}{key}"), None);
            }
        }
    }

    fn wrong(&mut self, wanted: Wanted<'_>, value: &Value, list: Option<Wanted<'_>>) {
        let Wanted { kinds, path } = wanted;
        let choices: Vec<_> = kinds.iter().flat_map(|kind| choices(kind)).collect();
        let subject = match path.rsplit('.').next() {
            None | Some("") => "this".to_owned(),
            Some(key) => format!("`{key}`"),
        };
        let message = match value {
            Value::String(text) if !choices.is_empty() => {
                let names = choices.join("`, `");
                format!("{subject} has no {text:?}: expected one of `{names}`")
            }
            _ => {
                let takes = takes(kinds, path, || self.example(wanted));
                format!("{subject} takes {takes}, not {}", shown(value))
            }
        };
        let help = self.help(list.unwrap_or(wanted));
        self.found.push(Problem { path: path.to_owned(), message, help });
    }

    /// A right value, as it stands behind the key.
    fn example(&self, wanted: Wanted<'_>) -> Option<String> {
        example(self.root, self.document, wanted)
    }

    /// What to write instead.
    fn help(&self, wanted: Wanted<'_>) -> String {
        let Some(value) = self.example(wanted) else { return String::new() };
        let key = key_of(wanted.path);
        let headed = match words::header(wanted.kinds, wanted.path) {
            Some(header) => format!(", or {header} and its keys below"),
            None => String::new(),
        };
        format!("write for example {key} = {value}{headed}")
    }
}

/// The key at the end of a path: `cores` of `tenant[0].cores[1]`.
fn key_of(path: &str) -> &str {
    let last = path.rsplit('.').next().unwrap_or(path);
    last.split('[').next().unwrap_or(last)
}

/// A path without the places in lists: `tenant.disk.queues`.
fn keys_of(path: &str) -> String {
    let keys = path.split('.').map(|part| part.split('[').next().unwrap_or(part));
    keys.collect::<Vec<_>>().join(".")
}

/// How serde gives a date: a table that says what it is.
fn is_date(table: &Map<String, Value>) -> bool {
    table.keys().any(|key| key.contains("__toml_private_datetime"))
}

/// All that a schema allows, references followed: each entry is of one type.
fn kinds<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let target = name.strip_prefix('#').and_then(|at| root.pointer(at));
        return target.map(|target| kinds(root, target)).unwrap_or_default();
    }
    match schema.get("anyOf").and_then(Value::as_array) {
        // A quantity says in its description what it takes: it stays whole.
        Some(any) if !words::is_quantity(schema) => {
            any.iter().flat_map(|schema| kinds(root, schema)).collect()
        }
        _ => vec![schema],
    }
}

/// The type of a schema from [`kinds`], apart from null.
fn type_of(kind: &Value) -> &str {
    match kind.get("type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str);
            names.into_iter().find(|name| *name != "null").unwrap_or("null")
        }
        // Choices that are described one by one.
        _ => "string",
    }
}

fn takes_null(kind: &Value) -> bool {
    match kind.get("type") {
        Some(Value::Array(names)) => names.iter().any(|name| name == "null"),
        name => name.is_some_and(|name| name == "null"),
    }
}

fn fits(kind: &Value, value: &Value) -> bool {
    if value.is_null() {
        return takes_null(kind);
    }
    if let Some(any) = kind.get("anyOf").and_then(Value::as_array) {
        return any.iter().any(|kind| fits(kind, value));
    }
    match (type_of(kind), value) {
        ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => true,
        // What lies within these bounds and makes no sense is said by who knows why.
        ("integer", Value::Number(number)) => {
            number.as_u64().is_some_and(|number| number <= words::widest(kind))
        }
        ("string", Value::String(text)) => {
            let choices = choices(kind);
            choices.is_empty() || choices.contains(&text.as_str())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
