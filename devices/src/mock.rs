//! The driver's side of a split virtqueue, for tests.
