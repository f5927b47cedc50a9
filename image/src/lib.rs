//! The image process: imago, the library that reads qcow2, in a program of its own. There is one
//! process for each image that a host service serves.
//!
//! ```text
//! main --> confine (no name spaces, users, calls of its own)
//!      --> serve  --> layers --> storage --> the files, as they came
//!                 |              +-> late (the order of what is written)
//!                 --> core   --> arena
//! ```
//!
//! It parses what a stranger wrote, so it may break, and nothing else breaks with it: a panic, a
//! stack that overflows or memory without end is the end of this process and an error of one
//! volume. What it answers, the host service checks (`moirai_devices::backend::qcow2`).

mod arena;
pub mod confine;
mod core;
mod late;
mod layers;
mod serve;
mod storage;

pub use serve::{ServeError, serve};
