//! Two looks at a tenant under load, and what happened between them.

use std::time::Duration;

use serde_json::Value;

use crate::server::Tenant;

/// What happened in a stretch of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// How long it was, in seconds.
    pub(crate) seconds: f64,
    /// Requests or packets of the device that were served.
    pub(crate) completed: f64,
    /// CPU time of the tenant's process (its virtual CPU is a thread of it), in seconds.
    pub(crate) tenant_cpu: f64,
    /// CPU time of the host service, in seconds.
    pub(crate) host_cpu: f64,
    /// Of it: the I/O domain's thread.
    pub(crate) domain_cpu: f64,
}

impl Load {
    /// Measures a tenant's device of this kind (`disk`, `link`) for `time`.
    pub(crate) fn of(tenant: &Tenant<'_>, kind: &str, time: Duration) -> Self {
        let before = Self::now(tenant, kind);
        std::thread::sleep(time);
        Self::now(tenant, kind).since(before)
    }

    /// Everything counted from the start.
    fn now(tenant: &Tenant<'_>, kind: &str) -> Self {
        let server = tenant.server();
        let stats = server.stats();
        let part = part(&stats, &tenant.name, kind);
        Self {
            seconds: seconds(&stats["now_ns"]),
            completed: part["completed"].as_f64().unwrap_or_default(),
            tenant_cpu: cpu_seconds(tenant.pid()),
            host_cpu: cpu_seconds(server.pid()),
            domain_cpu: seconds(&stats["domains"][0]["cpu_ns"]),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            seconds: self.seconds - before.seconds,
            completed: self.completed - before.completed,
            tenant_cpu: self.tenant_cpu - before.tenant_cpu,
            host_cpu: self.host_cpu - before.host_cpu,
            domain_cpu: self.domain_cpu - before.domain_cpu,
        }
    }

    /// Served per second.
    pub(crate) fn rate(&self) -> f64 {
        self.completed / self.seconds
    }

    /// How busy the two threads of the data path were: what limits it.
    pub(crate) fn busy(&self) -> String {
        format!(
            "the tenant's process used {:.0}% of a core, the I/O domain {:.0}%",
            self.tenant_cpu / self.seconds * 100.0,
            self.domain_cpu / self.seconds * 100.0
        )
    }
}

fn part(stats: &Value, tenant: &str, kind: &str) -> Value {
    let tenants = stats["tenants"].as_array().into_iter().flatten();
    let mut parts = tenants
        .filter(|stats| stats["name"] == tenant)
        .flat_map(|stats| stats["parts"].as_array().into_iter().flatten());
    let of_kind = |part: &&Value| {
        part["resource"].as_str().is_some_and(|name| name.split('/').next() == Some(kind))
    };
    parts.find(of_kind).cloned().unwrap_or_else(|| panic!("{tenant} has no {kind}: {stats}"))
}

fn seconds(nanos: &Value) -> f64 {
    nanos.as_f64().unwrap_or_default() / 1e9
}

/// CPU time of all threads of a process that live, as the scheduler counts it, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let threads = threads.filter_map(|thread| Some(thread.ok()?.path().join("schedstat")));
    threads.filter_map(|path| run_seconds(&std::fs::read_to_string(path).ok()?)).sum()
}

/// CPU time of this thread, in seconds.
pub(crate) fn own_cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat");
    text.ok().and_then(|text| run_seconds(&text)).unwrap_or_default()
}

/// The first number is the time on a core, in nanoseconds.
fn run_seconds(schedstat: &str) -> Option<f64> {
    Some(schedstat.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}
