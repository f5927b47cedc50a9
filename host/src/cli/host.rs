//! `moirai host`: the host service in the foreground, until SIGTERM or SIGINT.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::args::HostArgs;
use super::{Failure, Status};
use crate::api::Bound;
use crate::config::{self, Problem, Report};
use crate::service::{Service, ServiceError, StateError};

pub(super) fn run(args: &HostArgs) -> Result<Status, Failure> {
    log_to_stderr();
    let (text, document) = config::read(&args.config).map_err(|bad| Failure::bad(&bad))?;
    let file = args.config.display().to_string();
    let bad = |problems| Failure::bad(&Report::locate(&file, &text, problems));
    let mut config = config::check(&document).map_err(bad)?;
    if args.no_scheduling {
        config = config.without_scheduling();
    }
    let socket = config.host.socket.clone();
    let service = Service::start(config).map_err(|error| failure(error, &bad))?;
    let service = Arc::new(service);
    let watch = service.watch_contracts()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("api")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        let bound = Bound::new(&socket).map_err(|error| Failure::new(Status::Failed, error))?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let launched = Arc::clone(&service);
        let launched = tokio::task::spawn_blocking(move || {
            launched.launch(&document.tenant)?;
            launched.export(&document.export)
        });
        let launched = launched.await;
        launched
            .map_err(|error| Failure::new(Status::Failed, error))?
            .map_err(|error| failure(error, &bad))?;
        tracing::info!(socket = %socket.display(), "serves");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            never = bound.serve(Arc::clone(&service)) => match never {},
        }
        tracing::info!("ends; all tenants are stopped");
        Ok(Status::Done)
    });
    // Handlers that still run hold the service; they end with the runtime.
    drop(runtime);
    drop(watch);
    drop(service);
    ended
}

/// Why the service does not start, with the lines of the configuration where that is the reason.
fn failure(error: ServiceError, bad: &dyn Fn(Vec<Problem>) -> Failure) -> Failure {
    match error {
        ServiceError::Bad(problems) => bad(problems),
        ServiceError::Refused(_) => Failure::new(Status::Refused, error),
        ServiceError::State(StateError::Taken { .. }) => bad(vec![Problem {
            path: "host.state_dir".to_owned(),
            message: error.to_string(),
            help: "one host service has the folder; a second one needs cores, volumes and links \
                   that nobody else serves"
                .to_owned(),
        }]),
        other => Failure::new(Status::Failed, other),
    }
}

/// Logs to standard error; `MOIRAI_LOG` chooses what, as `RUST_LOG` does elsewhere.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("MOIRAI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only if a log is set up already, which then is used.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(rustix::termios::isatty(std::io::stderr()))
        // By itself it would say on standard error that it cannot write there, and panic over that.
        .log_internal_errors(false)
        .try_init();
}
