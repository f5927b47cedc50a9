//! What a configuration names and this machine does not have, for `moirai plan`: looked at, never
//! opened. What may not be looked at is not said. The host service finds the same when it opens
//! things, in the same words; it does so in `open.rs`, `state.rs` and `api/server.rs`.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use moirai_config::Problem;
use moirai_config::export::ExportDevice;
use moirai_config::files::pasted;
use moirai_config::model::{Config, Tenant, Volume, VolumeKind};
use moirai_devices::backend::VolumeError;

use super::{check_memory, open};

/// What stands in the way of a host service here, each at its place.
#[must_use]
pub fn found_problems(config: &Config) -> Vec<Problem> {
    let mut problems: Vec<_> = check_memory(config).err().into_iter().collect();
    problems.extend(state_dir(&config.host.state_dir));
    problems.extend(socket(&config.host.socket));
    problems.extend(config.host.metrics.and_then(metrics));
    for (index, tenant) in config.tenants.iter().enumerate() {
        of_tenant(tenant, &format!("tenant[{index}]"), &mut problems);
    }
    for (index, export) in config.exports.iter().enumerate() {
        problems.extend(folder_of_export(&export.socket, &format!("export[{index}].socket")));
        if let ExportDevice::Volume(it) = &export.device {
            problems.extend(volume(it, &format!("export[{index}].disk")));
        }
    }
    problems
}

/// Cores that serve tenants and I/O: no reason to refuse, but seldom meant.
#[must_use]
pub fn core_remark(config: &Config) -> Option<Problem> {
    let core = config.host.io_core.filter(|core| config.host.cores.contains(core))?;
    Some(Problem {
        path: "host.io_core".to_owned(),
        message: format!("core {core} serves tenants and I/O: requests wait while a tenant runs"),
        help: "name a core for I/O that is not in `cores`".to_owned(),
    })
}

fn of_tenant(tenant: &Tenant, at: &str, problems: &mut Vec<Problem>) {
    problems.extend(open::look_at_boot(tenant, at));
    for (index, it) in tenant.volumes.iter().enumerate() {
        problems.extend(volume(it, &format!("{at}.disk[{index}]")));
    }
}

fn volume(volume: &Volume, at: &str) -> Option<Problem> {
    let files = match &volume.kind {
        VolumeKind::Striped { files, .. } => files.as_slice(),
        VolumeKind::Raw | VolumeKind::Qcow2 { .. } => std::slice::from_ref(&volume.path),
    };
    let error = files.iter().find_map(|path| unusable(path))?;
    Some(open::unusable(&error, volume, at))
}

fn unusable(path: &Path) -> Option<VolumeError> {
    let name = || path.display().to_string();
    let there = match fs::metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Some(VolumeError::Missing(name()));
        }
        Err(_) => return None,
    };
    let kind = there.file_type();
    if kind.is_file() && there.len() == 0 {
        return Some(VolumeError::Empty(name()));
    }
    (!kind.is_file() && !kind.is_block_device()).then(|| VolumeError::NotAVolume(name()))
}

/// A folder that is there, or can be made: all that is there on the way to it are folders.
fn state_dir(path: &Path) -> Option<Problem> {
    let (there, found) = path.ancestors().find_map(|it| Some((it, fs::metadata(it).ok()?)))?;
    (!found.is_dir()).then(|| Problem {
        path: "host.state_dir".to_owned(),
        message: format!("{} is no folder", there.display()),
        help: "name a folder that is there or can be made".to_owned(),
    })
}

/// An address of this machine. Who has the port now may have ended by then.
fn metrics(address: SocketAddr) -> Option<Problem> {
    let bound = TcpListener::bind((address.ip(), 0));
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable).then(|| Problem {
        path: "host.metrics".to_owned(),
        message: format!("{} is no address of this machine", address.ip()),
        help: "write for example \"127.0.0.1:9100\"".to_owned(),
    })
}

/// Nobody makes the folder of an export's socket.
fn folder_of_export(socket: &Path, at: &str) -> Option<Problem> {
    let folder = socket.parent()?;
    let missing = fs::metadata(folder).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    missing.then(|| Problem {
        path: at.to_owned(),
        message: format!("there is no folder {}", folder.display()),
        help: format!("make it: `mkdir -p {}`", pasted(folder)),
    })
}

fn socket(path: &Path) -> Option<Problem> {
    let kind = fs::symlink_metadata(path).ok()?.file_type();
    (!kind.is_socket()).then(|| Problem {
        path: "host.socket".to_owned(),
        message: format!("{} is there and is no socket", path.display()),
        help: "remove it, or choose another `socket`".to_owned(),
    })
}
