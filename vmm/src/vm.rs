//! Builds a VM from a launch message and its descriptors: memory, image, devices, vCPU threads.
#![allow(unsafe_code, reason = "kvm-ioctls takes a raw descriptor")]

use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use kvm_bindings::{KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use moirai_abi::machine::SERIAL_GSI;
use vmm_sys_util::eventfd::EventFd;

use crate::boot::{self, Entry, ImageError};
use crate::console::{Console, IrqLine, SerialPort};
use crate::error::{BuildError, kvm_error, system_error};
use crate::event;
use crate::interrupts::Interrupts;
use crate::machine::Machine;
use crate::memory::{GuestRam, MemoryOptions};
use crate::own::{self, Balloon};
use crate::power::PowerButton;
use crate::sandbox;
use crate::vcpu::gate::Gates;
use crate::vcpu::{self, cpuid, state};
use crate::virtio::Device;
use crate::virtio::device::{Bus, Place};
use moirai_launch::{LaunchFds, LaunchSpec, Transport};

/// Three pages below the BIOS that KVM wants on Intel hosts; no device and no RAM is there.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// A running VM.
#[derive(Debug)]
pub struct Vm {
    /// Ports and devices.
    pub machine: Arc<Machine>,
    /// Thread ids of the vCPUs.
    pub vcpu_tids: Vec<i32>,
    /// The console socket, for input.
    pub console: OwnedFd,
    /// Signalled when console output waits to settle.
    pub console_wake: EventFd,
    /// Signalled when the machine has ended.
    pub end_event: EventFd,
    /// Memory that the guest gives back, if it has that device.
    pub balloon: Option<Balloon>,
    /// For guests that can hear it.
    power_button: Option<PowerButton>,
    vm: Arc<VmFd>,
    /// Kept until the process ends: KVM and the backends work on it.
    _memory: GuestRam,
}

impl Vm {
    /// Presses the power button, if there is one and the guest listens to it. Returns whether.
    #[must_use]
    pub fn press_power_button(&self) -> bool {
        self.power_button.as_ref().is_some_and(|button| button.press(&self.vm))
    }
}

/// Builds the VM; its vCPU threads stand at their gates when this returns.
///
/// # Errors
/// The first step that failed; nothing of the VM then runs.
pub fn build(spec: &LaunchSpec, fds: LaunchFds) -> Result<Vm, BuildError> {
    let gates = Gates::map(&fds.gate).map_err(system_error("map the gate page"))?;
    // SAFETY: the descriptor is open and given away; that it is /dev/kvm is for the host to see
    // to, and anything else only fails its ioctls.
    let kvm = unsafe { Kvm::from_raw_fd(fds.kvm.into_raw_fd()) };
    let vm = Arc::new(kvm.create_vm().map_err(kvm_error("create the VM"))?);
    let options = MemoryOptions {
        size_bytes: spec.memory_bytes,
        prefault: spec.prefault,
        huge_pages: spec.huge_pages,
    };
    let memory = GuestRam::new(&spec.name, options)?;
    // Memory comes before the interrupt controllers: behind their creation a memory slot waits for
    // a grace period of the kernel, 5 ms on the development machine.
    memory.register(&vm)?;
    vm.set_tss_address(TSS_ADDRESS).map_err(kvm_error("set the TSS address"))?;
    vm.create_irq_chip().map_err(kvm_error("create the interrupt controllers"))?;
    disable_pmu(&vm);
    let entry = load(spec, fds.image, fds.initrd, &memory)?;

    let new_event = || event::new().map_err(system_error("make an eventfd"));
    let console_wake = new_event()?;
    let (serial, console) = serial(&vm, fds.console, &console_wake)?;
    let end_event = new_event()?;
    let machine_end = end_event.try_clone().map_err(system_error("clone an eventfd"))?;
    let power_button = (!entry.in_ring3()).then(|| PowerButton::new(&vm)).transpose()?;
    let interrupts = Arc::new(Interrupts::new(Arc::clone(&vm)));
    let sockets = (fds.devices, fds.own_devices);
    let (devices, balloon) = devices(spec, sockets, &interrupts, &memory, entry)?;
    let machine = Arc::new(Machine::new(serial, devices, spec.transport, machine_end));

    let vcpus = create_vcpus(&kvm, &vm, spec.vcpus, entry)?;
    let confined = spec.sandbox.enabled;
    let mut vcpu_tids = Vec::new();
    for (index, vcpu) in (0..).zip(vcpus) {
        let confine = move || if confined { sandbox::confine_vcpu() } else { Ok(()) };
        let started = vcpu::start(index, vcpu, Arc::clone(&machine), gates, confine);
        vcpu_tids.push(started.map_err(system_error("start a vCPU thread"))?);
    }
    Ok(Vm {
        machine,
        vcpu_tids,
        console,
        console_wake,
        end_event,
        balloon,
        power_button,
        vm,
        _memory: memory,
    })
}

/// Counters of the processor are the host's. KVM before 5.18 cannot switch them off; CPUID hides
/// them in any case.
fn disable_pmu(vm: &VmFd) {
    let capability = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        args: [u64::from(KVM_PMU_CAP_DISABLE), 0, 0, 0],
        ..Default::default()
    };
    let _ = vm.enable_cap(&capability);
}

fn load(
    spec: &LaunchSpec,
    image: OwnedFd,
    initrd: Option<OwnedFd>,
    memory: &GuestRam,
) -> Result<Entry, ImageError> {
    let (image, initrd) = (File::from(image), initrd.map(File::from));
    let guest = boot::Guest {
        image: &image,
        initrd: initrd.as_ref(),
        boot: spec.boot,
        cmdline: &spec.cmdline,
        vcpus: spec.vcpus,
        transport: spec.transport,
        devices: spec.devices.len() + spec.own_devices.len(),
    };
    boot::load(&guest, &memory.map)
}

fn serial(vm: &VmFd, socket: OwnedFd, wake: &EventFd) -> Result<(SerialPort, OwnedFd), BuildError> {
    let line = event::new().map_err(system_error("make an eventfd"))?;
    vm.register_irqfd(&line, SERIAL_GSI).map_err(kvm_error("connect the serial interrupt"))?;
    let input = socket.try_clone().map_err(system_error("clone the console socket"))?;
    let wake = wake.try_clone().map_err(system_error("clone an eventfd"))?;
    Ok((SerialPort::new(IrqLine(line), Console::new(socket, wake)), input))
}

/// The devices that others serve, then those that this process does.
fn devices(
    spec: &LaunchSpec,
    (sockets, own_fds): (Vec<OwnedFd>, Vec<OwnedFd>),
    interrupts: &Arc<Interrupts>,
    memory: &GuestRam,
    entry: Entry,
) -> Result<(Vec<Device>, Option<Balloon>), BuildError> {
    let count = u32::try_from(spec.devices.len() + spec.own_devices.len()).unwrap_or(0);
    let first_gsi = match spec.transport {
        Transport::Mmio => interrupts
            .windows(entry.in_ring3(), count)
            .map_err(kvm_error("route the interrupts"))?,
        Transport::Pci => 0,
    };
    let place = |index: usize| Place {
        index,
        bus: match spec.transport {
            Transport::Mmio => {
                Bus::Mmio(first_gsi.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)))
            }
            Transport::Pci => Bus::Pci,
        },
        interrupts: Arc::clone(interrupts),
        memory: memory.map.clone(),
    };
    let confined = spec.sandbox.enabled;
    let confine = move || if confined { sandbox::confine_own() } else { Ok(()) };
    let own = own::start(&spec.own_devices, own_fds, &Arc::new(memory.map.clone().into()), confine)
        .map_err(system_error("start the thread of the process's own devices"))?;
    let others = spec.devices.iter().zip(sockets).enumerate();
    let others =
        others.map(|(index, (device, socket))| (index, Device::new(place(index), device, socket)));
    let ours = (spec.devices.len()..).zip(own.attachments).map(|(index, attachment)| {
        let own::Attachment { spec, backend, events } = attachment;
        (index, Device::with_backend(place(index), &spec, backend, events))
    });
    let all = others.chain(ours);
    let all =
        all.map(|(index, device)| device.map_err(|error| BuildError::Device { index, error }));
    Ok((all.collect::<Result<_, _>>()?, own.balloon))
}

fn create_vcpus(kvm: &Kvm, vm: &VmFd, count: u8, entry: Entry) -> Result<Vec<VcpuFd>, BuildError> {
    let template = cpuid::Template::new(kvm, count).map_err(kvm_error("ask for CPUID"))?;
    (0..count)
        .map(|index| {
            let create = || {
                let vcpu = vm.create_vcpu(index.into())?;
                vcpu.set_cpuid2(&template.for_vcpu(index, vcpu.get_tsc_khz()?)?)?;
                if index == 0 {
                    state::boot(&vcpu, entry)?;
                } else {
                    state::wait_for_sipi(&vcpu)?;
                }
                Ok(vcpu)
            };
            create().map_err(|error| BuildError::Vcpu { index, error })
        })
        .collect()
}
