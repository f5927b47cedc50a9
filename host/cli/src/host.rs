//! `moirai host`: the host service in the foreground, until SIGTERM or SIGINT.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinError;
use tracing_subscriber::EnvFilter;

use super::args::HostArgs;
use super::log::{self, Log};
use super::{Failure, Status};
use moirai_confine::Role;
use moirai_service::http::{Bound, Hands, Scrape, hands};
use moirai_service::{HostService, LinkError, ServiceError, StateError};

use moirai_config::model::Link;
use moirai_config::{self, Problem, Report};

pub(super) fn run(args: &HostArgs) -> Result<Status, Failure> {
    // Before there is a second thread.
    let missing = prepare()?;
    let log = log_to_stderr()?;
    missing.iter().for_each(|what| tracing::warn!("{what}"));
    let ended = serve(args);
    // Before the reason is said.
    log.flush();
    ended
}

fn serve(args: &HostArgs) -> Result<Status, Failure> {
    let (text, document) = moirai_config::read(&args.config).map_err(|bad| Failure::bad(&bad))?;
    let file = args.config.display().to_string();
    let located = |problems| Report::locate(&file, &text, problems);
    let bad = |problems| Failure::bad(&located(problems));
    let mut config = moirai_config::check(&document).map_err(bad)?;
    if args.no_scheduling {
        config = config.without_scheduling();
    }
    let socket = config.host.socket.clone();
    let (links, metrics) = (config.links.clone(), config.host.metrics);
    let service = HostService::start(config).map_err(|error| {
        link_failure(error, &links, &located).unwrap_or_else(|error| failure(error, &bad))
    })?;
    let service = Arc::new(service);
    let watch = service.watch_contracts()?;
    let bound = Bound::new(&socket).map_err(|error| Failure::new(Status::Failed, error))?;
    let scrape = metrics.map(|address| scrape(address, &bad)).transpose()?;
    let api = api_threads()?;
    Role::Supervisor.enter()?;
    let runtime = hand_threads()?;
    let (hands, errands) = hands();
    let ended = runtime.block_on(async {
        tokio::spawn(errands.run());
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(outlive_terminals(signal(SignalKind::hangup())?));
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
        let mut serving = api.spawn(bound.serve(Arc::clone(&service), hands.clone()));
        let mut scraped = api.spawn(serve_metrics(scrape, Arc::clone(&service), hands));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            ended = &mut serving => return Err(not_served(ended)),
            ended = &mut scraped => return Err(not_served(ended)),
        }
        // Whoever has asked is answered; nobody else is heard.
        serving.abort();
        scraped.abort();
        drop(bound);
        tracing::info!("ends; all tenants are told to stop, and at once by a second signal");
        let ending = Arc::clone(&service);
        let mut ended = tokio::task::spawn_blocking(move || ending.end_all());
        loop {
            tokio::select! {
                _ = &mut ended => return Ok(Status::Done),
                _ = terminate.recv() => service.pull_all_plugs(),
                _ = interrupt.recv() => service.pull_all_plugs(),
            }
        }
    });
    // Handlers that still run hold the service; they end with the runtimes.
    drop(api);
    drop(runtime);
    drop(watch);
    drop(service);
    if ended.is_ok() {
        tracing::info!("has ended, and all its tenants");
    }
    ended
}

/// Takes the port of the counters.
fn scrape(address: SocketAddr, bad: &dyn Fn(Vec<Problem>) -> Failure) -> Result<Scrape, Failure> {
    let taken = Scrape::new(address).map_err(|error| {
        bad(vec![Problem {
            path: "host.metrics".to_owned(),
            message: format!("cannot listen at {address}: {error}"),
            help: "choose a port that nobody has and an address of this machine".to_owned(),
        }])
    })?;
    tracing::info!(%address, "serves GET /metrics");
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "everybody who reaches this address can read all counters");
    }
    Ok(taken)
}

/// Threads for calls that may wait a little: more wait for a thread.
const BLOCKING: usize = 32;

/// A terminal that is closed ends what was started from it, but not the tenants of others.
async fn outlive_terminals(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::warn!("SIGHUP: the terminal has gone; the host service goes on until SIGTERM");
    }
}

async fn serve_metrics(
    scrape: Option<Scrape>,
    service: Arc<HostService>,
    hands: Hands,
) -> io::Result<Infallible> {
    match scrape {
        Some(scrape) => scrape.serve(service, hands).await,
        None => std::future::pending().await,
    }
}

/// Why nobody is served any more.
fn not_served(ended: Result<io::Result<Infallible>, JoinError>) -> Failure {
    match ended {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => Failure::new(Status::Failed, error),
        Err(error) => Failure::new(Status::Failed, error),
    }
}

/// The threads that speak HTTP. They have no privilege and no files, and make no threads.
fn api_threads() -> io::Result<Runtime> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.worker_threads(2).max_blocking_threads(1).thread_name("api").enable_all();
    threads.on_thread_start(|| Role::Api.enter_or_say()).build()
}

/// The first thread hears signals; hands carry out what is asked and may wait a little.
fn hand_threads() -> io::Result<Runtime> {
    let mut threads = tokio::runtime::Builder::new_current_thread();
    threads.max_blocking_threads(BLOCKING).thread_name("hand").enable_all();
    threads.on_thread_start(|| Role::Hand.enter_or_say()).build()
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
        // On another machine the same configuration is right.
        ServiceError::State(StateError::File { .. }) => Failure {
            status: Status::Failed,
            ..bad(vec![Problem {
                path: "host.state_dir".to_owned(),
                message: error.to_string(),
                help: "write for example state_dir = \"/var/lib/moirai\"".to_owned(),
            }])
        },
        other => Failure::new(Status::Failed, other),
    }
}

/// What the kernel says of a link, at the key that asked for it. Not status 2: on another machine,
/// or when what stands in the way is gone, the same configuration is right.
fn link_failure(
    error: ServiceError,
    links: &[Link],
    located: &dyn Fn(Vec<Problem>) -> Report,
) -> Result<Failure, ServiceError> {
    let ServiceError::Link(LinkError::Refused { link, key, message, help }) = error else {
        return Err(error);
    };
    let index = links.iter().position(|it| it.name == link).unwrap_or_default();
    let path = format!("link[{index}].{key}");
    let report = located(vec![Problem { path, message, help }]);
    let said = format!("link {link:?} cannot be served\n{report}");
    Ok(Failure::new(Status::Failed, said))
}

/// What the process itself needs, whoever has started it, and what it gives up for good. Returns
/// what it could not have.
fn prepare() -> io::Result<Vec<String>> {
    // What it writes is read by a later start, as root: nobody else may write it, whatever mask was
    // inherited.
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    // Each tenant takes some descriptors, and shells and systemd give 1024 for a start.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let mut missing = Vec::new();
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        missing.push(format!("the limit of open files cannot be raised: {error}"));
    }
    missing.extend(stay_when_memory_is_short().err());
    // rustix opens a file when it is first asked for the time: now, while this thread may.
    let _ = moirai_runtime::now();
    missing.extend(moirai_confine::begin()?);
    Ok(missing)
}

/// A machine without memory left ends others first: everybody's contracts end with this process.
fn stay_when_memory_is_short() -> Result<(), String> {
    const LAST_BUT_INIT: &str = "-900";
    std::fs::write("/proc/self/oom_score_adj", LAST_BUT_INIT).map_err(|error| {
        format!("when memory is short the kernel may end the host service first: {error}")
    })
}

/// Logs to standard error; `MOIRAI_LOG` chooses what, as `RUST_LOG` does elsewhere.
fn log_to_stderr() -> std::io::Result<Log> {
    let log = Log::to(std::io::stderr())?;
    let filter = EnvFilter::try_from_env("MOIRAI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(rustix::termios::isatty(std::io::stderr()))
        // By itself it would say on standard error that it cannot write there, and panic over that.
        .log_internal_errors(false);
    // Both fail only if a log is set up already, which then is used.
    let _ = if log::leads_to_journal() {
        lines.with_writer(log.clone().with_levels()).without_time().try_init()
    } else {
        lines.with_writer(log.clone()).try_init()
    };
    Ok(log)
}
