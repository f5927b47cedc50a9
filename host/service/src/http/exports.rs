//! Exports over HTTP: devices for VMMs that are not ours.

use axum::Json;
use axum::extract::State;
use moirai_api::{Change, ExportView, Exports};

use super::Refusal;
use super::call::{Shared, call, call_for_long};
use super::request::{Body, Name};
use moirai_config::admission::promise::Promises;

/// List the exports
#[utoipa::path(get, path = "/v1/exports", responses((status = 200, body = [ExportView])))]
pub(super) async fn list(State(service): Shared) -> Result<Json<Vec<ExportView>>, Refusal> {
    call(service, |service| Ok(service.exports())).await.map(Json)
}

/// Export devices, all or none
#[utoipa::path(
    post,
    path = "/v1/exports",
    request_body = Exports,
    responses(
        (status = 200, body = [ExportView]),
        (status = 409, body = moirai_api::ErrorBody, description = "admission refused"),
        (status = 422, body = moirai_api::ErrorBody, description = "the exports are not right"),
    )
)]
pub(super) async fn start(
    State(service): Shared,
    Body(exports): Body<Exports>,
) -> Result<Json<Vec<ExportView>>, Refusal> {
    call_for_long(service, move |service, _| service.export(&exports.export)).await.map(Json)
}

/// Change the contract of an export; the old one stays if admission refuses
#[utoipa::path(
    patch,
    path = "/v1/exports/{name}",
    params(("name" = String, Path, description = "name of the export")),
    request_body = Change,
    responses(
        (status = 200, body = ExportView),
        (status = 404, body = moirai_api::ErrorBody),
        (status = 409, body = moirai_api::ErrorBody, description = "admission refused"),
        (status = 422, body = moirai_api::ErrorBody, description = "the contract is not right"),
    )
)]
pub(super) async fn change(
    State(service): Shared,
    Name(name): Name,
    Body(change): Body<Change>,
) -> Result<Json<ExportView>, Refusal> {
    call(service, move |service| service.change_export(&name, &change)).await.map(Json)
}

/// Say what is promised to whoever uses an export, and what he got
#[utoipa::path(
    get,
    path = "/v1/exports/{name}/explain",
    params(("name" = String, Path, description = "name of the export")),
    responses((status = 200, body = Promises), (status = 404, body = moirai_api::ErrorBody))
)]
pub(super) async fn explain(
    State(service): Shared,
    Name(name): Name,
) -> Result<Json<Promises>, Refusal> {
    call(service, move |service| service.explain_export(&name)).await.map(Json)
}

/// End an export
#[utoipa::path(
    delete,
    path = "/v1/exports/{name}",
    params(("name" = String, Path, description = "name of the export")),
    responses((status = 200, body = ExportView), (status = 404, body = moirai_api::ErrorBody))
)]
pub(super) async fn end(
    State(service): Shared,
    Name(name): Name,
) -> Result<Json<ExportView>, Refusal> {
    call(service, move |service| service.unexport(&name)).await.map(Json)
}
