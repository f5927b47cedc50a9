//! Virtio device models and host I/O backends.
