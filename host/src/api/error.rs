//! A refusal as an answer: what went wrong, with its status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use moirai_api::{ErrorBody, ErrorKind};

use crate::service::ServiceError;

/// What a refused request is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) ErrorBody);

impl Refusal {
    /// One without details.
    pub(crate) fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        Self(ErrorBody::new(kind, error))
    }
}

/// The status of an answer that refuses.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
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

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        let text = error.to_string();
        let body = |kind| ErrorBody::new(kind, text.clone());
        Self(match error {
            ServiceError::Unknown(_) | ServiceError::UnknownExport(_) => body(ErrorKind::Unknown),
            ServiceError::NotRunning(_) => body(ErrorKind::NotRunning),
            ServiceError::Bad(problems) => ErrorBody { problems, ..body(ErrorKind::Bad) },
            ServiceError::Refused(refused) => ErrorBody { refused, ..body(ErrorKind::Refused) },
            _ => body(ErrorKind::Failed),
        })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (status(self.0.kind), Json(self.0)).into_response()
    }
}
