//! Exports over HTTP: devices for VMMs that are not ours.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ErrorBody;
use super::request::{Body, Name};
use super::routes::{Shared, call};
use crate::service::{Change, ExportView};
use moirai_config::admission::promise::Promises;
use moirai_config::export::ExportTable;

/// Devices to export, as in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exports {
    /// All are admitted, or none.
    pub export: Vec<ExportTable>,
}

/// List the exports
#[utoipa::path(get, path = "/v1/exports", responses((status = 200, body = [ExportView])))]
pub(super) async fn list(State(service): Shared) -> Result<Json<Vec<ExportView>>, ErrorBody> {
    call(service, |service| Ok(service.exports())).await.map(Json)
}

/// Export devices, all or none
#[utoipa::path(
    post,
    path = "/v1/exports",
    request_body = Exports,
    responses(
        (status = 200, body = [ExportView]),
        (status = 409, body = ErrorBody, description = "admission refused"),
        (status = 422, body = ErrorBody, description = "the exports are not right"),
    )
)]
pub(super) async fn start(
    State(service): Shared,
    Body(exports): Body<Exports>,
) -> Result<Json<Vec<ExportView>>, ErrorBody> {
    call(service, move |service| service.export(&exports.export)).await.map(Json)
}

/// Change the contract of an export; the old one stays if admission refuses
#[utoipa::path(
    patch,
    path = "/v1/exports/{name}",
    params(("name" = String, Path, description = "name of the export")),
    request_body = Change,
    responses(
        (status = 200, body = ExportView),
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "admission refused"),
        (status = 422, body = ErrorBody, description = "the contract is not right"),
    )
)]
pub(super) async fn change(
    State(service): Shared,
    Name(name): Name,
    Body(change): Body<Change>,
) -> Result<Json<ExportView>, ErrorBody> {
    call(service, move |service| service.change_export(&name, &change)).await.map(Json)
}

/// Say what is promised to whoever uses an export, and what he got
#[utoipa::path(
    get,
    path = "/v1/exports/{name}/explain",
    params(("name" = String, Path, description = "name of the export")),
    responses((status = 200, body = Promises), (status = 404, body = ErrorBody))
)]
pub(super) async fn explain(
    State(service): Shared,
    Name(name): Name,
) -> Result<Json<Promises>, ErrorBody> {
    call(service, move |service| service.explain_export(&name)).await.map(Json)
}

/// End an export
#[utoipa::path(
    delete,
    path = "/v1/exports/{name}",
    params(("name" = String, Path, description = "name of the export")),
    responses((status = 200, body = ExportView), (status = 404, body = ErrorBody))
)]
pub(super) async fn end(
    State(service): Shared,
    Name(name): Name,
) -> Result<Json<ExportView>, ErrorBody> {
    call(service, move |service| service.unexport(&name)).await.map(Json)
}
