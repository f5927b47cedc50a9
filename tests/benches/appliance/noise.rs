//! The machine's noise floor: how late a timer of the highest real-time priority is while nothing
//! of ours runs, and how much time the hypervisor below took (steal). The host service measures
//! both all the time; here it does nothing else.

use serde_json::json;

use crate::options::Options;
use crate::report::Report;
use crate::server::Server;

/// Measures for the length of one run; `when` says where in the benchmark this is.
pub(crate) fn measure(report: &mut Report, when: &str, options: &Options) {
    let server = Server::start();
    std::thread::sleep(options.run);
    let noise = server.stats()["noise"].clone();
    drop(server);
    let micro = |name: &str| noise[name].as_f64().unwrap_or(f64::NAN) / 1000.0;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    report.note(format!(
        "noise floor {when}: timer late by {:.0} us (p50), {:.0} us (p99), {:.0} us (max); steal \
         {:.0} us in {:.0} s; load average {}",
        micro("late_p50_ns"),
        micro("late_p99_ns"),
        micro("late_max_ns"),
        micro("steal_ns"),
        options.run.as_secs_f64(),
        load.join(" ")
    ));
    report.fact(&format!("noise_floor_{when}"), json!({"timer": noise, "load_average": load}));
}
