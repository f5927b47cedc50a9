//! What the host service answers to a request that it refuses, for people and for programs.

use moirai_config::Problem;
use moirai_config::admission::plan::TenantPlan;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// There is no such tenant or export.
    Unknown,
    /// The tenant does not run.
    NotRunning,
    /// The request is wrong; `problems` says where.
    Bad,
    /// Admission refused; `refused` says what.
    Refused,
    /// The request is no HTTP, its query or its name is not understood, or its body is no JSON.
    Malformed,
    /// The path has no such method; `Allow` says which it has.
    Method,
    /// The request is larger than any that makes sense.
    TooLarge,
    /// The body is of a kind that is not taken.
    MediaType,
    /// The client was too slow.
    Timeout,
    /// The host service could not do it.
    Failed,
}

/// Body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Why.
    pub kind: ErrorKind,
    /// What to tell a person.
    pub error: String,
    /// What is wrong with the request, and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What admission refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<TenantPlan>,
}

impl ErrorBody {
    /// A refusal without details.
    #[must_use]
    pub fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into(), problems: Vec::new(), refused: Vec::new() }
    }
}
