//! What the host service and an image process say to each other.
//!
//! ```text
//! host                                   image process
//!  Start + descriptors ---------------->  shuts itself in, opens the image
//!  <------------------- Answer (token 0)   Done, or Refused with words in the arena
//!  Task ------------------------------->
//!  <----------------------------- Answer   data or windows in the arena
//! ```
//!
//! One task at a time, each message of one size over a `SOCK_SEQPACKET` socket. Payload is in the
//! arena, memory that both have: data in its first half, windows of clusters in its second. The
//! image process reads what a stranger wrote, so the host believes nothing of what it answers. It
//! believes the host.
//!
//! Pure, but for [`channel`].

pub mod channel;
mod fields;
pub mod format;
mod start;
mod task;
mod window;

pub use fields::Wrong;
pub use start::{Alignment, FileStart, Format, Layer, MAX_LAYERS, Start};
pub use task::{Answer, Outcome, Task, What};
pub use window::{Location, WINDOW, WINDOW_BYTES, Window, decode_window, encode_window, in_window};

/// The descriptor that is the process's end of the socket.
pub const CONTROL_FD: i32 = 3;
/// Size of the arena.
pub const ARENA_BYTES: usize = 1 << 20;
/// How much data a task moves at most.
pub const DATA_BYTES: usize = 512 << 10;
/// Where in the arena windows begin.
pub const WINDOWS_AT: usize = DATA_BYTES;
/// How many of them there are at most.
pub const MAX_WINDOWS: u64 = ((ARENA_BYTES - WINDOWS_AT) / WINDOW_BYTES) as u64;
/// The longest words with which an image is refused.
pub const MAX_WORDS: usize = 1024;
