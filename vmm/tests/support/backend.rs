//! A vhost-user backend that serves no queue but remembers what it was told, on the protocol
//! implementation of the vhost crate: an independent peer for ours.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
};

/// As many queues as a device may have.
pub const MAX_QUEUES: u16 = 16;

/// What the frontend has said.
#[derive(Debug, Default)]
pub struct Heard {
    pub features: u64,
    pub regions: Vec<(u64, u64, u64)>,
    pub memory: Vec<File>,
    pub num: Vec<(u32, u32)>,
    pub addresses: Vec<(u32, u64, u64, u64)>,
    pub enabled: Vec<u32>,
    pub kicks: Vec<(u8, File)>,
    pub calls: Vec<(u8, File)>,
    pub error: Option<File>,
    pub stopped: Vec<u32>,
}

/// The backend, and its notes, which the test shares.
pub struct Backend(pub Arc<Mutex<Heard>>);

/// Serves `stream` on a thread until the frontend or `shutdown` of the stream ends it.
pub fn serve(stream: UnixStream) -> (Arc<Mutex<Heard>>, JoinHandle<()>) {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let backend = Arc::new(Mutex::new(Backend(Arc::clone(&heard))));
    let thread = std::thread::spawn(move || {
        let mut handler = BackendReqHandler::from_stream(stream, backend);
        while handler.handle_request().is_ok() {}
    });
    (heard, thread)
}

impl Backend {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.0.lock().unwrap()
    }
}

impl VhostUserBackendReqHandlerMut for Backend {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        // VERSION_1, PROTOCOL_FEATURES, EVENT_IDX, and two that must not be passed on: packed
        // ring and notification data.
        Ok(1 << 32 | 1 << 30 | 1 << 29 | 1 << 34 | 1 << 38)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.heard().features = features;
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let region = |r: &VhostUserMemoryRegion| (r.guest_phys_addr, r.memory_size, r.mmap_offset);
        self.heard().regions = regions.iter().map(region).collect();
        self.heard().memory = files;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.heard().num.push((index, num));
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        self.heard().addresses.push((index, descriptor, available, used));
        Ok(())
    }

    fn set_vring_base(&mut self, _: u32, _: u32) -> Result<()> {
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.heard().stopped.push(index);
        Ok(VhostUserVringState::new(index, 0))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.heard().kicks.push((index, fd.ok_or(Error::InvalidParam)?));
        Ok(())
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.heard().calls.push((index, fd.ok_or(Error::InvalidParam)?));
        Ok(())
    }

    fn set_vring_err(&mut self, _: u8, fd: Option<File>) -> Result<()> {
        self.heard().error = fd;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::MQ)
    }

    fn set_protocol_features(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(MAX_QUEUES.into())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        assert!(enable);
        self.heard().enabled.push(index);
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok((offset..offset + size).map(|at| at.to_le_bytes()[0]).collect())
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("read only"))
    }

    fn reset_owner(&mut self) -> Result<()> {
        unused()
    }

    fn reset_device(&mut self) -> Result<()> {
        unused()
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        unused()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        unused()
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        unused()
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        unused()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        unused()
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<u64>> {
        unused()
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        unused()
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        unused()
    }

    fn check_device_state(&mut self) -> Result<()> {
        unused()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unused()
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        unused()
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::InvalidOperation("not a request of our frontend"))
}
