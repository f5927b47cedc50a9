//! The API of the host service: REST with JSON over a unix socket, and metrics beside it.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `server.rs` | the socket, connections, and what a slow or hostile client may cost |
//! | `routes.rs` | the resources; each handler turns one request into one call of the service |
//! | `console.rs` | consoles: streams |
//! | `exports.rs` | devices for foreign VMMs |
//! | `error.rs` | what a refused request is told |
//! | `metrics.rs` | Prometheus text |
//!
//! Neighbours: handlers call [`crate::service::Service`]; [`crate::client`] is the other end.

mod console;
mod error;
mod exports;
mod metrics;
mod routes;
mod server;

pub use error::{ErrorBody, ErrorKind};
pub use exports::Exports;
pub use routes::Launch;
pub use server::{Bound, ServerError};

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes::router().split_for_parts().1
}
