//! The host service and the moirai command.
