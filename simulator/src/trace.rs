//! The result as a trace that Perfetto (and chrome://tracing) opens.

use std::fmt::Write as _;

use crate::report::Report;

/// The segments of a report in the JSON trace event format: a process for each resource, a thread
/// for each tenant, a slice for each stretch of service.
#[must_use]
pub fn perfetto(report: &Report) -> String {
    let mut events = Vec::new();
    for (pid, resource) in report.resources.iter().enumerate() {
        events.push(name("process_name", pid, 0, &resource.name));
        for (tid, tenant) in report.tenants.iter().enumerate() {
            events.push(name("thread_name", pid, tid, &tenant.name));
        }
    }
    for segment in &report.segments {
        let service = if segment.guaranteed { "guaranteed" } else { "extra" };
        let length = segment.end.since(segment.start);
        let mut event = String::new();
        let _ = write!(
            event,
            "{{\"ph\":\"X\",\"name\":\"{service}\",\"pid\":{},\"tid\":{},\"ts\":{},\"dur\":{}}}",
            segment.resource,
            segment.tenant,
            micros(segment.start.as_nanos()),
            micros(length.as_nanos())
        );
        events.push(event);
    }
    format!("{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{}\n]}}\n", events.join(",\n"))
}

/// Trace times are in microseconds.
fn micros(time: u64) -> String {
    format!("{}.{:03}", time / 1000, time % 1000)
}

fn name(kind: &str, pid: usize, tid: usize, name: &str) -> String {
    let name = serde_json::Value::from(name);
    format!(
        "{{\"ph\":\"M\",\"name\":\"{kind}\",\"pid\":{pid},\"tid\":{tid},\
         \"args\":{{\"name\":{name}}}}}"
    )
}
