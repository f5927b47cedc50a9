//! Small guests on real KVM, through the same door that the host service uses.

mod support;

use moirai_vmm::launch::{Boot, Ended, ExitReason, ToHost};
use support::image::{Code, Notes, image};
use support::{Tenant, file, spec};

fn exit_reason(tenant: &Tenant) -> ExitReason {
    match tenant.message() {
        ToHost::Exited { reason, .. } => reason,
        other => panic!("expected Exited, got {other:?}"),
    }
}

#[test]
fn a_ring_3_guest_prints_and_powers_off() {
    let code = Code::default().print("hello\n").power_off();
    let mut tenant = Tenant::launch(&spec(), file(&image(&code.0, Notes::Ring3)));
    assert_eq!(tenant.running().len(), 1);
    assert_eq!(tenant.expect("\n"), "hello\n");
    assert_eq!(exit_reason(&tenant), ExitReason::PowerOff);
    assert_eq!(tenant.child.wait().unwrap(), Ended::Exited(0));
}

#[test]
fn a_pvh_guest_prints_and_resets() {
    let code = Code::default().print("hi\n").out(0x64, 0xfe).spin();
    let spec = moirai_vmm::launch::LaunchSpec { boot: Boot::Pvh, ..spec() };
    let mut tenant = Tenant::launch(&spec, file(&image(&code.0, Notes::Both)));
    tenant.running();
    assert_eq!(tenant.expect("\n"), "hi\n");
    assert_eq!(exit_reason(&tenant), ExitReason::Reset);
}
