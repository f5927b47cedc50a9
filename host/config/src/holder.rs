//! Whoever holds promises: a tenant or an export. The only place that knows how the two are told
//! apart where one name has to do, on the wire and in texts: exports are called `export/NAME`, and
//! names have no slash.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the names of exports have before them beside those of tenants.
const EXPORT_PREFIX: &str = "export/";

/// A tenant or an export, by its name. A string on the wire: `NAME` or `export/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Holder {
    /// The tenant of that name.
    Tenant(String),
    /// The export of that name.
    Export(String),
}

impl Holder {
    /// Its name among its kind.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Tenant(name) | Self::Export(name) => name,
        }
    }
}

impl Default for Holder {
    fn default() -> Self {
        Self::Tenant(String::new())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(name) => f.pad(name),
            Self::Export(name) => f.pad(&format!("{EXPORT_PREFIX}{name}")),
        }
    }
}

impl From<&str> for Holder {
    fn from(text: &str) -> Self {
        match text.strip_prefix(EXPORT_PREFIX) {
            Some(name) => Self::Export(name.to_owned()),
            None => Self::Tenant(text.to_owned()),
        }
    }
}

impl From<String> for Holder {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Holder> for String {
    fn from(holder: Holder) -> Self {
        holder.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_goes_over_the_wire_as_one_name_and_comes_back() {
        for (holder, text) in [
            (Holder::Tenant("cinema".to_owned()), "\"cinema\""),
            (Holder::Export("db".to_owned()), "\"export/db\""),
            (Holder::Tenant("export".to_owned()), "\"export\""),
        ] {
            assert_eq!(serde_json::to_string(&holder).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<Holder>(text).expect("a holder"), holder);
        }
        assert_eq!(format!("{:>11}|", Holder::from("export/db")), "  export/db|");
    }
}
