//! `moirai set`: other contracts for a tenant or an export that runs.

use std::path::Path;

use super::args::SetArgs;
use super::{Failure, Status, change, control, export};
use moirai_config::export::KEY_PREFIX;

pub(super) fn run(socket: &Path, args: &SetArgs) -> Result<Status, Failure> {
    let change = change::parse(&args.changes)?;
    match args.name.strip_prefix(KEY_PREFIX) {
        Some(export) => export::set(socket, export, &change, args.report),
        None => control::set(socket, &args.name, &change, args.report),
    }
}
