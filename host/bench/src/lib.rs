//! What shows that promises are kept: the demo, and receivers that judge a stream.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`demo`] | the promise, and what happens without it |
//! | [`recorder`] | receivers that judge a stream |
//!
//! It asks a host service that runs as a process of its own, as everybody else does.

pub mod demo;
pub mod recorder;
