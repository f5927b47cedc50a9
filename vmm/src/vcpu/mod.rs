//! vCPUs: one thread each, which runs the guest and answers its exits.
//!
//! A vCPU thread knows nothing but its KVM descriptor, the [`Machine`] and its gate. It never ends
//! by itself except with a reason for the whole VM to end; the main thread then ends the process.

pub mod cpuid;
pub mod gate;
pub mod state;

use std::io;
use std::sync::Arc;
use std::sync::mpsc;

use kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN;
use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::thread::gettid;

use crate::machine::Machine;
use gate::Gates;
use moirai_launch::ExitReason;

/// vCPU threads call a few levels deep into small functions.
const STACK_BYTES: usize = 256 << 10;

/// Starts the thread of vCPU `index`; returns its thread id. It stands at its gate until that is
/// open. `confine` runs first on the thread, to shut it in.
///
/// # Errors
/// The thread cannot be made, or `confine` failed.
pub fn start(
    index: u8,
    vcpu: VcpuFd,
    machine: Arc<Machine>,
    gates: Gates,
    confine: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<i32> {
    let (ready, is_ready) = mpsc::sync_channel(1);
    let run = move || {
        let confined = confine();
        let failed = confined.is_err();
        // The main thread waits for this message.
        let _ = ready.send(confined.map(|()| gettid().as_raw_nonzero().get()));
        if !failed {
            gates.enter(index);
            let reason = Vcpu { index, vcpu, machine: &machine }.run();
            machine.end(reason);
        }
    };
    std::thread::Builder::new().name(format!("vcpu{index}")).stack_size(STACK_BYTES).spawn(run)?;
    is_ready.recv().map_err(io::Error::other)?
}

struct Vcpu<'a> {
    index: u8,
    vcpu: VcpuFd,
    machine: &'a Machine,
}

impl Vcpu<'_> {
    /// Runs the guest until the VM has a reason to end.
    fn run(mut self) -> ExitReason {
        loop {
            let machine = self.machine;
            let ended = match self.vcpu.run() {
                Ok(VcpuExit::IoOut(port, data)) => machine.port_write(port, data),
                Ok(VcpuExit::IoIn(port, data)) => {
                    machine.port_read(port, data);
                    None
                }
                Ok(VcpuExit::MmioRead(address, data)) => {
                    machine.mmio_read(address, data);
                    None
                }
                Ok(VcpuExit::MmioWrite(address, data)) => {
                    machine.mmio_write(address, data);
                    None
                }
                Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::Hlt) => None,
                Ok(VcpuExit::Shutdown) => Some(self.triple_fault()),
                Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => {
                    Some(ExitReason::PowerOff)
                }
                Ok(VcpuExit::InternalError) => {
                    let error = self.internal_error();
                    Some(self.stuck(error))
                }
                Ok(exit) => {
                    let error = format!("an exit that this VMM does not know: {exit:?}");
                    Some(self.stuck(error))
                }
                // A signal (the gate's) or, on a waiting vCPU, a SIPI: go on.
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => None,
                Err(error) => Some(self.stuck(format!("KVM_RUN: {error}"))),
            };
            if let Some(reason) = ended {
                return reason;
            }
        }
    }

    fn triple_fault(&self) -> ExitReason {
        ExitReason::TripleFault { vcpu: self.index, registers: self.registers() }
    }

    fn stuck(&self, error: String) -> ExitReason {
        ExitReason::InternalError { vcpu: self.index, error, registers: self.registers() }
    }

    #[allow(unsafe_code, reason = "kvm_run is a union; the exit reason names the member")]
    fn internal_error(&mut self) -> String {
        let run = self.vcpu.get_kvm_run();
        // SAFETY: only called after an exit with KVM_EXIT_INTERNAL_ERROR, for which KVM fills
        // `internal`; it is plain data.
        let internal = unsafe { run.__bindgen_anon_1.internal };
        let what = match internal.suberror {
            kvm_bindings::KVM_INTERNAL_ERROR_EMULATION => {
                "cannot interpret an instruction of the guest"
            }
            kvm_bindings::KVM_INTERNAL_ERROR_SIMUL_EX => "met an exception while delivering one",
            kvm_bindings::KVM_INTERNAL_ERROR_DELIVERY_EV => "met an exit while delivering an event",
            _ => "cannot go on",
        };
        let data = internal.data.get(..internal.ndata.min(16) as usize).unwrap_or_default();
        format!("KVM {what} (suberror {}, data {data:x?})", internal.suberror)
    }

    /// The registers that tell most, for a report.
    fn registers(&self) -> String {
        match (self.vcpu.get_regs(), self.vcpu.get_sregs()) {
            (Ok(r), Ok(s)) => format!(
                "rip={:#x} rsp={:#x} rflags={:#x} cs={:#x} ss={:#x} rax={:#x} rbx={:#x} rcx={:#x} \
                 rdx={:#x} rsi={:#x} rdi={:#x} cr0={:#x} cr2={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
                r.rip,
                r.rsp,
                r.rflags,
                s.cs.selector,
                s.ss.selector,
                r.rax,
                r.rbx,
                r.rcx,
                r.rdx,
                r.rsi,
                r.rdi,
                s.cr0,
                s.cr2,
                s.cr3,
                s.cr4,
                s.efer
            ),
            (Err(error), _) | (_, Err(error)) => format!("cannot be read: {error}"),
        }
    }
}
