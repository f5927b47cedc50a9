//! `moirai explain`: what is promised to one tenant, of a running host service or of a
//! configuration.

use std::path::Path;

use super::args::ExplainArgs;
use super::control::path;
use super::{Failure, Status, report};
use moirai_api::client::Client;
use moirai_config::Holder;
use moirai_config::admission::plan::plan;
use moirai_config::admission::promise::Promises;
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
    let holder = Holder::from(name);
    let promises = match &holder {
        Holder::Export(name) => {
            let export = config.exports.iter().find(|export| export.name == *name)?;
            Promises::to_export(config, export)
        }
        Holder::Tenant(name) => {
            let tenant = config.tenants.iter().find(|tenant| tenant.name == *name)?;
            Promises::to_tenant(config, tenant)
        }
    };
    let plan = plan(config);
    let answer = plan.tenants.iter().find(|answer| answer.name == holder)?;
    Some(promises.as_planned(answer))
}

fn of_host(socket: &Path, name: &str) -> Result<Promises, Failure> {
    let path = match Holder::from(name) {
        Holder::Export(export) => path("exports", &export)?,
        Holder::Tenant(tenant) => path("tenants", &tenant)?,
    };
    Ok(Client::new(socket)?.get(&format!("{path}/explain"))?)
}
