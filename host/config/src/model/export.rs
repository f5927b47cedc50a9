//! An export, checked.

use std::path::PathBuf;

use moirai_scheduler::Contract;

use super::{Net, Volume};
use crate::document::ExportTable;

/// A checked export.
#[derive(Clone, Debug)]
pub struct Export {
    /// Name, unique among exports.
    pub name: String,
    /// Where its socket is; absolute unless the configuration came without a place.
    pub socket: PathBuf,
    /// Unsealed memory is taken.
    pub unsealed_memory: bool,
    /// What stands behind the socket.
    pub device: ExportDevice,
    /// What was written, for showing.
    pub table: ExportTable,
}

/// What stands behind the socket of an export.
#[derive(Clone, Debug)]
pub enum ExportDevice {
    /// A virtio-blk device.
    Volume(Volume),
    /// A virtio-net device.
    Net(Net),
}

impl Export {
    /// Its name beside the names of tenants.
    #[must_use]
    pub fn key(&self) -> String {
        self.table.key()
    }

    /// What it is promised.
    #[must_use]
    pub fn contract(&self) -> Contract {
        match &self.device {
            ExportDevice::Volume(volume) => volume.contract,
            ExportDevice::Net(net) => net.contract,
        }
    }
}
