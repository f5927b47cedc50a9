//! `moirai plan`: admission only.

use std::io::Write;

use super::args::PlanArgs;
use super::{Failure, Status, chart, report, shown, write_file};
use moirai_config::{Config, Problem, Report, admission};
use moirai_service as service;

pub(super) fn run(args: &PlanArgs) -> Result<Status, Failure> {
    let (text, config) =
        moirai_config::load_for_this_host(&args.file).map_err(|bad| Failure::bad(&bad))?;
    let plan = match args.explain {
        true => admission::plan::explain(&config),
        false => admission::plan::plan(&config),
    };
    if let Some(path) = &args.svg {
        write_file(path, &chart::draw(&admission::plan::charts(&config)))?;
    }
    warn(&config, &args.file.display().to_string(), &text);
    report(&plan, args.report.json)?;
    Ok(if plan.admitted { Status::Done } else { Status::Refused })
}

/// Says what a host service would refuse here. It need not run here, so that the answer stays the
/// same.
fn warn(config: &Config, file: &str, text: &str) {
    // Nobody reads standard error if writing there fails.
    let mut to = std::io::stderr();
    for problem in service::realtime_problems(config) {
        let Problem { message, help, .. } = problem;
        let _ = writeln!(to, "moirai: warning: on this machine {message}; {help}");
    }
    if let Some(remark) = service::core_remark(config) {
        let remark = Report::locate(file, text, vec![remark]);
        let _ = write!(to, "moirai: warning\n{}", shown(&remark));
    }
    let mut problems = service::core_problems(config);
    problems.extend(service::found_problems(config));
    problems.extend(service::link_problems(config));
    if !problems.is_empty() {
        let found = Report::locate(file, text, problems);
        let _ = write!(
            to,
            "moirai: warning: on this machine `moirai host` refuses this\n{}",
            shown(&found)
        );
    }
}
