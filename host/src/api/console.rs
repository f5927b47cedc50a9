//! Consoles over HTTP: output as a body that goes on as long as the tenant, input as a body.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use http_body_util::channel::Channel;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Refusal;
use super::request::{Asked, Asks, Name, plain_bytes};
use super::routes::{Shared, call};
use crate::service::Console;

/// How to read a console.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Reading {
    /// Go on until the tenant ends.
    #[serde(default)]
    follow: bool,
}

impl Asks for Reading {
    const WORDS: &'static str = "follow=true or follow=false";
}

/// How much was typed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Typed {
    /// Bytes that the console took; the rest was dropped because the guest does not read.
    taken: usize,
}

/// Read a console: what is kept of it, then what follows
#[utoipa::path(
    get,
    path = "/v1/tenants/{name}/console",
    params(("name" = String, Path, description = "name of the tenant"), Reading),
    responses(
        (status = 200, body = String, content_type = "application/octet-stream"),
        (status = 404, body = moirai_api::ErrorBody),
    )
)]
pub(super) async fn read(
    State(service): Shared,
    Name(name): Name,
    Asked(reading): Asked<Reading>,
) -> Result<Response, Refusal> {
    let console = call(service, move |service| service.console(&name)).await?;
    let body = if reading.follow { follow(console) } else { Body::from(console.read(0).bytes) };
    Ok(([(CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// A body that follows the console to its end. A client that does not read holds up nobody: it
/// misses what is no longer kept when it reads on.
fn follow(console: Arc<Console>) -> Body {
    let (mut sender, body) = Channel::<Bytes>::new(1);
    tokio::spawn(async move {
        let mut changes = console.changes();
        let mut from = 0;
        loop {
            changes.mark_unchanged();
            let piece = console.read(from);
            from = piece.next;
            let sent = piece.bytes.is_empty() || sender.send_data(piece.bytes.into()).await.is_ok();
            if !sent || piece.closed || changes.changed().await.is_err() {
                return;
            }
        }
    });
    Body::new(body)
}

/// Type on a console
#[utoipa::path(
    post,
    path = "/v1/tenants/{name}/console",
    params(("name" = String, Path, description = "name of the tenant")),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 200, body = Typed), (status = 404, body = moirai_api::ErrorBody))
)]
pub(super) async fn write(
    State(service): Shared,
    Name(name): Name,
    request: Request,
) -> Result<Json<Typed>, Refusal> {
    let bytes = plain_bytes(request).await?;
    let taken = call(service, move |service| service.type_on_console(&name, &bytes)).await?;
    Ok(Json(Typed { taken }))
}
