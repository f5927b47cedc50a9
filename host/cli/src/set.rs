//! `moirai set`: other contracts for a tenant or an export that runs.

use std::path::Path;

use super::args::SetArgs;
use super::{Failure, Status, change, control, export};
use moirai_config::Holder;

pub(super) fn run(socket: &Path, args: &SetArgs) -> Result<Status, Failure> {
    let change = change::parse(&args.changes)?;
    match Holder::from(args.name.as_str()) {
        Holder::Export(name) => export::set(socket, &name, &change, args.report),
        Holder::Tenant(name) => control::set(socket, &name, &change, args.report),
    }
}
