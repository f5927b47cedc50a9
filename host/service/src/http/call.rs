//! How handlers reach the service.

use std::sync::Arc;

use axum::extract::State;
use moirai_api::ErrorKind;

use tokio::sync::Semaphore;

use super::Refusal;
use crate::{HostService, ServiceError};

/// The service, as handlers share it.
pub(super) type Shared = State<Arc<HostService>>;

/// Calls that begin something or think for long, at the same time. Whoever comes later waits, and
/// is forgotten if it goes meanwhile.
static LONG: Semaphore = Semaphore::const_new(8);

/// Calls the service for something that takes long: it leaves threads and cores to the others.
pub(super) async fn call_for_long<T: Send + 'static>(
    service: Arc<HostService>,
    f: impl FnOnce(&HostService) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, Refusal> {
    // Nobody closes it.
    let _place = LONG.acquire().await.ok();
    call(service, f).await
}

/// Calls the service on a thread that may wait, but not for long.
pub(super) async fn call<T: Send + 'static>(
    service: Arc<HostService>,
    f: impl FnOnce(&HostService) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, Refusal> {
    let called = tokio::task::spawn_blocking(move || f(&service)).await;
    let panicked = || Refusal::new(ErrorKind::Failed, "the host service has a bug: see its log");
    called.map_err(|_| panicked())?.map_err(Refusal::from)
}
