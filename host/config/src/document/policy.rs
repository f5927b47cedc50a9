//! A policy as it is written.
//!
//! The scheduler knows which policies there are, their names and what they do, and knows no
//! serde. This is what reading, writing and describing them takes, and no second list.

use std::borrow::Cow;

use moirai_scheduler::{POLICIES, PolicyKind};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{self, ObjectBuilder, Type};

/// What the schemas say of it.
const ABOUT: &str = "Who decides about a resource.";

/// Who decides about a resource: a [`PolicyKind`] by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyName(pub PolicyKind);

impl Serialize for PolicyName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for PolicyName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(from)?;
        name.parse().map(Self).map_err(|_| de::Error::unknown_variant(&name, POLICIES))
    }
}

impl JsonSchema for PolicyName {
    fn schema_name() -> Cow<'static, str> {
        "PolicyName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |kind: PolicyKind| {
            let (about, name) = (kind.about(), kind.as_str());
            json!({ "description": about, "type": "string", "const": name })
        };
        let all = PolicyKind::ALL.map(one);
        schemars::json_schema!({ "description": ABOUT, "oneOf": all })
    }
}

impl utoipa::PartialSchema for PolicyName {
    fn schema() -> RefOr<schema::Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(POLICIES.iter().copied()))
            .description(Some(ABOUT))
            .into()
    }
}

impl utoipa::ToSchema for PolicyName {}
