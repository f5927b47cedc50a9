//! Whole conversations over a socketpair.
