//! What a refused request is told, for people and for programs.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::service::ServiceError;
use moirai_config::Problem;
use moirai_config::admission::plan::TenantPlan;

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

    fn status(&self) -> StatusCode {
        match self.kind {
            ErrorKind::Unknown => StatusCode::NOT_FOUND,
            ErrorKind::NotRunning | ErrorKind::Refused => StatusCode::CONFLICT,
            ErrorKind::Bad => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Malformed => StatusCode::BAD_REQUEST,
            ErrorKind::Method => StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ErrorKind::Timeout => StatusCode::REQUEST_TIMEOUT,
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<ServiceError> for ErrorBody {
    fn from(error: ServiceError) -> Self {
        let text = error.to_string();
        match error {
            ServiceError::Unknown(_) | ServiceError::UnknownExport(_) => {
                Self::new(ErrorKind::Unknown, text)
            }
            ServiceError::NotRunning(_) => Self::new(ErrorKind::NotRunning, text),
            ServiceError::Bad(problems) => Self { problems, ..Self::new(ErrorKind::Bad, text) },
            ServiceError::Refused(refused) => {
                Self { refused, ..Self::new(ErrorKind::Refused, text) }
            }
            _ => Self::new(ErrorKind::Failed, text),
        }
    }
}

impl IntoResponse for ErrorBody {
    fn into_response(self) -> Response {
        (self.status(), Json(self)).into_response()
    }
}
