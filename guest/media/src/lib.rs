//! MPEG transport streams and RTP, as a streaming application needs them: what a packet's header
//! is, when it is due, which bytes of a film it carries. No I/O and no clock: bytes and times are
//! arguments, so everything is tested on the host.
#![cfg_attr(not(test), no_std)]
