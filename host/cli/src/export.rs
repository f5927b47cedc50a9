//! `export`, `exports`, `unexport`, and `set` of an export: devices for VMMs that are not ours.

use std::fmt;
use std::path::Path;

use hyper::Method;
use serde::Serialize;

use super::args::{FileArgs, NameArgs, ReportArgs};
use super::control::ALLOW;
use super::{Failure, Status, print, print_json, report};
use moirai_api::client::{Client, ClientError};
use moirai_api::{Change, ExportView};
use moirai_api::{ErrorKind, Exports};
use moirai_config::{self, Report};

pub(super) fn start(socket: &Path, args: &FileArgs) -> Result<Status, Failure> {
    let (text, document) = moirai_config::read(&args.file).map_err(|bad| Failure::bad(&bad))?;
    let file = args.file.display().to_string();
    let exports: Vec<ExportView> = Client::new(socket)?
        .send(Method::POST, "/v1/exports", &Exports { export: document.export })
        .map_err(|error| match error {
            // Paths mean the same in the request as in the file, so the lines can be shown.
            ClientError::Refused(body) if body.kind == ErrorKind::Bad => {
                Failure::bad(&Report::locate(&file, &text, body.problems))
            }
            other => other.into(),
        })?;
    report(&List(&exports), args.report.json)
}

pub(super) fn list(socket: &Path, args: ReportArgs) -> Result<Status, Failure> {
    let exports: Vec<ExportView> = Client::new(socket)?.get("/v1/exports")?;
    report(&List(&exports), args.json)
}

pub(super) fn end(socket: &Path, args: &NameArgs) -> Result<Status, Failure> {
    let path = super::control::path("exports", &args.name)?;
    let export: ExportView = Client::new(socket)?.send(Method::DELETE, &path, &())?;
    show_one(&export, args.report)
}

pub(super) fn set(
    socket: &Path,
    name: &str,
    change: &Change,
    args: ReportArgs,
) -> Result<Status, Failure> {
    let path = super::control::path("exports", name)?;
    let changed = Client::new(socket)?.send(Method::PATCH, &path, change);
    let export: ExportView = changed.map_err(super::change::in_its_syntax)?;
    show_one(&export, args)
}

fn show_one(export: &ExportView, args: ReportArgs) -> Result<Status, Failure> {
    if args.json { print_json(export) } else { print(List(std::slice::from_ref(export))) }
}

/// A list of exports, one on a line.
#[derive(Serialize)]
#[serde(transparent)]
struct List<'a>(&'a [ExportView]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:<14} {:<26} {:<10} SOCKET", "NAME", "RESOURCE", "CONTRACT", "PEER")?;
        for export in self.0 {
            let ExportView { name, socket, peer, device, .. } = export;
            let contract = device.contract.to_string();
            let peer = peer.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            writeln!(f, "{name:<16} {:<14} {contract:<26} {peer:<10} {socket}", device.resource)?;
            let net = export.table.net.as_ref();
            if net.is_some_and(|net| net.spoofing == ALLOW) {
                writeln!(f, "    spoofing: allow")?;
            }
            if let Some(why) = &device.failed {
                writeln!(f, "    failed: {why}")?;
            }
            if !export.because.is_empty() {
                writeln!(f, "    not kept: {}", export.because)?;
            }
        }
        Ok(())
    }
}
