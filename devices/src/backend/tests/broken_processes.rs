//! Image processes that die, say nothing, or lie: the image has failed for good and says why, and
//! every request of it gets an answer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use moirai_image_wire::channel::{receive, receive_with, send_message};
use moirai_image_wire::{Answer, Outcome, Start, Task, What};

use super::images::{Open, Shop};
use super::*;
use crate::mock::ImageThreads;

/// What is sent for a task.
type Lies = fn(&Task) -> Option<Vec<u8>>;

/// Takes the start and says that the image is open; then `answer` says what is sent for each task.
/// `None` ends the process.
fn liar(answer: impl Fn(&Task) -> Option<Vec<u8>> + Send + Sync + 'static) -> ImageThreads {
    ImageThreads::new(move |socket| {
        let Some((_, _kept)) = begin(&socket, Outcome::Done) else { return };
        let mut message = [0; Task::BYTES];
        while let Ok(Task::BYTES) = receive(&socket, &mut message) {
            let task = Task::decode(&message).expect("a task");
            let Some(answer) = answer(&task) else { return };
            if send_message(&socket, &answer).is_err() {
                return;
            }
        }
    })
}

/// Takes the start and answers it.
fn begin(socket: &OwnedFd, outcome: Outcome) -> Option<(Start, Vec<OwnedFd>)> {
    let mut message = [0; Start::BYTES];
    let (len, fds) = receive_with(socket, &mut message).ok()?;
    let start = Start::decode(message.get(..len)?).ok()?;
    let answer = Answer { token: 0, outcome, bytes: 0, count: 0 };
    send_message(socket, &answer.encode()).ok()?;
    Some((start, fds))
}

fn done(task: &Task, bytes: u32, count: u32) -> Answer {
    Answer { token: task.token, outcome: Outcome::Done, bytes, count }
}

/// Every kind of request fails, and the image says this.
fn fails(open: &mut Open, said: &str) {
    let mut guest = Guest::new(open.volume.disk(1, 256));
    assert_eq!(guest.serve(&mut open.volume, 0, 8, &[writable(DATA, 4096)]), 1, "{said}");
    let failure = open.volume.failure().map(str::to_owned).unwrap_or_default();
    assert!(failure.contains(said) && failure.contains("image"), "{said}: {failure}");
    assert_eq!(guest.serve(&mut open.volume, 1, 8, &[readable(DATA, 4096)]), 1, "{said}");
    assert_eq!(guest.serve(&mut open.volume, 4, 0, &[]), 1, "{said}");
    assert_eq!(guest.serve_range(&mut open.volume, 13, (8, 8, 1)), 1, "{said}");
    assert!(!open.volume.is_busy(), "{said}");
}

#[test]
fn each_wrong_answer_is_the_end_of_the_image() {
    let Some(shop) = Shop::new() else { return };
    shop.create("image", "", None, "1M");
    let wrong: [(&str, Lies); 9] = [
        ("lies: it sent a message of 3 bytes", |_| Some(vec![0; 3])),
        ("lies: it sent a message of 25 bytes", |_| Some(vec![0; 300])),
        ("lies: it sent the outcome 0", |_| Some(vec![0; Answer::BYTES])),
        ("lies: it answered task 2 and not 1", |task| {
            Some(Answer { token: 2, ..done(task, 0, 1) }.encode())
        }),
        ("lies: it refused an image that it had opened", |task| {
            Some(Answer { outcome: Outcome::Refused, ..done(task, 0, 0) }.encode())
        }),
        ("lies: it brought 0 bytes and 2 windows", |task| Some(done(task, 0, 2).encode())),
        ("lies: it brought 9 bytes and 1 windows", |task| Some(done(task, 9, 1).encode())),
        // The arena is empty: no cluster is anywhere, so the data has to be read.
        ("lies: it brought 4095 bytes", |task| match task.what {
            What::Find => Some(done(task, 0, 1).encode()),
            _ => Some(done(task, 4095, 0).encode()),
        }),
        ("ended", |_| None),
    ];
    for (said, answer) in wrong {
        let mut open = shop.open_with("image", false, &liar(answer)).unwrap();
        assert_eq!(open.volume.failure(), None);
        fails(&mut open, said);
        open.close();
    }
    // Nothing is left of them: an honest one has the image.
    let mut open = shop.open("image", false).unwrap();
    assert!(open.read() == vec![0; 1 << 20]);
    open.close();
}

/// A process that writes windows of its own into the arena.
fn locator(place: [u8; 16]) -> ImageThreads {
    ImageThreads::new(move |socket| {
        let Some((_, fds)) = begin(&socket, Outcome::Done) else { return };
        let arena = std::fs::File::from(fds.into_iter().next().expect("an arena"));
        let mut message = [0; Task::BYTES];
        while let Ok(Task::BYTES) = receive(&socket, &mut message) {
            let task = Task::decode(&message).expect("a task");
            let at = moirai_image_wire::WINDOWS_AT as u64;
            std::os::unix::fs::FileExt::write_all_at(&arena, &place, at).expect("the arena");
            let answer = done(&task, 0, 1);
            if send_message(&socket, &answer.encode()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn no_guest_gets_to_a_place_that_is_not_his_disk() {
    let Some(shop) = Shop::new() else { return };
    shop.film("base.raw", 1);
    shop.create("image", "", Some(("base.raw", "raw")), "1M");
    let before = ["image", "base.raw"].map(|name| std::fs::read(shop.path(name)).unwrap());
    let place = |flags: u8, file: u8, offset: u64| {
        let mut bytes = [flags, 0, file, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[8..].copy_from_slice(&offset.to_le_bytes());
        bytes
    };
    for (place, said) in [
        (place(3, 2, 1 << 16), "in file 2 of 2"),
        (place(3, 1, 1 << 40), "at 0x10000000000 of a file of"),
        (place(1, 0, 1 << 20), "at 0x100000 of a file of 1048576 bytes"),
        (place(3, 1, 3), "which is no multiple of"),
        (place(3, 0, 0), "writable in file 0, which is not"),
        (place(3, 1, 0), "where the header or a table is"),
        (place(4, 1, 0), "the flags of a cluster 4"),
    ] {
        let mut open = shop.open_with("image", false, &locator(place)).unwrap();
        fails(&mut open, said);
        open.close();
    }
    let after = ["image", "base.raw"].map(|name| std::fs::read(shop.path(name)).unwrap());
    assert!(before == after, "nothing was written");
}

#[test]
fn who_does_not_answer_in_time_has_failed_and_so_has_who_talks_out_of_turn() {
    let Some(shop) = Shop::new() else { return };
    shop.create("image", "", None, "1M");
    let silent = ImageThreads::new(|socket| {
        let kept = begin(&socket, Outcome::Done);
        let mut message = [0; Task::BYTES];
        while let Ok(Task::BYTES) = receive(&socket, &mut message) {}
        drop(kept);
    });
    let silent = silent.patient(Duration::from_millis(50));
    let mut open = shop.open_with("image", false, &silent).unwrap();
    fails(&mut open, "did not answer within 50ms and was killed");
    open.close();
    for (said, talks) in [("that nobody had asked for", true), ("ended", false)] {
        let process = ImageThreads::new(move |socket| {
            let _kept = begin(&socket, Outcome::Done);
            if talks {
                send_message(&socket, &[0; Answer::BYTES]).expect("sent");
                let _ = receive(&socket, &mut [0; Task::BYTES]);
            }
        });
        let open = shop.open_with("image", false, &process).unwrap();
        // Without a request: it is known at once.
        let known = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            open.volume.failure().map(str::to_owned)
        });
        assert!(known.as_ref().is_some_and(|why| why.contains(said)), "{known:?}");
        open.close();
    }
}

#[test]
fn an_image_whose_process_breaks_on_it_is_refused_and_so_is_one_that_has_none() {
    let Some(shop) = Shop::new() else { return };
    shop.create("image", "", None, "1M");
    let refused = |processes: ImageThreads| match shop.open_with("image", false, &processes) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    };
    let broken = refused(ImageThreads::new(|socket| {
        let _ = receive_with(&socket, &mut [0; Start::BYTES]);
        panic!("as imago might");
    }));
    assert!(broken.contains("cannot be opened: the library that reads qcow2 broke on it"));
    assert!(broken.contains("panicked"), "{broken}");
    let lying = refused(ImageThreads::new(|socket| {
        let _ = receive_with(&socket, &mut [0; Start::BYTES]);
        let _ = send_message(&socket, &[7; Answer::BYTES]);
    }));
    assert!(lying.contains("was killed because it lies"), "{lying}");
    let refusing = refused(ImageThreads::new(|socket| {
        let kept = begin(&socket, Outcome::Refused);
        drop(kept);
    }));
    assert!(refusing.ends_with("image cannot be opened: "), "{refusing}");
}

#[test]
fn a_task_that_fails_is_an_error_of_that_request_alone() {
    let Some(shop) = Shop::new() else { return };
    shop.create("image", "", None, "1M");
    for (outcome, status) in [(Outcome::Failed, 1), (Outcome::Unsupported, 2)] {
        let fails = liar(move |task| Some(Answer { outcome, ..done(task, 0, 0) }.encode()));
        let mut open = shop.open_with("image", false, &fails).unwrap();
        let mut guest = Guest::new(open.volume.disk(1, 256));
        for _ in 0..3 {
            assert_eq!(guest.serve(&mut open.volume, 1, 8, &[readable(DATA, 4096)]), status);
            assert_eq!(open.volume.failure(), None);
        }
        open.close();
    }
}

/// A process that is killed is as if it had never had a task that was not flushed: the next one
/// finds nothing that names what is free.
#[test]
fn an_image_whose_process_was_killed_loses_clusters_at_most() {
    let Some(shop) = Shop::new() else { return };
    for options in ["cluster_size=4096", "cluster_size=4096,compat=0.10", "cluster_size=512"] {
        shop.create("image", options, None, "64M");
        for tasks in [1, 2, 3, 5, 8, 13, 21, 34, 55, 89] {
            let left = Arc::new(AtomicUsize::new(tasks));
            let killed = ImageThreads::new(move |socket| {
                let left = Arc::clone(&left);
                drop(relay(socket, move || left.fetch_sub(1, Ordering::Relaxed) > 1));
            });
            let mut open = shop.open_with("image", false, &killed).unwrap();
            let mut guest = Guest::new(open.volume.disk(1, 256));
            for step in 0..tasks as u64 {
                // Each in the range of another level-2 table.
                let sector = (step * 4099 + tasks as u64 * 17) % (120 << 10);
                guest.serve(&mut open.volume, 1, sector, &[readable(DATA, 4096)]);
                if step == 7 {
                    guest.serve(&mut open.volume, 4, 0, &[]);
                }
            }
            open.close();
            let checked = std::process::Command::new("qemu-img")
                .args(["check", "--output=json"])
                .arg(shop.path("image"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&checked.stdout).into_owned();
            let sound =
                !said.contains("\"corruptions\"") && matches!(checked.status.code(), Some(0 | 3));
            assert!(sound, "{options} after {tasks}: {said}");
        }
    }
}

/// An honest process behind a relay, killed as soon as `goes_on` says no: nothing of what it has in
/// memory gets to the disk.
fn relay(socket: OwnedFd, goes_on: impl Fn() -> bool) -> std::io::Result<()> {
    let mut start = [0; Start::BYTES];
    let (_, fds) = receive_with(&socket, &mut start)?;
    let (ours, theirs) = moirai_image_wire::channel::pair()?;
    // Its memory is never looked at again, as after a SIGKILL: the thread stays where it is.
    std::thread::spawn(move || drop(moirai_image::serve(theirs, |_| Ok(()))));
    // What locks hang on is closed here, as the kernel would.
    let files = 1 + Start::decode(&start).expect("a start").files();
    let fds: Vec<_> = fds.iter().take(files).map(AsFd::as_fd).collect();
    moirai_image_wire::channel::send_with(&ours, &start, &fds)?;
    let ours = std::mem::ManuallyDrop::new(ours);
    let mut answer = [0; Answer::BYTES];
    let mut task = [0; Task::BYTES];
    loop {
        receive(&*ours, &mut answer)?;
        send_message(&socket, &answer)?;
        if !goes_on() || receive(&socket, &mut task)? != Task::BYTES {
            return Ok(());
        }
        send_message(&*ours, &task)?;
    }
}
