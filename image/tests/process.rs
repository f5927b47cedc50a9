//! The program itself, at the other end of its socket.
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use moirai_image_wire::channel::{pair, receive, send_message, send_with};
use moirai_image_wire::{
    ARENA_BYTES, Alignment, Answer, FileStart, Format, Layer, Outcome, Start, Task, What,
};
use moirai_launch::{Ended, Process};
use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;

/// A process that has an image, and our side of it.
struct Image {
    _folder: TempDir,
    socket: OwnedFd,
    arena: File,
    process: Process,
    words: UnixStream,
    token: u64,
}

impl Image {
    /// A new image of 64 GiB with a process that may have so much memory, and write files up to so
    /// many bytes; `None` if there is nobody who makes images.
    fn new(memory_bytes: u64, file_bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .args([path.as_path(), Path::new("64G")])
            .status();
        if made.is_err() {
            assert!(std::env::var_os("MOIRAI_REQUIRE_QEMU").is_none(), "no qemu-img");
            eprintln!("NOT TESTED HERE: no qemu-img");
            return None;
        }
        let image = File::options().read(true).write(true).open(&path).unwrap();
        let arena = File::from(memfd_create("arena", MemfdFlags::CLOEXEC).unwrap());
        arena.set_len(ARENA_BYTES as u64).unwrap();
        let file = FileStart { alignment: Alignment { memory: 1, offset: 1 } };
        let format = Format::Qcow2 { marked: false, data: None };
        let start = Start {
            layers: vec![Layer { format, file, writable: true }],
            size_bytes: 64 << 30,
            cluster_bytes: 64 << 10,
            align: 512,
            reserved: [(0, 64 << 10), (0, 0), (0, 0)],
            l1: (3 << 16, (3 << 16) + 1024),
            user: rustix::process::geteuid().is_root().then_some(64_124),
            memory_bytes,
            file_bytes,
        };
        let (socket, theirs) = pair().unwrap();
        let (words, stderr) = UnixStream::pair().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_moirai-image"));
        let process = Process::start(binary, c"moirai-image", theirs, Some(stderr.into())).unwrap();
        send_with(&socket, &start.encode(), &[arena.as_fd(), image.as_fd()]).unwrap();
        let mut image = Self { _folder: folder, socket, arena, process, words, token: 0 };
        assert_eq!(image.answer().map(|answer| answer.outcome), Some(Outcome::Done));
        Some(image)
    }

    /// The next answer; `None` if the process has ended.
    fn answer(&mut self) -> Option<Answer> {
        let mut message = [0; Answer::BYTES];
        let len = receive(&self.socket, &mut message).ok().filter(|len| *len > 0)?;
        let answer = Answer::decode(&message[..len]).unwrap();
        assert_eq!(answer.token, self.token);
        Some(answer)
    }

    fn ask(&mut self, what: What, offset: u64, len: u64) -> Option<Answer> {
        self.token += 1;
        let task = Task { token: self.token, what, offset, len };
        send_message(&self.socket, &task.encode()).ok()?;
        self.answer()
    }

    /// How it ended, and what it said.
    fn end(mut self) -> (Ended, String) {
        let ended = self.process.wait().unwrap();
        let mut said = String::new();
        self.words.read_to_string(&mut said).unwrap();
        (ended, said)
    }
}

/// Enough for anything.
const MUCH: u64 = 256 << 20;

#[test]
fn what_was_written_is_read_and_where_it_is_is_found() {
    let Some(mut image) = Image::new(MUCH, u64::MAX) else { return };
    image.arena.write_all_at(&[7; 4096], 0).unwrap();
    let done = Answer { token: 1, outcome: Outcome::Done, bytes: 0, count: 0 };
    assert_eq!(image.ask(What::Write, 1 << 20, 4096), Some(done));
    image.arena.write_all_at(&[0; 8192], 0).unwrap();
    let read = image.ask(What::Read, (1 << 20) - 4096, 8192);
    assert_eq!(read, Some(Answer { token: 2, bytes: 8192, ..done }));
    let mut bytes = [1; 8192];
    image.arena.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..4096] == [0; 4096] && bytes[4096..] == [7; 4096]);
    assert_eq!(image.ask(What::Find, 0, 2), Some(Answer { token: 3, count: 2, ..done }));
    assert_eq!(image.ask(What::Flush, 0, 0), Some(Answer { token: 4, ..done }));
    drop(std::mem::replace(&mut image.socket, pair().unwrap().0));
    assert_eq!(image.end(), (Ended::Exited(0), String::new()));
}

#[test]
fn a_process_without_memory_fails_tasks_or_aborts() {
    let Some(mut image) = Image::new(9 << 20, u64::MAX) else { return };
    // Each makes a table of 64 KiB, which is kept; a hundred of them are more than there is.
    let failed = (0..127).find_map(|n| match image.ask(What::Write, n << 29, 512) {
        Some(answer) if answer.outcome == Outcome::Done => None,
        other => Some(other),
    });
    match failed.expect("there is no memory for all of them") {
        Some(answer) => assert_eq!(answer.outcome, Outcome::Failed),
        None => assert_eq!(image.end().0, Ended::Signalled(6)),
    }
}

#[test]
fn a_file_that_may_not_grow_is_an_error_of_the_task() {
    let Some(mut image) = Image::new(MUCH, 1 << 20) else { return };
    let mut outcomes = (0..64).map(|n| image.ask(What::Write, n << 16, 65536).unwrap().outcome);
    assert_eq!(outcomes.next(), Some(Outcome::Done));
    assert!(outcomes.any(|outcome| outcome == Outcome::Failed));
    // What is there can be read all the same.
    assert_eq!(image.ask(What::Read, 0, 512).unwrap().outcome, Outcome::Done);
}

#[test]
fn a_program_that_is_started_by_hand_says_how() {
    let output = Command::new(env!("CARGO_BIN_EXE_moirai-image")).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("the host service starts"), "{error}");
}
