//! The host's side of vsock, with the test as tenant process and as client.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use moirai_launch::channel::Channel;
use moirai_launch::handover::{FromTenant, TenantHandover, ToTenant};
use tempfile::TempDir;

use super::{MAX_NEWCOMERS, Vsock};

fn start() -> (TempDir, Vsock, TenantHandover) {
    let folder = tempfile::tempdir().unwrap();
    let (vsock, theirs) = Vsock::start(folder.path(), "guest", 0o600).unwrap();
    (folder, vsock, Channel::new(theirs))
}

fn client(folder: &Path, words: &[u8]) -> UnixStream {
    let mut client = UnixStream::connect(folder.join("guest.vsock")).unwrap();
    client.write_all(words).unwrap();
    client
}

/// The next client that arrives at the tenant process, and its port.
fn handed_over(tenant: &TenantHandover) -> (u32, UnixStream) {
    let (message, mut fds) = tenant.receive().unwrap();
    let ToTenant::Connect { port } = message else { panic!("{message:?}") };
    (port, UnixStream::from(fds.remove(0)))
}

fn open(tenant: &TenantHandover, port: u32, id: u64) -> Option<OwnedFd> {
    tenant.send(&FromTenant::Open { port, id }, &[]).unwrap();
    let (answer, mut fds) = tenant.receive().unwrap();
    assert_eq!(answer, ToTenant::Opened { id });
    fds.pop()
}

#[test]
fn a_client_is_handed_over_with_everything_behind_its_first_line() {
    let (folder, vsock, tenant) = start();
    let mode = vsock.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut half = client(folder.path(), b"CONN");
    let mut whole = client(folder.path(), b"CONNECT 99\nhello");
    let (port, mut stream) = handed_over(&tenant);
    assert_eq!(port, 99);
    let mut seen = [0; 5];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"hello");
    stream.write_all(b"OK 1\n").unwrap();
    let mut answer = [0; 5];
    whole.read_exact(&mut answer).unwrap();
    half.write_all(b"ECT 4294967295\n").unwrap();
    assert_eq!(handed_over(&tenant).0, u32::MAX);
}

#[test]
fn a_client_that_talks_nonsense_is_hung_up_on() {
    let (folder, _vsock, _tenant) = start();
    let words: [&[u8]; 6] = [
        b"connect 1\n",
        b"CONNECT +1\n",
        b"CONNECT 4294967296\n",
        b"CONNECT \n",
        b"CONNECT 1\r\n",
        &[b'x'; 100],
    ];
    for words in words {
        let read = client(folder.path(), words).read(&mut [0; 8]);
        assert!(!matches!(read, Ok(1..)), "{read:?}");
    }
}

#[test]
fn silent_clients_make_room_for_others() {
    let (folder, _vsock, tenant) = start();
    let mut silent: Vec<_> = (0..MAX_NEWCOMERS).map(|_| client(folder.path(), b"C")).collect();
    let _last = client(folder.path(), b"CONNECT 5\n");
    assert_eq!(handed_over(&tenant).0, 5);
    assert_eq!(silent[0].read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn the_guest_reaches_whoever_listens_and_nobody_else() {
    let (folder, _vsock, tenant) = start();
    assert!(open(&tenant, 80, 1).is_none());
    let listener = UnixListener::bind(folder.path().join("guest.vsock_80")).unwrap();
    let mut stream = UnixStream::from(open(&tenant, 80, 2).unwrap());
    stream.write_all(b"hello").unwrap();
    let mut seen = [0; 5];
    listener.accept().unwrap().0.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"hello");
    drop(listener);
    assert!(open(&tenant, 80, 3).is_none(), "a socket that nobody listens on");
}

#[test]
fn a_listener_that_is_busy_holds_up_nobody() {
    let (folder, _vsock, tenant) = start();
    let _never_accepts = UnixListener::bind(folder.path().join("guest.vsock_80")).unwrap();
    let mut streams = Vec::new();
    while let Some(stream) = open(&tenant, 80, 1) {
        streams.push(stream);
        assert!(streams.len() < 10_000);
    }
}

#[test]
fn a_tenant_process_that_talks_nonsense_is_not_listened_to_but_served() {
    let (folder, _vsock, tenant) = start();
    let nonsense = [&b"{}"[..], b"\"open\"", &[b' '; 20_000]];
    for words in nonsense {
        rustix::net::send(&tenant, words, rustix::net::SendFlags::empty()).unwrap();
    }
    let _client = client(folder.path(), b"CONNECT 5\n");
    assert_eq!(handed_over(&tenant).0, 5);
}

#[test]
fn a_tenant_process_that_takes_nothing_holds_up_nobody() {
    let (folder, vsock, tenant) = start();
    // More answers than a socket holds.
    for id in 0..10_000 {
        tenant.send(&FromTenant::Open { port: 80, id }, &[]).unwrap();
    }
    let _client = client(folder.path(), b"CONNECT 5\n");
    drop(vsock);
}

#[test]
fn nothing_is_left_when_it_ends_and_leftovers_do_not_matter() {
    let (folder, vsock, tenant) = start();
    drop(tenant);
    drop(vsock);
    assert!(!folder.path().join("guest.vsock").exists());
    let leftover = UnixListener::bind(folder.path().join("guest.vsock")).unwrap();
    let (_vsock, theirs) = Vsock::start(folder.path(), "guest", 0o600).unwrap();
    drop(leftover);
    let _client = client(folder.path(), b"CONNECT 5\n");
    assert_eq!(handed_over(&Channel::new(theirs)).0, 5);
}

#[test]
fn a_path_that_no_socket_can_have_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("x".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let error = Vsock::start(&deep, "guest", 0o600).unwrap_err().to_string();
    assert!(error.contains("too long") && error.contains("state_dir"), "{error}");
}
