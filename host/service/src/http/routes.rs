//! The resources of the API.

use moirai_api::{Change, ErrorKind, HostView, KeptEvent, Launch, Stats, TenantView};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::call::{Served, Shared, Wanted, call, call_for_long};
use super::request::{Asked, Asks, Body, Name, body_bytes};
use super::{Refusal, console, exports, head, metrics};
use crate::{HostService, ServiceError};
use moirai_config::admission::plan::{Plan, plan_while};
use moirai_config::admission::promise::Promises;
use moirai_config::{Document, check};

#[derive(OpenApi)]
#[openapi(info(
    title = "Moirai host service",
    description = "Tenants with contracts on CPU, disk and link. Times are integer nanoseconds."
))]
struct Description;

/// All routes with their description.
pub(super) fn router() -> OpenApiRouter<Served> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(list, launch))
        .routes(routes!(show, change, stop))
        .routes(routes!(console::read, console::write))
        .routes(routes!(exports::list, exports::start))
        .routes(routes!(exports::change, exports::end))
        .routes(routes!(explain))
        .routes(routes!(exports::explain))
        .routes(routes!(events))
        .routes(routes!(ask_plan))
        .routes(routes!(host))
        .routes(routes!(stats))
        .routes(routes!(metrics_text))
        .route("/openapi.json", axum::routing::get(openapi))
}

/// The whole API, as a socket serves it.
pub(super) fn served(service: Served) -> axum::Router {
    let (router, document) = router().split_for_parts();
    refusing(router, &document).with_state(service)
}

/// The counters and nothing else.
pub(super) fn metrics_only(service: Served) -> axum::Router {
    let router = axum::Router::new().route("/metrics", axum::routing::get(metrics_text));
    refusing(router, &super::openapi()).with_state(service)
}

/// Says what is not there and what is not right with the head of a request, with the documented
/// body. What was sent along is read: a client that is still sending would not hear the answer.
fn refusing(
    router: axum::Router<Served>,
    document: &utoipa::openapi::OpenApi,
) -> axum::Router<Served> {
    let queries = Arc::new(head::Queries::of(document));
    let checked = axum::middleware::from_fn_with_state(queries, head::check);
    router
        .fallback(async |request: Request| {
            let _ = body_bytes(request).await;
            Refusal::new(ErrorKind::Unknown, "there is nothing at this path")
        })
        .method_not_allowed_fallback(async |request: Request| {
            let text = format!("{} is not for this path; `Allow` says what is", request.method());
            let _ = body_bytes(request).await;
            Refusal::new(ErrorKind::Method, text)
        })
        .layer(checked)
}

/// List the tenants
#[utoipa::path(get, path = "/v1/tenants", responses((status = 200, body = [TenantView])))]
async fn list(State(service): Shared) -> Result<Json<Vec<TenantView>>, Refusal> {
    call(service, |service| Ok(service.tenants())).await.map(Json)
}

/// Start tenants, all or none; answers when each runs or has ended
#[utoipa::path(
    post,
    path = "/v1/tenants",
    request_body = Launch,
    responses(
        (status = 200, body = [TenantView]),
        (status = 409, body = moirai_api::ErrorBody, description = "admission refused"),
        (status = 422, body = moirai_api::ErrorBody, description = "the tenants are not right"),
    )
)]
async fn launch(
    State(service): Shared,
    Body(launch): Body<Launch>,
) -> Result<Json<Vec<TenantView>>, Refusal> {
    let launched = move |service: &HostService, wanted: &Wanted| {
        service.launch_while(&launch.tenant, &|| wanted.still())
    };
    call_for_long(service, launched).await.map(Json)
}

/// Show a tenant
#[utoipa::path(
    get,
    path = "/v1/tenants/{name}",
    params(("name" = String, Path, description = "name of the tenant")),
    responses((status = 200, body = TenantView), (status = 404, body = moirai_api::ErrorBody))
)]
async fn show(State(service): Shared, Name(name): Name) -> Result<Json<TenantView>, Refusal> {
    call(service, move |service| service.tenant(&name)).await.map(Json)
}

/// Change contracts of a running tenant; the old ones stay if admission refuses
#[utoipa::path(
    patch,
    path = "/v1/tenants/{name}",
    params(("name" = String, Path, description = "name of the tenant")),
    request_body = Change,
    responses(
        (status = 200, body = TenantView),
        (status = 404, body = moirai_api::ErrorBody),
        (status = 409, body = moirai_api::ErrorBody, description = "admission refused"),
        (status = 422, body = moirai_api::ErrorBody, description = "the contract is not right"),
    )
)]
async fn change(
    State(service): Shared,
    Name(name): Name,
    Body(change): Body<Change>,
) -> Result<Json<TenantView>, Refusal> {
    call(service, move |service| service.change(&name, &change)).await.map(Json)
}

/// Say what is promised to a tenant, and what it got
#[utoipa::path(
    get,
    path = "/v1/tenants/{name}/explain",
    params(("name" = String, Path, description = "name of the tenant")),
    responses((status = 200, body = Promises), (status = 404, body = moirai_api::ErrorBody))
)]
async fn explain(State(service): Shared, Name(name): Name) -> Result<Json<Promises>, Refusal> {
    call(service, move |service| service.explain(&name)).await.map(Json)
}

/// List the latest contracts that were not kept any more, or were again; oldest first
#[utoipa::path(get, path = "/v1/events", responses((status = 200, body = [KeptEvent])))]
async fn events(State(service): Shared) -> Result<Json<Vec<KeptEvent>>, Refusal> {
    call(service, |service| Ok(service.events())).await.map(Json)
}

/// How often is looked whether a tenant has ended.
const LOOK: Duration = Duration::from_millis(20);

/// How to end a tenant.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StopQuery {
    /// Pull the plug instead of pressing the power button and waiting for the guest.
    #[serde(default)]
    now: bool,
}

impl Asks for StopQuery {
    const WORDS: &'static str = "now=true or now=false";
}

/// End a tenant and forget it
#[utoipa::path(
    delete,
    path = "/v1/tenants/{name}",
    params(("name" = String, Path, description = "name of the tenant"), StopQuery),
    responses((status = 200, body = TenantView), (status = 404, body = moirai_api::ErrorBody))
)]
async fn stop(
    State(service): Shared,
    Name(name): Name,
    Asked(StopQuery { now }): Asked<StopQuery>,
) -> Result<Json<TenantView>, Refusal> {
    let stopping = call(service.clone(), move |service| service.ask_to_stop(&name, now)).await?;
    let stopping = Arc::new(stopping);
    // By itself, so that it is forgotten also if the client goes.
    let forgotten = tokio::spawn(async move {
        loop {
            let asked = Arc::clone(&stopping);
            match call(service.clone(), move |service| service.forget(&asked)).await? {
                Some(tenant) => return Ok(Json(tenant)),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    });
    let bug = |_| Refusal::new(ErrorKind::Failed, "the host service has a bug: see its log");
    forgotten.await.map_err(bug)?
}

/// Ask admission about a whole configuration; nothing is started
#[utoipa::path(
    post,
    path = "/v1/plan",
    request_body = Document,
    responses((status = 200, body = Plan), (status = 422, body = moirai_api::ErrorBody))
)]
async fn ask_plan(
    State(service): Shared,
    Body(document): Body<Document>,
) -> Result<Json<Plan>, Refusal> {
    let asked = move |service: &HostService, wanted: &Wanted| {
        let mut config = check(&document).map_err(ServiceError::Bad)?;
        // It is about this host, whatever it says about state directories.
        config.host.costs = service.config().host.costs;
        plan_while(&config, &|| wanted.still()).ok_or(ServiceError::Unwanted)
    };
    call_for_long(service, asked).await.map(Json)
}

/// Show the host and its reservations
#[utoipa::path(get, path = "/v1/host", responses((status = 200, body = HostView)))]
async fn host(State(service): Shared) -> Result<Json<HostView>, Refusal> {
    call(service, |service| Ok(service.host())).await.map(Json)
}

/// Read all counters
#[utoipa::path(get, path = "/v1/stats", responses((status = 200, body = Stats)))]
async fn stats(State(service): Shared) -> Result<Json<Stats>, Refusal> {
    call(service, |service| Ok(service.stats())).await.map(Json)
}

/// Read all counters in the text format of Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
async fn metrics_text(State(service): Shared) -> Result<impl IntoResponse, Refusal> {
    let text = call(service, |service| Ok(metrics::render(&service.stats()))).await?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

async fn openapi() -> impl IntoResponse {
    Json(super::openapi())
}
