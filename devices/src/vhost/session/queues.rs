//! The part of the protocol that is about memory and queues: what each request requires and
//! changes, and when a queue starts or stops because of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserMemory, VhostUserMemoryRegion, VhostUserVringAddr, VhostUserVringState,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::{Answer, Session};
use crate::vhost::eventfd::is_eventfd;
use crate::vhost::inflight::{self, Description};
use crate::vhost::memory::{Limits, MemoryTable};
use crate::vhost::vring::VringAddresses;
use crate::vhost::wire::Message;
use crate::vhost::{Event, SessionError, Vring};

/// Memory tables of one session that may be mapped at the same time: the latest, and those that
/// requests in flight keep. Each holds as many files as the peer likes.
const MOST_TABLES: usize = 8;

impl Session {
    /// Whether there may be no further memory table now.
    pub(in crate::vhost) fn is_crowded(&mut self) -> bool {
        if self.tables.len() >= MOST_TABLES {
            self.tables.retain(|table| table.strong_count() > 0);
        }
        self.tables.len() >= MOST_TABLES
    }

    pub(in crate::vhost) fn set_mem_table(
        &mut self,
        message: &mut Message,
    ) -> Result<Answer, SessionError> {
        let (table, mut rest): (VhostUserMemory, _) = message.head()?;
        let count = usize::try_from(table.num_regions).unwrap_or(usize::MAX);
        let region_len = size_of::<VhostUserMemoryRegion>();
        if count == 0 || rest.len() != count.saturating_mul(region_len) {
            let expected = count.saturating_mul(region_len).saturating_add(8);
            let got = message.payload().len();
            return Err(SessionError::WrongSize { request: message.request, got, expected });
        }
        let mut regions = Vec::with_capacity(count);
        while let Some((bytes, tail)) = rest.split_at_checked(region_len) {
            let Some(region) = vm_memory::ByteValued::from_slice(bytes) else { break };
            regions.push(*region);
            rest = tail;
        }
        let files = message.take_files(count)?;
        if self.table.as_ref().is_some_and(|table| table.is_of(&regions, &files)) {
            return Ok(Answer::Ack);
        }
        let table = MemoryTable::map(&regions, files, self.limits())?;
        self.tables.push(Arc::downgrade(&table.guest));
        for vring in &mut self.vrings {
            vring.locate(Some(&table))?;
            vring.revalidate()?;
        }
        self.events.push(Event::Memory(Arc::clone(&table.guest)));
        self.table = Some(table);
        self.refresh_all()
    }

    pub(in crate::vhost) fn set_vring_num(
        &mut self,
        state: VhostUserVringState,
    ) -> Result<Answer, SessionError> {
        self.idle_vring(state.index, FrontendReq::SET_VRING_NUM)?.set_size(state.num)?;
        Ok(Answer::Ack)
    }

    pub(in crate::vhost) fn set_vring_addr(
        &mut self,
        body: VhostUserVringAddr,
    ) -> Result<Answer, SessionError> {
        let index = body.index;
        let vring = usize::try_from(index).ok().and_then(|index| self.vrings.get_mut(index));
        let vring = vring.ok_or(SessionError::NoSuchQueue(index))?;
        vring.set_addresses(VringAddresses {
            descriptors: body.descriptor,
            available: body.available,
            used: body.used,
        });
        vring.locate(self.table.as_ref())?;
        vring.revalidate()?;
        self.refresh_all()
    }

    pub(in crate::vhost) fn set_vring_base(
        &mut self,
        state: VhostUserVringState,
    ) -> Result<Answer, SessionError> {
        let base = u16::try_from(state.num).map_err(|_| SessionError::BadValue {
            request: FrontendReq::SET_VRING_BASE.into(),
            value: u64::from(state.num),
        })?;
        self.idle_vring(state.index, FrontendReq::SET_VRING_BASE)?.set_base(base);
        Ok(Answer::Ack)
    }

    pub(in crate::vhost) fn get_vring_base(
        &mut self,
        state: VhostUserVringState,
    ) -> Result<Answer, SessionError> {
        let vring = self.vring(state.index)?;
        let index =
            u16::try_from(state.index).map_err(|_| SessionError::NoSuchQueue(state.index))?;
        if !vring.drain() {
            let base = u32::from(vring.base());
            return Ok(Answer::Reply(vring_state(index, base)));
        }
        self.awaited = Some(index);
        self.events.push(Event::QueueStopped { index, drain: true });
        Ok(Answer::Later)
    }

    pub(in crate::vhost) fn set_vring_enable(
        &mut self,
        state: VhostUserVringState,
    ) -> Result<Answer, SessionError> {
        let enabled = match state.num {
            0 => false,
            1 => true,
            value => {
                let request = FrontendReq::SET_VRING_ENABLE.into();
                return Err(SessionError::BadValue { request, value: value.into() });
            }
        };
        self.vring(state.index)?.set_enabled(enabled);
        self.refresh_all()
    }

    pub(in crate::vhost) fn set_vring_kick(
        &mut self,
        message: &mut Message,
    ) -> Result<Answer, SessionError> {
        let (index, eventfd) = self.vring_file(message)?;
        let vring = self.vring(index.into())?;
        vring.set_kick(eventfd.ok_or(SessionError::NoKick(index))?);
        if vring.is_running() {
            self.events.push(Event::QueueKickChanged { index });
        }
        self.refresh_all()
    }

    /// The queue index and eventfd of a KICK, CALL or ERR message; bit 8 says that there is none.
    pub(in crate::vhost) fn vring_file(
        &mut self,
        message: &mut Message,
    ) -> Result<(u16, Option<OwnedFd>), SessionError> {
        let value = message.u64()?;
        let request = message.request;
        if value > 0x1ff {
            return Err(SessionError::BadValue { request, value });
        }
        let index = u16::try_from(value & 0xff).unwrap_or(u16::MAX);
        self.vring(index.into())?;
        let mut files = message.take_files(usize::from(value & 0x100 == 0))?;
        let Some(file) = files.pop() else { return Ok((index, None)) };
        if !is_eventfd(&file) {
            return Err(SessionError::NotEventfd(index));
        }
        Ok((index, Some(file)))
    }

    /// The peer wants memory in which requests in flight are noted.
    pub(in crate::vhost) fn get_inflight(
        &mut self,
        message: &Message,
    ) -> Result<Answer, SessionError> {
        let asked = self.inflight_description(message)?;
        let (made, file) =
            inflight::create(asked.num_queues, asked.queue_size).map_err(SessionError::Socket)?;
        Ok(Answer::File(made.to_bytes(message.payload().len()), file))
    }

    /// The peer hands that memory back, perhaps to another process than the one that made it.
    pub(in crate::vhost) fn set_inflight(
        &mut self,
        message: &mut Message,
    ) -> Result<Answer, SessionError> {
        let given = self.inflight_description(message)?;
        let request = message.request;
        let running = (0..).zip(&self.vrings).find(|(_, vring)| vring.is_started());
        if let Some((index, _)) = running {
            return Err(SessionError::QueueRunning { index, request });
        }
        let limits = self.limits();
        let file = message.take_files(1)?.pop();
        let file = file.ok_or(SessionError::WrongFiles { request, got: 0, expected: 1 })?;
        let logs = inflight::map(&given, file, limits)?;
        for (vring, log) in self.vrings.iter_mut().zip(logs) {
            vring.set_log(log);
        }
        Ok(Answer::Ack)
    }

    fn inflight_description(&self, message: &Message) -> Result<Description, SessionError> {
        let (request, payload) = (message.request, message.payload());
        let wrong = SessionError::WrongSize { request, got: payload.len(), expected: 20 };
        let given = Description::parse(payload).ok_or(wrong)?;
        let Description { num_queues, queue_size, .. } = given;
        if !(1..=self.profile.queues).contains(&num_queues) {
            return Err(SessionError::BadValue { request, value: num_queues.into() });
        }
        if !(1..=self.profile.max_queue_size).contains(&queue_size) {
            return Err(SessionError::BadValue { request, value: queue_size.into() });
        }
        Ok(given)
    }

    fn limits(&self) -> Limits {
        Limits {
            max_bytes: self.profile.max_memory_bytes,
            allow_unsealed: self.profile.allow_unsealed_memory,
        }
    }

    pub(in crate::vhost) fn vring(&mut self, index: u32) -> Result<&mut Vring, SessionError> {
        let vring = usize::try_from(index).ok().and_then(|index| self.vrings.get_mut(index));
        vring.ok_or(SessionError::NoSuchQueue(index))
    }

    fn idle_vring(&mut self, index: u32, request: FrontendReq) -> Result<&mut Vring, SessionError> {
        let vring = self.vring(index)?;
        match (u16::try_from(index), vring.is_started()) {
            (Ok(index), true) => Err(SessionError::QueueRunning { index, request: request.into() }),
            _ => Ok(vring),
        }
    }

    /// Starts and stops queues according to what is known of them now.
    pub(in crate::vhost) fn refresh_all(&mut self) -> Result<Answer, SessionError> {
        let features = self.features();
        for (index, vring) in (0..).zip(&mut self.vrings) {
            if !vring.refresh(features)? {
                continue;
            }
            if vring.is_running() && features >> VIRTIO_F_VERSION_1 & 1 == 0 {
                return Err(SessionError::LegacyDriver);
            }
            self.events.push(match vring.is_running() {
                true => Event::QueueStarted { index },
                false => Event::QueueStopped { index, drain: false },
            });
        }
        Ok(Answer::Ack)
    }
}

pub(in crate::vhost) fn vring_state(index: u16, num: u32) -> Vec<u8> {
    [u32::from(index).to_ne_bytes(), num.to_ne_bytes()].concat()
}
