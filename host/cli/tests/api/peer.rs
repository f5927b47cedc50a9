//! A host service in this process, and a client that speaks raw bytes.
//!
//! Not `moirai_bench::driver`: that one drives a process, and asks as an honest client does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moirai_config::{self, Config};
use moirai_service::HostService;
use moirai_service::http::{Bound, Hands, Scrape, hands};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// One service at a time has the core's dispatcher to itself.
static TURN: Mutex<()> = Mutex::new(());

/// A host service with one core and at most one disk; ends with the value.
pub(crate) struct Host {
    // In the order in which they end.
    runtime: Runtime,
    service: Arc<HostService>,
    hands: Hands,
    _bound: Bound,
    folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Host {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same with a disk, `disk`: its folder.
    pub(crate) fn with_disk() -> Self {
        Self::start_with("[[disk]]\nname = \"disk\"\npath = \"FOLDER\"\n")
    }

    fn start_with(tables: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let service = HostService::start(configuration(&folder, tables))
            .expect("KVM and real-time priority are needed: run as root");
        let service = Arc::new(service);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let bound = Bound::new(&folder.path().join("host.sock")).unwrap();
        let (hands, errands) = hands();
        runtime.spawn(errands.run());
        runtime.spawn(bound.serve(Arc::clone(&service), hands.clone()));
        Self { runtime, service, hands, _bound: bound, folder, _turn: turn }
    }

    /// Serves the counters over TCP as well; returns where.
    pub(crate) fn scrape(&self) -> std::net::SocketAddr {
        let scrape = Scrape::new("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = scrape.address().unwrap();
        self.runtime.spawn(scrape.serve(Arc::clone(&self.service), self.hands.clone()));
        address
    }

    /// What a second service with the same directory says.
    pub(crate) fn start_another(&self) -> String {
        HostService::start(configuration(&self.folder, "")).unwrap_err().to_string()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("host.sock")
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request and reads status and body of the answer.
    pub(crate) fn ask(&self, request: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        // A server that refuses early may close before everything is sent.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(ended.is_ok() || !answer.is_empty(), "{ended:?}");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status(&answer), body.to_owned())
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.send("POST", path, body)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: \
             {length}\r\n\r\n"
        );
        self.ask(format!("{head}{body}").as_bytes())
    }
}

/// `tables` come after the host's own; FOLDER is the folder.
fn configuration(folder: &TempDir, tables: &str) -> Config {
    let core = std::thread::available_parallelism().unwrap().get() - 1;
    let path = folder.path().display();
    let head = format!("[host]\ncores = [{core}]\nstate_dir = \"{path}/state\"\n");
    let text = head + &tables.replace("FOLDER", &path.to_string());
    moirai_config::check(&moirai_config::parse("test", &text).unwrap()).unwrap()
}

/// A request that asks for the end of the connection after the answer.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").into_bytes()
}

/// The status of an answer; zero if there is none.
pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
