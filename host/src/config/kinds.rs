//! What each key takes, in words for people: said where a value is of the wrong kind.
//!
//! Serde's own messages name what the program is made of. So when reading fails, the value is held
//! against the schema that the same types give (`docs/config.schema.json`): every key that is there is
//! known here without being listed twice. Units, unknown keys and missing ones are not looked at; what
//! serde says of them is in words already.

mod words;
pub(super) mod written;

use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::problem::Problem;
use words::{choices, example, shown, takes};

/// Everything in `value` that is not of the kind that its key takes, by the schema of `T`.
#[must_use]
pub fn wrong_kinds<T: JsonSchema>(value: &Value) -> Vec<Problem> {
    let schema = schemars::schema_for!(T).to_value();
    let mut found = Vec::new();
    Walk { root: &schema, found: &mut found }.visit(&schema, value, "", "");
    found
}

struct Walk<'a> {
    root: &'a Value,
    found: &'a mut Vec<Problem>,
}

impl<'a> Walk<'a> {
    /// Holds the value of `key`, at `path`, against its schema.
    fn visit(&mut self, schema: &'a Value, value: &Value, key: &str, path: &str) {
        let kinds = kinds(self.root, schema);
        if written::written(value).is_some() {
            return self.found.push(wrong(&kinds, value, key, path));
        }
        for kind in &kinds {
            match (value, type_of(kind)) {
                (Value::Object(table), "object") => return self.visit_table(kind, table, path),
                (Value::Array(items), "array") => {
                    let Some(schema) = kind.get("items") else { return };
                    let before = self.found.len();
                    for (index, item) in items.iter().enumerate() {
                        self.visit(schema, item, key, &format!("{path}[{index}]"));
                    }
                    let items = self.found.iter_mut().skip(before);
                    // Not those of a key within a table that is an item.
                    for problem in items.filter(|problem| problem.path.ends_with(']')) {
                        problem.help = in_list(&problem.help, key);
                    }
                    return;
                }
                _ => {}
            }
        }
        if !kinds.iter().any(|kind| fits(kind, value)) {
            self.found.push(wrong(&kinds, value, key, path));
        }
    }

    fn visit_table(&mut self, kind: &'a Value, table: &Map<String, Value>, path: &str) {
        for (key, value) in table {
            let known = kind.get("properties").and_then(|keys| keys.get(key));
            // A table of tables by name has no keys of its own.
            let named = || kind.get("additionalProperties").filter(|schema| schema.is_object());
            if let Some(schema) = known.or_else(named) {
                let dot = if path.is_empty() { "" } else { "." };
                self.visit(schema, value, key, &format!("{path}{dot}{key}"));
            }
        }
    }
}

/// The example for an item of a list, as an example of the list.
fn in_list(help: &str, key: &str) -> String {
    let assigned = format!("write for example {key} = ");
    match help.strip_prefix(&assigned) {
        Some(item) if !item.starts_with('[') => format!("{assigned}[{item}]"),
        _ => help.to_owned(),
    }
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
        ("integer", Value::Number(number)) => {
            number.as_u64().is_some_and(|number| number <= words::most(kind))
        }
        ("string", Value::String(text)) => {
            let choices = choices(kind);
            choices.is_empty() || choices.contains(&text.as_str())
        }
        _ => false,
    }
}

fn wrong(kinds: &[&Value], value: &Value, key: &str, path: &str) -> Problem {
    let choices: Vec<_> = kinds.iter().flat_map(|kind| choices(kind)).collect();
    let subject = if key.is_empty() { "this".to_owned() } else { format!("`{key}`") };
    let message = match value {
        Value::String(text) if !choices.is_empty() => {
            let names = choices.join("`, `");
            format!("{subject} has no {text:?}: expected one of `{names}`")
        }
        _ => format!("{subject} takes {}, not {}", takes(kinds, key), shown(value)),
    };
    let help = match example(kinds, key) {
        Some(example) => format!("write for example {example}"),
        None => String::new(),
    };
    Problem { path: path.to_owned(), message, help }
}

#[cfg(test)]
mod tests;
