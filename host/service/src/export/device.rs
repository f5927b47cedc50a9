//! The device of an export: its files and socket before admission, its place in an I/O domain after
//! it.

use std::os::unix::net::UnixStream;

use moirai_devices::backend::Volume;

use crate::launch::FilesInUse;
use crate::open::{open_volume, remark, unusable};
use crate::sockets::ExportSocket;
use crate::{ServiceError, Shared};
use moirai_config::Problem;
use moirai_config::export::{Export as Spec, ExportDevice};
use moirai_io::{BlkSpec, DeviceId, IoDomainError, NetSpec};

/// What is had before admission, so that something missing costs nobody anything.
pub(super) struct Opened {
    pub(super) socket: ExportSocket,
    pub(super) volume: Option<Volume>,
}

/// A file that somebody writes belongs to one volume only.
pub(super) fn shared_files(
    mut used: FilesInUse,
    specs: &[Spec],
    opened: &[Opened],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, (spec, opened)) in specs.iter().zip(opened).enumerate() {
        let mut conflict = None;
        for (file, written) in opened.volume.iter().flat_map(Volume::files) {
            match used.get(&file) {
                Some((user, theirs)) if written || *theirs => conflict = Some(user.clone()),
                _ => drop(used.insert(file, (spec.holder(), written))),
            }
        }
        if let Some(user) = conflict {
            problems.push(Problem {
                path: format!("export[{index}].disk.volume"),
                message: format!("the volume is in use by {user}"),
                help: "give each its own, or let all of them only read it: readonly = true"
                    .to_owned(),
            });
        }
    }
    problems
}

pub(super) fn open(spec: &Spec, index: usize) -> Result<Opened, Problem> {
    let volume = match &spec.device {
        ExportDevice::Volume(volume) => {
            let opened = open_volume(volume)
                .map_err(|error| unusable(&error, volume, &format!("export[{index}].disk")))?;
            remark(&opened, &spec.holder(), volume);
            Some(opened)
        }
        ExportDevice::Net(_) => None,
    };
    let socket = ExportSocket::bind(&spec.socket).map_err(|error| Problem {
        path: format!("export[{index}].socket"),
        message: error.to_string(),
        help: "name a path at which this user may make a socket and nobody else has one".to_owned(),
    })?;
    Ok(Opened { socket, volume })
}

/// Attaches the device without a peer: one end of a pair whose other end is closed.
pub(super) fn attach(
    shared: &Shared,
    spec: &Spec,
    opened: Option<Volume>,
) -> Result<(String, DeviceId), ServiceError> {
    let gone = || ServiceError::IoDomain(IoDomainError::Gone);
    let setup = |error| ServiceError::IoDomain(IoDomainError::Setup(error));
    let (socket, _) = UnixStream::pair().map_err(setup)?;
    let (tenant, contract) = (spec.holder().to_string(), spec.contract());
    match (&spec.device, opened) {
        (ExportDevice::Volume(volume), Some(opened)) => {
            let disk = shared.config.disks.get(volume.disk).ok_or_else(gone)?;
            let domain = shared.resources.domain(&disk.group).ok_or_else(gone)?;
            let disk_name = disk.name.clone();
            let attached = BlkSpec {
                tenant,
                disk: disk_name,
                volume: opened,
                queues: volume.queues,
                contract,
                bandwidth: volume.bandwidth,
                socket,
            };
            let id = domain.attach_blk(attached)?;
            Ok((disk.group.clone(), id))
        }
        (ExportDevice::Net(net), _) => {
            let link = shared.config.links.get(net.link).ok_or_else(gone)?;
            let domain = shared.resources.domain(&link.group).ok_or_else(gone)?;
            let link_name = link.name.clone();
            let attached = NetSpec {
                tenant,
                link: link_name,
                mac: net.mac,
                pairs: net.queues,
                contract,
                socket,
            };
            let id = domain.attach_net(attached)?;
            Ok((link.group.clone(), id))
        }
        (ExportDevice::Volume(_), None) => Err(gone()),
    }
}

pub(super) fn detach(shared: &Shared, spec: &Spec, group: &str, id: DeviceId) {
    if let Some(Err(error)) = shared.resources.domain(group).map(|domain| domain.detach(id)) {
        tracing::warn!(export = spec.name, %error, "a device was not given back");
    }
}
