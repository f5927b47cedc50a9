//! What the tests of the tenant process share: images, and a host that launches them.
#![allow(dead_code, reason = "every test binary uses its own part")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests: constants are small, a panic is a failed test"
)]

pub mod backend;
pub mod image;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moirai_launch::{
    Boot, Child, FromHost, HostChannel, LaunchFds, LaunchSpec, Sandbox, ToHost, Transport,
};

/// The tenant binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_moirai-tenant"))
}

/// A launch of 16 MiB without devices.
pub fn spec() -> LaunchSpec {
    LaunchSpec {
        name: "test".to_owned(),
        memory_bytes: 16 << 20,
        prefault: false,
        huge_pages: false,
        vcpus: 1,
        cmdline: String::new(),
        boot: Boot::Auto,
        initrd: false,
        transport: Transport::Mmio,
        devices: Vec::new(),
        own_devices: Vec::new(),
        sandbox: Sandbox::default(),
    }
}

/// `bytes` as an open file that has no name any more.
pub fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A gate page with this in every word.
pub fn gates(word: u32) -> OwnedFd {
    let gate = moirai_vmm::run::open_gates().unwrap();
    (0..8).for_each(|vcpu| set_gate(&gate, vcpu, word));
    gate
}

/// Writes a word of the gate page and wakes who waits for it, as the CPU dispatcher does.
#[allow(unsafe_code, reason = "maps the page that is shared with the tenant")]
pub fn set_gate(gate: &OwnedFd, vcpu: usize, word: u32) {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let flags = ProtFlags::READ | ProtFlags::WRITE;
    let none = std::ptr::null_mut();
    // SAFETY: a new mapping of a file of one page, unmapped below; the word is inside of it.
    unsafe {
        let page = mmap(none, 4096, flags, MapFlags::SHARED, gate, 0).unwrap();
        let gate = &*page.cast::<AtomicU32>().add(vcpu);
        gate.store(word, Ordering::Release);
        rustix::thread::futex::wake(gate, rustix::thread::futex::Flags::empty(), 1).unwrap();
        munmap(page, 4096).unwrap();
    }
}

/// Sends the gate's signal to a thread of a tenant.
#[allow(unsafe_code, reason = "tgkill has no safe wrapper")]
pub fn signal(pid: u32, tid: i32) {
    // SAFETY: the call takes three numbers.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGRTMIN()) };
    assert_eq!(result, 0);
}

/// Descriptors of a launch without devices, its console nowhere.
pub fn fds(image: File, gate: OwnedFd) -> LaunchFds {
    let (console, _) = UnixStream::pair().unwrap();
    let kvm = moirai_launch::open_kvm().expect("these tests need /dev/kvm");
    LaunchFds {
        kvm,
        image: image.into(),
        console: console.into(),
        gate,
        initrd: None,
        devices: Vec::new(),
        own_devices: Vec::new(),
    }
}

/// Sends a launch message by hand.
pub fn send_launch(host: &HostChannel, spec: &LaunchSpec, fds: &LaunchFds) {
    let fds: Vec<_> = fds.in_order().into_iter().map(AsFd::as_fd).collect();
    host.send(&FromHost::Launch(spec.clone()), &fds).unwrap();
}

/// A tenant process and the host's ends of its sockets.
pub struct Tenant {
    pub child: Child,
    pub console: UnixStream,
}

impl Tenant {
    /// Launches `image` with all gates open.
    pub fn launch(spec: &LaunchSpec, image: File) -> Self {
        Self::launch_with(spec, image, gates(1), Vec::new())
    }

    /// Launches `image` behind `gate` with the sockets of its devices.
    pub fn launch_with(
        spec: &LaunchSpec,
        image: File,
        gate: OwnedFd,
        devices: Vec<OwnedFd>,
    ) -> Self {
        let (console, theirs) = UnixStream::pair().unwrap();
        let kvm = moirai_launch::open_kvm().expect("these tests need /dev/kvm");
        let (initrd, own_devices) = (None, Vec::new());
        let (image, console_end) = (image.into(), theirs.into());
        let fds =
            LaunchFds { kvm, image, console: console_end, gate, initrd, devices, own_devices };
        let child = moirai_launch::spawn(binary(), spec, fds).unwrap();
        let timeout = Some(Duration::from_secs(20));
        console.set_read_timeout(timeout).unwrap();
        rustix::net::sockopt::set_socket_timeout(
            child.control(),
            rustix::net::sockopt::Timeout::Recv,
            timeout,
        )
        .unwrap();
        Self { child, console }
    }

    /// The next message of the tenant.
    pub fn message(&self) -> ToHost {
        self.child.control().receive().expect("the tenant should answer").0
    }

    /// Takes the `Running` message; returns the thread ids of the vCPUs.
    pub fn running(&self) -> Vec<i32> {
        match self.message() {
            ToHost::Running { vcpu_tids, .. } => vcpu_tids,
            other => panic!("expected Running, got {other:?}"),
        }
    }

    /// Reads console output until it contains `text`; returns all of it.
    pub fn expect(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let mut chunk = [0; 256];
            let len = self.console.read(&mut chunk).expect("the guest should print in time");
            assert_ne!(len, 0, "console closed after {:?}", String::from_utf8_lossy(&seen));
            seen.extend(&chunk[..len]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}
