//! Gives back what a tenant held, however it ended.

use super::life::{Event, Step, Turn};
use super::tenant::{Tenant, Vcpu};
use super::{Shared, lock, view};

/// Gives back what the process of a tenant holds, but for its promises.
pub(super) fn give_back_devices(shared: &Shared, tenant: &Tenant) {
    let (vcpus, devices, uid, vsock) = tenant.with(|live| {
        let (vcpus, devices) = (std::mem::take(&mut live.vcpus), std::mem::take(&mut live.devices));
        live.pid = None;
        (vcpus, devices, live.uid.take(), live.vsock.take())
    });
    // These wait for threads, so not under the lock.
    drop(vsock);
    tenant.set_keyboard(None);
    for Vcpu { core, id } in vcpus {
        let detached = shared.resources.dispatcher(core).map(|it| it.detach(id));
        if let Some(Err(error)) = detached {
            tracing::warn!(tenant = tenant.name, %error, "a vCPU was not given back");
        }
    }
    drop(devices);
    if let Some(uid) = uid {
        lock(&shared.uids).remove(&uid);
    }
    shared.state.forget_tenant(&tenant.name);
}

/// A process of the tenant cannot be had: its life ends with that.
pub(super) fn not_begun(shared: &Shared, tenant: &Tenant, why: String) {
    let turn = tenant.with(|live| {
        live.ends(view::failed(why));
        live.life.turn(Event::Gone)
    });
    // Who has ended already has given everything back.
    if turn.step() == Step::GiveBack {
        give_back(shared, tenant, turn);
    }
}

/// Carries out [`Step::GiveBack`] of `turn`: gives back everything that the tenant holds. Its
/// process is gone or never was.
pub(super) fn give_back(shared: &Shared, tenant: &Tenant, turn: Turn) {
    give_back_devices(shared, tenant);
    tenant.console.close();
    let (reason, ok) = tenant.with(|live| {
        live.life.enter(turn);
        // Together with the phase, so that no change is admitted after the release.
        live.admitted = None;
        live.ended_at = Some(moirai_runtime::instant());
        live.end().map_or((String::new(), true), |end| (end.reason.clone(), end.ok))
    });
    if ok {
        tracing::info!(tenant = tenant.name, reason, "ended");
    } else {
        tracing::error!(tenant = tenant.name, reason, "ended");
    }
}
