//! Two links in memory, each receives what the other sends, for tests.
