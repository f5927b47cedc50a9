//! `moirai probe disk`: measures a disk of a configuration, before anything is promised on it.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::args::{ProbeCommand, ProbeDiskArgs};
use super::{Failure, Status, report};
use crate::disk_probe::{self, ProbeError};

pub(super) fn run(socket: &Path, command: &ProbeCommand) -> Result<Status, Failure> {
    match command {
        ProbeCommand::Disk(args) => disk(socket, args),
    }
}

fn disk(socket: &Path, args: &ProbeDiskArgs) -> Result<Status, Failure> {
    let config = moirai_config::load(&args.config).map_err(|bad| Failure::bad(&bad))?;
    let Some(disk) = config.disks.iter().find(|disk| disk.name == args.name) else {
        let names: Vec<_> = config.disks.iter().map(|disk| disk.name.as_str()).collect();
        let (name, names) = (&args.name, names.join(", "));
        let message = format!("there is no disk {name:?} in the configuration; it has: {names}");
        return Err(Failure::new(Status::Bad, message));
    };
    let served = [socket, &config.host.socket].iter().any(|it| UnixStream::connect(it).is_ok());
    if served {
        // Whoever cannot read it is measured all the same.
        let _ = writeln!(
            std::io::stderr(),
            "moirai: a host service is running: this disturbs its tenants, and they disturb the \
             figures"
        );
    }
    let time = Duration::from_secs(u64::from(args.seconds));
    let measured = disk_probe::probe(&disk.path, disk.depth, time)?;
    report(&measured, args.report.json)
}

impl From<ProbeError> for Failure {
    fn from(error: ProbeError) -> Self {
        Self::new(Status::Failed, error)
    }
}
