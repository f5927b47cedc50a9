//! Commands in advice, so that they work when they are pasted.

use core::fmt::{self, Display, Write as _};

/// A text as a shell takes it for one word: as it is, or in single quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a>(pub &'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
        if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
            return f.write_str(text);
        }
        f.write_char('\'')?;
        let mut pieces = text.split('\'');
        f.write_str(pieces.next().unwrap_or_default())?;
        for piece in pieces {
            write!(f, "'\\''{piece}")?;
        }
        f.write_char('\'')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;

    #[test]
    fn only_what_a_shell_would_take_apart_is_quoted() {
        for (text, word) in [
            ("/srv/a-b_c.d", "/srv/a-b_c.d"),
            ("/srv/bär", "/srv/bär"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("-rf", "'-rf'"),
            ("$(x)", "'$(x)'"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(Word(text).to_string(), word);
        }
    }
}
