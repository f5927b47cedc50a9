//! An export, checked.

use std::path::PathBuf;

use moirai_scheduler::Contract;

use super::{Net, Volume};
use crate::document::ExportTable;
use crate::holder::Holder;

/// A checked export.
#[derive(Clone, Debug)]
pub struct Export {
    /// Name, unique among exports.
    pub name: String,
    /// Where its socket is; absolute unless the configuration came without a place.
    pub socket: PathBuf,
    /// The most guest memory that its VMM may hand over, in bytes.
    pub memory: u64,
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
    /// It, as one that holds promises.
    #[must_use]
    pub fn holder(&self) -> Holder {
        self.table.holder()
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
