//! Volumes, TAPs and their stand-ins, on the real kernel.
