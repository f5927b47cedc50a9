//! Aligned stand-ins for guest buffers that O_DIRECT cannot use.
