//! How handlers reach the service.

use std::sync::Arc;

use axum::extract::State;
use moirai_api::ErrorKind;

use super::Refusal;
use crate::{HostService, ServiceError};

/// The service, as handlers share it.
pub(super) type Shared = State<Arc<HostService>>;

/// Calls the service on a thread that may wait.
pub(super) async fn call<T: Send + 'static>(
    service: Arc<HostService>,
    f: impl FnOnce(&HostService) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, Refusal> {
    let called = tokio::task::spawn_blocking(move || f(&service)).await;
    let panicked = || Refusal::new(ErrorKind::Failed, "the host service has a bug: see its log");
    called.map_err(|_| panicked())?.map_err(Refusal::from)
}
