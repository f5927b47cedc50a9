//! What a request carries: names, queries, bodies. Whatever is not right gets the documented error
//! body; nothing of a client is kept beyond [`BODY_BYTES`].

use moirai_api::ErrorKind;
use std::fmt::Display;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;

use super::Refusal;
use super::call::Served;
use super::once::Once;
use moirai_config::{Problem, kinds};

/// Largest body of a request.
const BODY_BYTES: usize = 1 << 20;
/// How much of a larger one is read and thrown away, so that its sender hears why.
const DISCARDED_BYTES: usize = 16 << 20;
/// How long a client may take to send a body.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

fn malformed(text: impl Display) -> Refusal {
    Refusal::new(ErrorKind::Malformed, text.to_string())
}

/// The name in a path.
pub(super) struct Name(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| malformed("the name in the path is no text in UTF-8"))?;
        Ok(Self(name))
    }
}

/// A query that can be explained.
pub(super) trait Asks: DeserializeOwned {
    /// What it may say.
    const WORDS: &'static str;
}

/// A query that says what it may and no more.
pub(super) struct Asked<T>(pub(super) T);

impl<T: Asks, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Query(asked) = Query::<T>::try_from_uri(&parts.uri).map_err(|_| {
            let query = parts.uri.query().unwrap_or_default();
            malformed(format!("the query {query:?} is not understood; write {}", T::WORDS))
        })?;
        Ok(Self(asked))
    }
}

/// A JSON body that arrived in time.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + JsonSchema + 'static> FromRequest<Served> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Served) -> Result<Self, Refusal> {
        let kind = media_type(request.headers());
        let bytes = plain_bytes(request).await?;
        kind?;
        read(&bytes).map(Self)
    }
}

/// Reads a body. Its kinds are looked at first: serde takes a list of values for a table without
/// names of its keys.
fn read<T: DeserializeOwned + JsonSchema + 'static>(bytes: &[u8]) -> Result<T, Refusal> {
    let value: Value = serde_json::from_slice::<Once>(bytes).map_err(unread)?.0;
    let problems = kinds::wrong_kinds::<T>(&value);
    if problems.is_empty() {
        return serde_json::from_slice(bytes).map_err(unread);
    }
    let said = |problem: &Problem| match problem.path.as_str() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    };
    let found = problems.iter().map(said).collect::<Vec<_>>().join("\n");
    let text = format!("the body is not what is expected: {found}");
    Err(Refusal(moirai_api::ErrorBody {
        problems,
        ..moirai_api::ErrorBody::new(ErrorKind::Bad, text)
    }))
}

/// What serde says of a body whose values are of the right kinds.
fn unread(error: serde_json::Error) -> Refusal {
    match error.classify() {
        Category::Data => {
            let said = kinds::in_words(&error.to_string());
            Refusal::new(ErrorKind::Bad, format!("the body is not what is expected: {said}"))
        }
        Category::Eof if error.column() == 0 => {
            malformed("the body is empty: send JSON, for example {}")
        }
        Category::Eof => {
            let (line, column) = (error.line(), error.column());
            malformed(format!(
                "the body is no JSON: it ends within a value, at line {line} column {column}"
            ))
        }
        _ => malformed(format!("the body is no JSON: {error}")),
    }
}

/// A body may say that it is JSON in UTF-8, or nothing.
fn media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(kind) = only(headers, CONTENT_TYPE)? else { return Ok(()) };
    let mut parts = kind.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let is_json = essence == "application/json" || essence.ends_with("+json");
    let is_utf8 = parts.all(|part| match part.split_once('=') {
        Some(("charset", name)) => matches!(name.trim_matches('"'), "utf-8" | "utf8" | "us-ascii"),
        _ => part != "charset",
    });
    if is_json && is_utf8 {
        return Ok(());
    }
    let text = format!("a body of {kind:?} is not taken: send content-type: application/json");
    Err(Refusal::new(ErrorKind::MediaType, text))
}

/// The value of a header that says one thing about a body; said twice, it says nothing.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, Refusal> {
    let said = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => {
            let text = format!("{name} is there more than once: send one");
            Err(Refusal::new(ErrorKind::MediaType, text))
        }
        (value, _) => Ok(value.map(said)),
    }
}

/// The bytes of a body that is sent as it is, not packed.
pub(super) async fn plain_bytes(request: Request) -> Result<Bytes, Refusal> {
    let encoding = only(request.headers(), CONTENT_ENCODING);
    let bytes = body_bytes(request).await?;
    match encoding?.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        Some(encoding) => {
            let text = format!("a body in {encoding:?} is not taken: send it as it is");
            Err(Refusal::new(ErrorKind::MediaType, text))
        }
        None => Ok(bytes),
    }
}

/// The bytes of a body, if they arrive in time and are not too many.
pub(super) async fn body_bytes(request: Request) -> Result<Bytes, Refusal> {
    let headers = request.headers();
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    // Who waits for permission gets none; who sends at once is heard to the end, within limits.
    let patient = headers.contains_key(EXPECT);
    let most = if patient { BODY_BYTES } else { DISCARDED_BYTES };
    if length.is_some_and(|length: usize| length > most) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_PATIENCE, collect(request.into_body())).await {
        Ok(collected) => collected,
        Err(_) => {
            let text = format!("the body did not arrive within {BODY_PATIENCE:?}");
            Err(Refusal::new(ErrorKind::Timeout, text))
        }
    }
}

async fn collect(mut body: axum::body::Body) -> Result<Bytes, Refusal> {
    let (mut kept, mut seen) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| malformed(broken_off(&error)))?;
        // What is no data are trailers.
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen <= BODY_BYTES {
            kept.extend_from_slice(&data);
        } else if seen > DISCARDED_BYTES {
            break;
        }
    }
    if seen > BODY_BYTES { Err(too_large()) } else { Ok(kept.into()) }
}

/// Why a body has no end, in words for whoever has written the client.
fn broken_off(error: &axum::Error) -> String {
    tracing::debug!(%error, "a body broke off");
    "the body broke off, or its chunks are not as HTTP/1.1 has them: send Content-Length and so \
     many bytes, or each chunk with its length in front and an empty one at the end"
        .to_owned()
}

fn too_large() -> Refusal {
    let text = format!("the body is larger than {BODY_BYTES} bytes");
    Refusal::new(ErrorKind::TooLarge, text)
}
