//! The one JSON object per line that applications print. Pure.

use alloc::string::String;
use core::fmt::{self, Write};

/// Writes `text` so that it can stand between the quotes of a JSON string.
///
/// # Errors
/// Those of `out`.
pub fn write_escaped(out: &mut dyn Write, text: &str) -> fmt::Result {
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(out, "\\{letter}")?,
            letter if u32::from(letter) < 0x20 => write!(out, "\\u{:04x}", u32::from(letter))?,
            letter => out.write_char(letter)?,
        }
    }
    Ok(())
}

/// [`write_escaped`] for formatted text, without a buffer.
pub struct Escaped<'a>(pub &'a mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_escaped(self.0, text)
    }
}

/// An object that is being written: `{"app":...,"event":...` and more fields.
pub struct Fields(String);

impl Fields {
    /// Begins the object.
    #[must_use]
    pub fn new(app: &str, event: &str) -> Self {
        let mut fields = Self(String::from("{\"app\":\""));
        // Here and below: writing to a string does not fail.
        let _ = write_escaped(&mut fields.0, app);
        fields.0.push('"');
        fields.text("event", event);
        fields
    }

    /// Adds a number.
    pub fn number(&mut self, key: &str, value: u64) -> &mut Self {
        let _ = write!(self.0, ",\"{key}\":{value}");
        self
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        let _ = write!(self.0, ",\"{key}\":\"");
        let _ = write_escaped(&mut self.0, value);
        self.0.push('"');
        self
    }

    /// Ends the object.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_application_and_event() {
        let mut fields = Fields::new("echo", "ready");
        fields.number("port", 7).text("ip", "10.0.0.2");
        let expected = r#"{"app":"echo","event":"ready","port":7,"ip":"10.0.0.2"}"#;
        assert_eq!(fields.finish(), expected);
    }

    #[test]
    fn no_text_can_break_out_of_its_quotes_or_its_line() {
        let mut fields = Fields::new("x", "error");
        fields.text("message", "a \"b\" \\ c\nd\u{1}\u{e9}");
        let expected = "{\"app\":\"x\",\"event\":\"error\",\"message\":\"a \\\"b\\\" \\\\ \
                        c\\u000ad\\u0001\u{e9}\"}";
        assert_eq!(fields.finish(), expected);
    }
}
