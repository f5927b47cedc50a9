//! The counters over TCP, for a Prometheus that cannot read a unix socket: `[host] metrics`.
//!
//! `GET /metrics` and nothing else, so whoever reaches the port can read and change nothing but
//! that. A client costs at most one of [`CONNECTIONS`] places for [`PATIENCE`].

use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::call::Served;
use super::clients::Clients;
use super::hands::Hands;
use super::routes;
use super::server::{PAUSE, Refusals, converse};
use crate::HostService;

/// How many clients are served at a time; when more come, others have to go.
const CONNECTIONS: usize = 16;
/// How long a client may take for everything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A port on which nobody is served yet.
#[derive(Debug)]
pub struct Scrape(net::TcpListener);

impl Scrape {
    /// Takes the port.
    ///
    /// # Errors
    /// What the kernel says: somebody has it, or it may not be had.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        let listener = net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves the counters for as long as the future is polled; `hands` read them.
    ///
    /// # Errors
    /// The runtime cannot listen, before anybody is served.
    pub async fn serve(self, service: Arc<HostService>, hands: Hands) -> io::Result<Infallible> {
        let listener = TcpListener::from_std(self.0)?;
        let router = routes::metrics_only(Served { service, hands });
        let clients = Clients::new(CONNECTIONS);
        let mut refusals = Refusals::default();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let conversation = converse(stream, router.clone(), clients.seat());
                    // Whoever is slower is dropped.
                    tokio::spawn(tokio::time::timeout(PATIENCE, conversation));
                }
                Err(error) => {
                    if let Some(count) = refusals.count(moirai_runtime::instant()) {
                        tracing::warn!(%error, count, "the metrics port cannot take a connection");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
