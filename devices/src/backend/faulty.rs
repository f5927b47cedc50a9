//! A volume or link that fails on purpose, for tests.
