//! `launch`, `list`, `show`, `stop`, and `set` of a tenant: one request each.

use std::fmt::{self, Write};
use std::path::Path;

use hyper::Method;
use serde::Serialize;

use super::args::{FileArgs, NameArgs, ReportArgs, StopArgs};
use super::change::in_its_syntax;
use super::{Failure, Status, print, print_json, report};
use moirai_api::client::{Client, ClientError};
use moirai_api::{Change, ErrorKind, Launch};
use moirai_api::{ExportView, Phase, TenantView};
use moirai_config::Holder;
use moirai_config::document::SpoofingName;
use moirai_config::units::Size;
use moirai_config::{self, MAX_STOP_AFTER, Report};

pub(super) fn launch(socket: &Path, args: &FileArgs) -> Result<Status, Failure> {
    let (text, document) = moirai_config::read(&args.file).map_err(|bad| Failure::bad(&bad))?;
    let file = args.file.display().to_string();
    if document.tenant.is_empty() {
        let what = format!("{file} has no [[tenant]]: there is nothing to launch");
        return Err(Failure::new(Status::Bad, what));
    }
    if !document.disk.is_empty() || !document.link.is_empty() {
        eprintln!(
            "{file}: its disks and links are for `moirai host`; the one that runs has its own"
        );
    }
    let tenants: Vec<TenantView> = Client::new(socket)?
        .send(Method::POST, "/v1/tenants", &Launch { tenant: document.tenant })
        .map_err(|error| match error {
            // Paths mean the same in the request as in the file, so the lines can be shown.
            ClientError::Refused(body) if body.kind == ErrorKind::Bad => {
                let problems = body.problems;
                Failure::bad(&Report::locate(&file, &text, problems))
            }
            other => other.into(),
        })?;
    report(&List(&tenants), args.report.json)?;
    let why = |tenant: &TenantView| Some((tenant.name.clone(), tenant.failure()?.to_owned()));
    let failed: Vec<_> = tenants.iter().filter_map(why).collect();
    let said = failed.iter().map(|(name, why)| format!("tenant {name:?} has failed: {why}"));
    match failed.as_slice() {
        [] => Ok(Status::Done),
        _ => Err(Failure::new(Status::Failed, said.collect::<Vec<_>>().join("\n"))),
    }
}

pub(super) fn list(socket: &Path, args: ReportArgs) -> Result<Status, Failure> {
    let tenants: Vec<TenantView> = Client::new(socket)?.get("/v1/tenants")?;
    report(&List(&tenants), args.json)
}

pub(super) fn show(socket: &Path, args: &NameArgs) -> Result<Status, Failure> {
    let (client, path) = (Client::new(socket)?, path("tenants", &args.name)?);
    let tenant: TenantView = client.get(&path).map_err(|error| hint(&client, &args.name, error))?;
    show_one(&tenant, args.report.json)
}

pub(super) fn set(
    socket: &Path,
    name: &str,
    change: &Change,
    args: ReportArgs,
) -> Result<Status, Failure> {
    let (client, path) = (Client::new(socket)?, path("tenants", name)?);
    let tenant: TenantView = client
        .send(Method::PATCH, &path, change)
        .map_err(|error| hint(&client, name, in_its_syntax(error)))?;
    show_one(&tenant, args.json)
}

pub(super) fn stop(socket: &Path, args: &StopArgs) -> Result<Status, Failure> {
    let path = path("tenants", &args.tenant.name)?;
    let path = if args.now { format!("{path}?now=true") } else { path };
    let client = Client::new(socket)?.with_more_patience(MAX_STOP_AFTER);
    let name = &args.tenant.name;
    let stopped = client.send(Method::DELETE, &path, &());
    let tenant: TenantView = stopped.map_err(|error| hint(&client, name, error))?;
    show_one(&tenant, args.tenant.report.json)
}

/// The failure, with a hint where what is no tenant is an export.
pub(super) fn hint(client: &Client, name: &str, error: ClientError) -> Failure {
    let unknown = matches!(&error, ClientError::Refused(body) if body.kind == ErrorKind::Unknown);
    let failure = Failure::from(error);
    // It is a hint only: who has no exports to tell of is not asked again.
    let exports = unknown.then(|| client.get::<Vec<ExportView>>("/v1/exports"));
    let exports = exports.and_then(Result::ok).unwrap_or_default();
    if !exports.iter().any(|export| export.name == name) {
        return failure;
    }
    let message = format!("{}; {}", failure.message, an_export(name));
    Failure::new(failure.status, message)
}

fn an_export(name: &str) -> String {
    format!(
        "{name} is an export: `moirai exports` shows it, `moirai unexport {name}` ends it, `moirai \
         set {} KEY=VALUE` changes it",
        Holder::Export(name.to_owned())
    )
}

/// The path of a tenant or an export. A name that none can have is refused here.
pub(super) fn path(kind: &str, name: &str) -> Result<String, Failure> {
    let holder = Holder::from(name);
    let name = match (kind, &holder) {
        ("tenants", Holder::Export(export)) => {
            return Err(Failure::new(Status::Bad, an_export(export)));
        }
        // Where exports stand beside tenants they are called so.
        ("exports", Holder::Export(export)) => export,
        _ => name,
    };
    if name.is_empty() || !name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)) {
        return Err(Failure::new(Status::Bad, format!("no {kind} can have the name {name:?}")));
    }
    Ok(format!("/v1/{kind}/{name}"))
}

/// Shows a tenant; the status says whether it has failed.
fn show_one(tenant: &TenantView, json: bool) -> Result<Status, Failure> {
    let shown = if json { print_json(tenant) } else { print(details(tenant)) }?;
    Ok(if tenant.failure().is_some() { Status::TenantFailed } else { shown })
}

/// Where a tenant is in its life, for people: whether it has failed matters more to them than that
/// it has ended.
fn phase(tenant: &TenantView) -> &'static str {
    match tenant.phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Ended if tenant.failure().is_some() => "failed",
        Phase::Ended => "ended",
    }
}

/// An interface that may send from all addresses is shown as that.
pub(super) const ALLOW: Option<SpoofingName> = Some(SpoofingName::Allow);

/// A list of tenants, one on a line.
#[derive(Serialize)]
#[serde(transparent)]
struct List<'a>(&'a [TenantView]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:<9} {:>4}  {:<24} WHY", "NAME", "PHASE", "CORE", "CPU")?;
        for tenant in self.0 {
            let why = tenant.end.as_ref().map_or("", |end| end.reason.as_str());
            let (phase, cpu) = (phase(tenant), tenant.cpu.to_string());
            writeln!(f, "{:<20} {phase:<9} {:>4}  {cpu:<24} {why}", tenant.name, tenant.core)?;
            let mut nets = tenant.table.net.iter().zip(&tenant.net);
            while let Some((_, device)) = nets.find(|(net, _)| net.spoofing == ALLOW) {
                writeln!(f, "    {}: spoofing: allow", device.resource)?;
            }
            if !tenant.because.is_empty() && tenant.failure().is_none() {
                writeln!(f, "    not kept: {}", tenant.because)?;
            }
        }
        Ok(())
    }
}

fn details(tenant: &TenantView) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key:<10} {value}");
    };
    line("name", &tenant.name);
    line("phase", phase(tenant));
    if let Some(end) = &tenant.end {
        line("because", &end.reason);
    }
    if let Some(pid) = tenant.pid {
        let uid = tenant.uid.map_or_else(String::new, |uid| format!(", user {uid}"));
        line("process", &format!("{pid}{uid}"));
    }
    let boots = tenant.table.boots().map(|path| path.display().to_string());
    let kind = if tenant.table.kernel.is_some() { "kernel" } else { "image" };
    line(kind, &boots.unwrap_or_default());
    match tenant.cores.as_slice() {
        [core] => line("cpu", &format!("{} on core {core}", tenant.cpu)),
        cores => line("cpu", &format!("{} on each of the cores {cores:?}", tenant.cpu)),
    }
    if !tenant.because.is_empty() && tenant.failure().is_none() {
        line("not kept", &tenant.because);
    }
    if let Some(balloon) = &tenant.balloon {
        let (actual, target) = (Size(balloon.actual_bytes), Size(balloon.target_bytes));
        line("balloon", &format!("{actual} given back of {target} asked for"));
    }
    if tenant.restarts > 0 {
        line("restarts", &tenant.restarts.to_string());
    }
    for device in tenant.disk.iter().chain(&tenant.net) {
        line(&device.resource, &format!("{}  {}", device.contract, device.what));
        if let Some(why) = &device.failed {
            line("  failed", why);
        }
    }
    for missing in &tenant.sandbox_missing {
        line("warning", missing);
    }
    text
}
