//! The resources of the API.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ErrorBody, ErrorKind, console, exports, metrics};
use crate::admission::plan::{Plan, plan};
use crate::admission::promise::Promises;
use crate::config::document::TenantTable;
use crate::config::{Document, check};
use crate::service::{Change, HostView, KeptEvent, Service, ServiceError, Stats, TenantView};

/// Largest body of a request.
const BODY_BYTES: usize = 1 << 20;
/// How long a client may take to send a body.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// Tenants to start, as in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// All are admitted, or none.
    pub tenant: Vec<TenantTable>,
}

/// The service, as handlers share it.
pub(super) type Shared = State<Arc<Service>>;

#[derive(OpenApi)]
#[openapi(info(
    title = "Moirai host service",
    description = "Tenants with contracts on CPU, disk and link. Times are integer nanoseconds."
))]
struct Description;

/// All routes with their description.
pub(super) fn router() -> OpenApiRouter<Arc<Service>> {
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
        .fallback(async || ErrorBody::new(ErrorKind::Unknown, "there is nothing at this path"))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
}

/// A JSON body that arrived in time.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Service>> for Body<T> {
    type Rejection = ErrorBody;

    async fn from_request(request: Request, state: &Arc<Service>) -> Result<Self, ErrorBody> {
        let bytes = body_bytes(request, state).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            ErrorBody::new(ErrorKind::Bad, format!("the body is not what is expected: {error}"))
        })
    }
}

/// The bytes of a body, if they arrive in time and are not too many.
pub(super) async fn body_bytes(request: Request, state: &Arc<Service>) -> Result<Bytes, ErrorBody> {
    match tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(refused)) => Err(ErrorBody::new(ErrorKind::Bad, refused.body_text())),
        Err(_) => {
            let text = format!("the body did not arrive within {BODY_PATIENCE:?}");
            Err(ErrorBody::new(ErrorKind::Timeout, text))
        }
    }
}

/// Calls the service on a thread that may wait.
pub(super) async fn call<T: Send + 'static>(
    service: Arc<Service>,
    f: impl FnOnce(&Service) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ErrorBody> {
    let called = tokio::task::spawn_blocking(move || f(&service)).await;
    let panicked = || ErrorBody::new(ErrorKind::Failed, "the host service has a bug: see its log");
    called.map_err(|_| panicked())?.map_err(ErrorBody::from)
}

/// List the tenants
#[utoipa::path(get, path = "/v1/tenants", responses((status = 200, body = [TenantView])))]
async fn list(State(service): Shared) -> Result<Json<Vec<TenantView>>, ErrorBody> {
    call(service, |service| Ok(service.tenants())).await.map(Json)
}

/// Start tenants, all or none; answers when each runs or has ended
#[utoipa::path(
    post,
    path = "/v1/tenants",
    request_body = Launch,
    responses(
        (status = 200, body = [TenantView]),
        (status = 409, body = ErrorBody, description = "admission refused"),
        (status = 422, body = ErrorBody, description = "the tenants are not right"),
    )
)]
async fn launch(
    State(service): Shared,
    Body(launch): Body<Launch>,
) -> Result<Json<Vec<TenantView>>, ErrorBody> {
    call(service, move |service| service.launch(&launch.tenant)).await.map(Json)
}

/// Show a tenant
#[utoipa::path(
    get,
    path = "/v1/tenants/{name}",
    params(("name" = String, Path, description = "name of the tenant")),
    responses((status = 200, body = TenantView), (status = 404, body = ErrorBody))
)]
async fn show(
    State(service): Shared,
    Path(name): Path<String>,
) -> Result<Json<TenantView>, ErrorBody> {
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
        (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody, description = "admission refused"),
        (status = 422, body = ErrorBody, description = "the contract is not right"),
    )
)]
async fn change(
    State(service): Shared,
    Path(name): Path<String>,
    Body(change): Body<Change>,
) -> Result<Json<TenantView>, ErrorBody> {
    call(service, move |service| service.change(&name, &change)).await.map(Json)
}

/// Say what is promised to a tenant, and what it got
#[utoipa::path(
    get,
    path = "/v1/tenants/{name}/explain",
    params(("name" = String, Path, description = "name of the tenant")),
    responses((status = 200, body = Promises), (status = 404, body = ErrorBody))
)]
async fn explain(
    State(service): Shared,
    Path(name): Path<String>,
) -> Result<Json<Promises>, ErrorBody> {
    call(service, move |service| service.explain(&name)).await.map(Json)
}

/// List the latest contracts that were not kept any more, or were again; oldest first
#[utoipa::path(get, path = "/v1/events", responses((status = 200, body = [KeptEvent])))]
async fn events(State(service): Shared) -> Result<Json<Vec<KeptEvent>>, ErrorBody> {
    call(service, |service| Ok(service.events())).await.map(Json)
}

/// How to end a tenant.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
struct StopQuery {
    /// Pull the plug instead of pressing the power button and waiting for the guest.
    #[serde(default)]
    now: bool,
}

/// End a tenant and forget it
#[utoipa::path(
    delete,
    path = "/v1/tenants/{name}",
    params(("name" = String, Path, description = "name of the tenant"), StopQuery),
    responses((status = 200, body = TenantView), (status = 404, body = ErrorBody))
)]
async fn stop(
    State(service): Shared,
    Path(name): Path<String>,
    Query(StopQuery { now }): Query<StopQuery>,
) -> Result<Json<TenantView>, ErrorBody> {
    call(service, move |service| service.stop(&name, now)).await.map(Json)
}

/// Ask admission about a whole configuration; nothing is started
#[utoipa::path(
    post,
    path = "/v1/plan",
    request_body = Document,
    responses((status = 200, body = Plan), (status = 422, body = ErrorBody))
)]
async fn ask_plan(
    State(service): Shared,
    Body(document): Body<Document>,
) -> Result<Json<Plan>, ErrorBody> {
    let asked = move |service: &Service| {
        let mut config = check(&document).map_err(ServiceError::Bad)?;
        // It is about this host, whatever it says about state directories.
        config.host.costs = service.config().host.costs;
        Ok(plan(&config))
    };
    call(service, asked).await.map(Json)
}

/// Show the host and its reservations
#[utoipa::path(get, path = "/v1/host", responses((status = 200, body = HostView)))]
async fn host(State(service): Shared) -> Result<Json<HostView>, ErrorBody> {
    call(service, |service| Ok(service.host())).await.map(Json)
}

/// Read all counters
#[utoipa::path(get, path = "/v1/stats", responses((status = 200, body = Stats)))]
async fn stats(State(service): Shared) -> Result<Json<Stats>, ErrorBody> {
    call(service, |service| Ok(service.stats())).await.map(Json)
}

/// Read all counters in the text format of Prometheus
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
async fn metrics_text(State(service): Shared) -> Result<impl IntoResponse, ErrorBody> {
    let text = call(service, |service| Ok(metrics::render(&service.stats()))).await?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

async fn openapi() -> impl IntoResponse {
    Json(super::openapi())
}
