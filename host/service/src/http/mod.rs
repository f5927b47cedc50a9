//! The API of the host service: REST with JSON over a unix socket, and metrics beside it.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `server.rs` | the socket, connections, and what a slow or hostile client may cost |
//! | `routes.rs` | the resources; each handler turns one request into one call of the service |
//! | `call.rs`, `hands.rs` | how handlers reach the service, on whose threads |
//! | `head.rs` | what the head of a request must be, whatever its path |
//! | `once.rs` | JSON in which no key stands twice |
//! | `request.rs` | names, queries and bodies of requests, and what is wrong with them |
//! | `own_answer.rs` | a body for what hyper refuses by itself |
//! | `scrape.rs` | the counters over TCP, for Prometheus |
//! | `console.rs` | consoles: streams |
//! | `exports.rs` | devices for foreign VMMs |
//! | `error.rs` | what a refused request is told |
//! | `metrics.rs` | Prometheus text |
//!
//! Neighbours: handlers call [`crate::HostService`]; `moirai_api` has what goes over the wire.

mod call;
mod clients;
mod console;
mod error;
mod exports;
mod hands;
mod head;
mod metrics;
mod once;
mod own_answer;
mod request;
mod routes;
mod scrape;
mod server;

pub(crate) use error::Refusal;
pub use hands::{Errands, Hands, hands};
pub use scrape::Scrape;
pub use server::{Bound, ServerError};

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes::router().split_for_parts().1;
    head::document_refusals(&mut document);
    document
}
