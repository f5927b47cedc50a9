//! How handlers reach the service.

use std::sync::Arc;

use axum::extract::State;
use moirai_api::ErrorKind;

use tokio::sync::Semaphore;

use super::Refusal;
use super::hands::Hands;
use crate::{HostService, ServiceError};

/// The service, as handlers share it.
pub(super) type Shared = State<Served>;

/// The service and who carries requests out.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) service: Arc<HostService>,
    pub(super) hands: Hands,
}

/// Calls that begin something or think for long, at the same time. Whoever comes later waits, and
/// is forgotten if it goes meanwhile.
static LONG: Semaphore = Semaphore::const_new(8);

/// Calls the service for something that takes long: it leaves threads and cores to the others.
pub(super) async fn call_for_long<T: Send + 'static>(
    service: Served,
    f: impl FnOnce(&HostService) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, Refusal> {
    // Nobody closes it.
    let _place = LONG.acquire().await.ok();
    call(service, f).await
}

/// Calls the service on a thread that may wait, but not for long.
pub(super) async fn call<T: Send + 'static>(
    Served { service, hands }: Served,
    f: impl FnOnce(&HostService) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, Refusal> {
    let called = hands.run(move || f(&service)).await;
    let panicked = || Refusal::new(ErrorKind::Failed, "the host service has a bug: see its log");
    called.ok_or_else(panicked)?.map_err(Refusal::from)
}
