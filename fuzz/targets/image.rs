//! What an image process may answer, and what it may say of clusters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use moirai_image_wire::{Answer, Start, Task, decode_window, encode_window};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
    if let Ok(task) = Task::decode(bytes) {
        assert_eq!(Task::decode(&task.encode()), Ok(task));
    }
    if let Ok(start) = Start::decode(bytes) {
        assert_eq!(Start::decode(&start.encode()), Ok(start));
    }
    if let Ok(window) = decode_window(bytes) {
        assert_eq!(encode_window(&window), bytes);
    }
});
