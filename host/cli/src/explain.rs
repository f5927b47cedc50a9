//! `moirai explain`: what is promised to one tenant, of a running host service or of a
//! configuration.

use std::path::Path;

use super::args::ExplainArgs;
use super::control::path;
use super::{Failure, Status, report};
use moirai_api::client::Client;
use moirai_config::admission::plan::plan;
use moirai_config::admission::promise::Promises;
use moirai_config::export::KEY_PREFIX;
use moirai_config::{self, Config};

pub(super) fn run(socket: &Path, args: &ExplainArgs) -> Result<Status, Failure> {
    let promises = match &args.config {
        Some(file) => {
            let (_, config) =
                moirai_config::load_for_this_host(file).map_err(|bad| Failure::bad(&bad))?;
            of_config(&config, &args.name).ok_or_else(|| {
                let (name, file) = (&args.name, file.display());
                Failure::new(Status::Bad, format!("there is no tenant named {name:?} in {file}"))
            })?
        }
        None => of_host(socket, &args.name)?,
    };
    report(&promises, args.report.json)?;
    Ok(if promises.refused { Status::Refused } else { Status::Done })
}

/// What a host would promise that starts all of `config`.
fn of_config(config: &Config, name: &str) -> Option<Promises> {
    let promises = if name.starts_with(KEY_PREFIX) {
        let export = config.exports.iter().find(|export| export.key() == name)?;
        Promises::to_export(config, export)
    } else {
        let tenant = config.tenants.iter().find(|tenant| tenant.name == name)?;
        Promises::to_tenant(config, tenant)
    };
    let plan = plan(config);
    let answer = plan.tenants.iter().find(|answer| answer.name == name)?;
    Some(promises.as_planned(answer))
}

fn of_host(socket: &Path, name: &str) -> Result<Promises, Failure> {
    let path = match name.strip_prefix(KEY_PREFIX) {
        Some(export) => path("exports", export)?,
        None => path("tenants", name)?,
    };
    Ok(Client::new(socket)?.get(&format!("{path}/explain"))?)
}
