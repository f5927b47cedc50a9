//! How handlers reach the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Whether somebody waits for what is being done.
#[derive(Clone, Debug)]
pub(super) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// False once the client has gone.
    pub(super) fn still(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes with the client.
struct Client(Wanted);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// Calls the service for something that takes long: it leaves threads and cores to the others, and
/// is told when nobody waits for it any more.
pub(super) async fn call_for_long<T: Send + 'static>(
    service: Served,
    f: impl FnOnce(&HostService, &Wanted) -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, Refusal> {
    // Nobody closes it.
    let _place = LONG.acquire().await.ok();
    let client = Client(Wanted(Arc::new(AtomicBool::new(true))));
    let wanted = client.0.clone();
    call(service, move |service| f(service, &wanted)).await
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
