//! What a tenant process costs beside its guest's memory, as the kernel maps it.

use serde_json::json;

use crate::options::Options;
use crate::report::{Goal, Report};
use crate::server::Server;

const MIB: f64 = 1024.0 * 1024.0;

/// Memory of one process, in bytes, without the mappings of guest memory.
#[derive(Debug, Default)]
struct Memory {
    rss: f64,
    pss: f64,
    private_dirty: f64,
}

/// Looks at a tenant with a volume and an interface, launched by the host service.
pub(crate) fn measure(report: &mut Report, options: &Options) {
    let mut server = Server::start();
    std::fs::write(server.folder().join("small.img"), vec![0; 1 << 20]).expect("a volume");
    let devices = "[[tenant.disk]]\ndisk = \"disk\"\nvolume = \"small.img\"\nreadonly = true\n\
                   [[tenant.net]]\nlink = \"link\"\n";
    let (mut rss, mut pss, mut dirty) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.pairs {
        let tenant = server.launch("thrash", "mode=read depth=1 size=4096", devices);
        tenant.settle();
        let name = tenant.name.clone();
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", tenant.pid()));
        let memory = Memory::of(&smaps.expect("a tenant's memory map"), &name);
        rss.push(memory.rss / MIB);
        pss.push(memory.pss / MIB);
        dirty.push(memory.private_dirty / MIB);
    }
    report.fact("tenant_memory_mib", json!({"rss": rss, "pss": pss, "private_dirty": dirty}));
    report.figure("tenant process without guest RAM, Pss", "MiB", pss, Goal::AtMost(2.0));
    report.figure("  of it its own: private and dirty", "MiB", dirty, Goal::None);
    report.figure("  with all of its shared pages: Rss", "MiB", rss, Goal::AtMost(2.0));
}

impl Memory {
    /// Adds up `/proc/PID/smaps`, without the memory of the guest of this name.
    fn of(smaps: &str, tenant: &str) -> Self {
        let mut memory = Self::default();
        let guest = format!("/memfd:moirai:{tenant} (deleted)");
        let mut counts = true;
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let (Some(first), second) = (words.next(), words.next()) else { continue };
            if !first.ends_with(':') {
                counts = !line.ends_with(&guest);
                continue;
            }
            let kib = second.and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
            let sum = match first {
                "Rss:" => &mut memory.rss,
                "Pss:" => &mut memory.pss,
                "Private_Dirty:" => &mut memory.private_dirty,
                _ => continue,
            };
            if counts {
                *sum += kib * 1024.0;
            }
        }
        assert!(memory.rss > 0.0, "a memory map without memory: {smaps}");
        memory
    }
}
