//! The tenant process: one VM, its memory, its vCPUs, its console, and the virtio transports that
//! lead to the host's I/O domain.
//!
//! The host service uses [`launch`] only; everything else runs inside `moirai-tenant`.

pub mod launch;
