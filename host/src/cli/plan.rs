//! `moirai plan`: admission only.

use std::io::Write;

use super::args::PlanArgs;
use super::{Failure, Status, report, write_file};
use crate::{admission, config, service};

pub(super) fn run(args: &PlanArgs) -> Result<Status, Failure> {
    let config = config::load_for_this_host(&args.file).map_err(|bad| Failure::bad(&bad))?;
    let plan = match args.explain {
        true => admission::plan::explain(&config),
        false => admission::plan::plan(&config),
    };
    if let Some(path) = &args.svg {
        write_file(path, &admission::plan::draw(&config))?;
    }
    for problem in service::realtime_problems(&config) {
        // Of this machine, where it need not run; and nobody reads standard error if this fails.
        let _ = writeln!(
            std::io::stderr(),
            "moirai: warning: on this machine {}; {}",
            problem.message,
            problem.help
        );
    }
    report(&plan, args.report.json)?;
    Ok(if plan.admitted { Status::Done } else { Status::Refused })
}
