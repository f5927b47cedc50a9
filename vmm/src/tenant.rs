//! The life of a tenant process: receive the launch, shut itself in, build the VM, then serve the
//! control socket and the console until the machine ends.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::console::SerialPort;
use crate::error::TenantError;
use crate::sandbox;
use crate::supervisor::Supervisor;
use crate::vm::{self, Vm};
use moirai_launch::{CONTROL_FD, FromHost, LaunchFds, SpecError, Stage, TenantChannel, ToHost};

/// Serves the control socket that [`moirai_launch::spawn`] left as descriptor 3.
///
/// # Errors
/// As [`serve`].
#[allow(unsafe_code, reason = "a descriptor that was inherited has to be taken by its number")]
pub fn from_spawn() -> Result<ExitCode, TenantError> {
    // SAFETY: nothing has been opened or closed yet, so the number means the same all the while; if
    // it is not open, asking for its type fails.
    let inherited = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
    if !matches!(socket_type(inherited), Ok(SocketType::SEQPACKET)) {
        return Err(TenantError::NoControl);
    }
    // SAFETY: it is open, and by the contract of the seam ours; nobody else in this process uses
    // it.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    moirai_sandbox::close_inherited(CONTROL_FD.unsigned_abs() + 1);
    end_on_panic();
    serve(&TenantChannel::new(control))?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the process when any thread panics: a VM without one of its vCPUs would stand still, and
/// nobody would know why.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(101);
    }));
}

/// Serves one launch that comes over `control`, until the VM has ended and the host has been told.
///
/// # Errors
/// The host has been told what could be told to it.
pub fn serve(control: &TenantChannel) -> Result<(), TenantError> {
    // Without a host there is nobody to answer to. That the host is gone already shows as the end
    // of the control socket.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let vm = match launch(control) {
        Ok((vm, missing)) => {
            let vcpu_tids = vm.vcpu_tids.clone();
            control.send(&ToHost::Running { vcpu_tids, missing }, &[])?;
            vm
        }
        Err(error) => {
            let (stage, hint) = match &error {
                TenantError::Build(build) => (build.stage(), build.hint()),
                TenantError::Sandbox(_) => {
                    (Stage::Sandbox, "run the host service as root, or launch without a user")
                }
                _ => (Stage::Spec, "start this process from the host service"),
            };
            let (error_text, hint) = (error.to_string(), hint.to_owned());
            control.send(&ToHost::Failed { stage, error: error_text, hint }, &[])?;
            return Err(error);
        }
    };
    let reason = Supervisor::new(&vm, control).run()?;
    let settle = |serial: &mut SerialPort| {
        serial.writer_mut().settle();
        serial.writer().dropped_bytes()
    };
    // A vCPU that stands at its gate may hold the lock; then its last output is lost.
    let console_dropped_bytes = vm.machine.try_serial(settle).unwrap_or(0);
    control.send(&ToHost::Exited { reason, console_dropped_bytes }, &[])?;
    Ok(())
}

fn launch(control: &TenantChannel) -> Result<(Vm, Vec<String>), TenantError> {
    let (message, fds) = control.receive()?;
    let FromHost::Launch(spec) = message else { return Err(TenantError::NotALaunch) };
    let build_error = |e: SpecError| TenantError::Build(e.into());
    spec.validate().map_err(build_error)?;
    let fds = LaunchFds::from_vec(fds, &spec).map_err(build_error)?;
    let confined = spec.sandbox.enabled;
    let missing = sandbox::enter(&spec.sandbox)?;
    let vm = vm::build(&spec, fds)?;
    if confined {
        sandbox::confine_main()?;
    }
    Ok((vm, missing))
}
