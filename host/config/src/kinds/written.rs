//! A TOML text as the values that [`super::wrong_kinds`] looks at, with those that JSON does not
//! have: `nan`, `inf`, integers of more than 64 bits. No key takes them; they keep the form in
//! which they were written.

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};

/// The only key of the table that stands for such a value; no key of a configuration begins so.
const WRITTEN: &str = "\0written";

/// All values of a document; `None` if it is no TOML.
pub(crate) fn values(text: &str) -> Option<Value> {
    let table = DeTable::parse(text).ok()?;
    Some(table_of(table.get_ref()))
}

/// How a value was written that JSON does not have.
pub(super) fn written(value: &Value) -> Option<&str> {
    value.as_object()?.get(WRITTEN)?.as_str()
}

fn as_written(text: String) -> Value {
    Value::Object(Map::from_iter([(WRITTEN.to_owned(), Value::String(text))]))
}

fn table_of(table: &DeTable<'_>) -> Value {
    let entries = table.iter();
    let entries =
        entries.map(|(key, value)| (key.get_ref().to_string(), value_of(value.get_ref())));
    Value::Object(entries.collect())
}

fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(number) => {
            let (digits, radix) = (number.as_str(), number.radix());
            let signed = i64::from_str_radix(digits, radix).map(Number::from);
            signed.map_or_else(|_| as_written(number.to_string()), Value::Number)
        }
        DeValue::Float(number) => {
            let value = number.as_str().parse().ok().and_then(Number::from_f64);
            value.map_or_else(|| as_written(number.to_string()), Value::Number)
        }
        // As serde gives it: a table that says what it is.
        DeValue::Datetime(_) => {
            let key = "$__toml_private_datetime".to_owned();
            Value::Object(Map::from_iter([(key, Value::Null)]))
        }
        DeValue::Array(items) => items.iter().map(|item| value_of(item.get_ref())).collect(),
        DeValue::Table(table) => table_of(table),
    }
}
