//! What the loop can be asked, as it goes through the mailbox.

use moirai_devices::backend::Volume;
use moirai_scheduler::{Account, Contract};

use crate::{BlkSpec, DeviceId, DomainSnapshot, IoDomainError, NetSpec, Peer};

pub(crate) type Reply<T> = moirai_runtime::Reply<Result<T, IoDomainError>>;

#[derive(Debug)]
pub(crate) enum Command<St = Volume> {
    AttachBlk(DeviceId, Box<BlkSpec<St>>, Reply<()>),
    AttachNet(DeviceId, Box<NetSpec>, Reply<()>),
    Change(DeviceId, Contract, Reply<()>),
    Connect(DeviceId, Peer, Reply<()>),
    Detach(DeviceId, Reply<Account>),
    Snapshot(moirai_runtime::Reply<DomainSnapshot>),
    End,
}
