//! TAPs in the kernel and loopbacks in memory.
