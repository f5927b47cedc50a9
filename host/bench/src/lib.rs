//! What shows that promises are kept: the demo, and receivers that judge a stream.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`demo`] | the promise, and what happens without it |
//! | [`driver`] | a host service under test: how it begins, is asked, and ends |
//! | [`recorder`] | receivers that judge a stream |
//!
//! It asks a host service that runs as a process of its own, as everybody else does.

pub mod demo;
pub mod driver;
pub mod recorder;
