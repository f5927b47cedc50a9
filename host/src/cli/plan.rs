//! `moirai plan`: admission only.

use super::args::FileArgs;
use super::{Failure, Status, report};
use crate::{admission, config};

pub(super) fn run(args: &FileArgs) -> Result<Status, Failure> {
    let config = config::load(&args.file).map_err(|bad| Failure::bad(&bad))?;
    let plan = admission::plan::plan(&config);
    report(&plan, args.report.json)?;
    Ok(if plan.admitted { Status::Done } else { Status::Refused })
}
