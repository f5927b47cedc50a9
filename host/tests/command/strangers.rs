//! Commands whose socket is answered by something that is no host service: they end in time, within
//! bounds, and say in words what they met.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use tempfile::TempDir;

/// Longer than a command waits for an answer.
const LATEST: Duration = Duration::from_secs(20);

/// How a stranger answers one connection.
type Answer = fn(&mut UnixStream);

/// Somebody who answers each connection in some way, for as long as the test runs.
struct Stranger {
    _folder: TempDir,
    socket: PathBuf,
}

impl Stranger {
    fn who(answer: Answer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request);
                    answer(&mut stream);
                });
            }
        });
        Self { _folder: folder, socket }
    }
}

/// Runs a command; it must not wait without end.
fn run(socket: &Path, words: &[&str]) -> (Output, String) {
    let begin = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moirai"));
    command.arg("--socket").arg(socket).args(words).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(begin.elapsed() < LATEST, "{words:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

/// All that ask for something.
const ALL: &[&[&str]] = &[
    &["list"],
    &["list", "--json"],
    &["show", "a"],
    &["explain", "a"],
    &["exports"],
    &["top", "--once", "--interval", "0.1"],
    &["top", "--json"],
    &["console", "a", "--once"],
    &["set", "a", "cpu.slice=1ms"],
    &["set", "export/a", "disk.slice=1ms"],
    &["stop", "a"],
    &["unexport", "a"],
];
/// Those that wait longest as long as a question takes.
const ASKING: usize = 8;

/// No names of what the program is made of.
fn check_words(said: &str, socket: &Path) {
    let names =
        ["expected ", "line 1", "missing field", "invalid", "hyper", "EOF", "parsed", "serde"];
    assert!(!names.iter().any(|name| said.contains(name)), "{said}");
    assert!(said.contains(&socket.display().to_string()), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn what_is_no_host_service_is_said_to_be_none() {
    let say = |text: &'static str| -> Answer {
        match text {
            "hello" => |stream| drop(stream.write_all(b"220 hello\r\n")),
            "page" => |stream| {
                let page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
                drop(stream.write_all(page));
            },
            "other" => |stream| {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}"));
            },
            "failed" => |stream| {
                drop(stream.write_all(b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\noops"));
            },
            _ => |stream| drop(stream.write_all(b"\xff\x00\x01\x02\xff\xff\r\n\r\n")),
        }
    };
    for text in ["hello", "page", "other", "failed", "bytes"] {
        let stranger = Stranger::who(say(text));
        for words in ALL {
            // What a console shows is whatever bytes there are.
            if words.first() == Some(&"console") && matches!(text, "page" | "other") {
                continue;
            }
            let (output, said) = run(&stranger.socket, words);
            assert_eq!(output.status.code(), Some(4), "{text} {words:?}: {said}");
            assert!(said.contains("is no Moirai host service"), "{text} {words:?}: {said}");
            assert!(said.contains("--socket"), "{said}");
            check_words(&said, &stranger.socket);
        }
    }
}

#[test]
fn a_connection_that_ends_early_is_said_to_have_ended() {
    let begin_and_end: [Answer; 3] = [
        |_| {},
        |stream| drop(stream.write_all(b"HTTP/1.1 200 O")),
        |stream| drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")),
    ];
    for answer in begin_and_end {
        let stranger = Stranger::who(answer);
        for words in ALL {
            let (output, said) = run(&stranger.socket, words);
            assert_eq!(output.status.code(), Some(4), "{words:?}: {said}");
            assert!(said.contains("ended before the answer did"), "{words:?}: {said}");
            check_words(&said, &stranger.socket);
        }
    }
}

/// Says `head`, then `piece` again and again.
fn without_end(stream: &mut UnixStream, head: &[u8], piece: &[u8], pause: Duration) {
    let mut going = stream.write_all(head).is_ok();
    while going {
        going = stream.write_all(piece).is_ok();
        std::thread::sleep(pause);
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";

#[test]
fn whoever_is_slow_or_says_nothing_is_not_waited_for_without_end() {
    let slow: [Answer; 4] = [
        |_| std::thread::sleep(Duration::from_secs(60)),
        |stream| without_end(stream, b"HTTP/1.1 200 OK\r\nX: ", b"x", Duration::from_millis(300)),
        |stream| without_end(stream, OK, b" ", Duration::from_millis(300)),
        |stream| {
            let piece = b"HTTP/1.1 102 Processing\r\n\r\n";
            without_end(stream, b"", piece, Duration::from_millis(300));
        },
    ];
    std::thread::scope(|scope| {
        for answer in slow {
            scope.spawn(move || {
                let stranger = Stranger::who(answer);
                let socket = &stranger.socket;
                std::thread::scope(|scope| {
                    // A console may be slow, but for its head.
                    for words in ALL.iter().take(ASKING).filter(|words| words[0] != "console") {
                        scope.spawn(move || {
                            let (output, said) = run(socket, words);
                            assert_eq!(output.status.code(), Some(4), "{words:?}: {said}");
                            assert!(said.contains("has not given its answer"), "{words:?}: {said}");
                            check_words(&said, socket);
                        });
                    }
                });
            });
        }
    });
    let silent = Stranger::who(|_| std::thread::sleep(Duration::from_secs(60)));
    let (output, said) = run(&silent.socket, &["console", "a", "--once"]);
    assert_eq!(output.status.code(), Some(4), "{said}");
}

#[test]
fn an_answer_without_end_is_not_read_without_end() {
    let endless: [(Answer, &str); 2] = [
        (
            |stream| without_end(stream, b"HTTP/1.1 200 OK\r\n", b"X: x\r\n", Duration::ZERO),
            "no HTTP",
        ),
        (|stream| without_end(stream, OK, &[b' '; 1 << 16], Duration::ZERO), "larger than"),
    ];
    for (answer, wanted) in endless {
        let stranger = Stranger::who(answer);
        for words in [&["list"][..], &["show", "a"], &["stop", "a"]] {
            let (output, said) = run(&stranger.socket, words);
            assert_eq!(output.status.code(), Some(4), "{words:?}: {said}");
            assert!(said.contains(wanted), "{words:?}: {said}");
        }
    }
}

#[test]
fn a_socket_that_nobody_accepts_at_is_not_waited_for_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listener, 0).unwrap();
    // One waits already; there is no place for another.
    let _waiting = UnixStream::connect(&path).unwrap();
    let (output, said) = run(&path, &["list"]);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("has not given its answer"), "{said}");
    check_words(&said, &path);
}
