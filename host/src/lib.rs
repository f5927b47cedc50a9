//! The host service and the `moirai` command.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`config`] | TOML to a checked configuration |
//! | [`admission`] | what is promised, and whether more fits |
//! | [`service`] | starts, changes and ends tenants; owns what they share |
//! | [`api`], [`client`] | REST over a unix socket, both ends |
//! | [`cli`] | the commands |
//! | [`probe`] | what a disk takes for its units, before anything is promised
//! | [`recorder`] | receivers that judge a stream |
//! | [`image`] | makes what tenants boot |
//! | [`demo`] | the promise, and what happens without it |

pub mod api;
pub mod cli;
pub mod demo;
pub mod export;
pub mod image;
pub mod probe;
pub mod recorder;
pub mod service;
