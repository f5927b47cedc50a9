//! What the threads of a running host service may do, compared with the table of docs/security.md.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it unwraps")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use moirai_tests::{Host, core, root, said};

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    program: String,
    threads: String,
    powers: String,
}

impl Row {
    fn is_about(&self, program: &str, thread: &str) -> bool {
        let named = match self.threads.strip_suffix('*') {
            Some(begin) => thread.starts_with(begin),
            None => thread == self.threads,
        };
        named && self.program == program
    }
}

fn table() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let plain = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
        let [_, program, threads, powers, _, _, _, _] = cells.as_slice() else { return None };
        Some(Row {
            program: plain(program)?,
            threads: plain(threads)?,
            powers: (*powers).to_owned(),
        })
    });
    rows.collect()
}

/// What the kernel says of a thread.
#[derive(Clone, Debug)]
struct Seen {
    place: PathBuf,
    program: String,
    thread: String,
    status: BTreeMap<String, String>,
}

impl Seen {
    /// `None` if the thread has ended.
    fn read(place: &Path, program: &str) -> Option<Self> {
        let thread = fs::read_to_string(place.join("comm")).ok()?.trim_end().to_owned();
        let text = fs::read_to_string(place.join("status")).ok()?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let status = fields.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect();
        Some(Self { place: place.to_owned(), program: program.to_owned(), thread, status })
    }

    fn what_is_wrong(&self, table: &[Row]) -> Option<String> {
        let row = table.iter().find(|row| row.is_about(&self.program, &self.thread));
        let named = format!("{} of {}", self.thread, self.program);
        let Some(row) = row else { return Some(format!("{named} is not in the table")) };
        let said = |key: &str| self.status.get(key).map(String::as_str).unwrap_or_default();
        let zero = "0000000000000000";
        let bounding = if self.program == "moirai" { "0000000000a055e2" } else { zero };
        let expected = [
            ("Seccomp", "2"),
            ("NoNewPrivs", "1"),
            ("CapEff", row.powers.as_str()),
            ("CapPrm", row.powers.as_str()),
            ("CapInh", zero),
            ("CapAmb", zero),
            ("CapBnd", bounding),
        ];
        let differs = expected.iter().find(|(key, value)| said(key) != *value);
        differs.map(|(key, value)| format!("{named}: {key} is {}, not {value}", said(key)))
    }
}

/// All threads of a process and of those that it has spawned.
fn threads(pid: u32) -> Vec<Seen> {
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        let child = parent.trim() == pid.to_string();
        (child || entry.file_name() == *pid.to_string()).then(|| entry.path())
    });
    let of = |process: PathBuf| {
        let program = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let tasks = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        let seen = tasks.filter_map(|task| Seen::read(&task.path(), program.trim_end()));
        seen.collect::<Vec<_>>()
    };
    processes.flat_map(of).collect()
}

/// What is wrong with all threads of a host service. One that was seen before it had entered its
/// role is looked at once more.
fn look(host: &Host, table: &[Row], met: &mut BTreeSet<Row>) -> Vec<String> {
    let mut wrong = Vec::new();
    for seen in threads(host.pid()) {
        met.extend(table.iter().find(|row| row.is_about(&seen.program, &seen.thread)).cloned());
        if seen.what_is_wrong(table).is_some() {
            std::thread::sleep(Duration::from_millis(100));
            let again = Seen::read(&seen.place, &seen.program);
            wrong.extend(again.and_then(|seen| seen.what_is_wrong(table)));
        }
    }
    wrong
}

/// A tenant with a card, a vsock, a plain volume and an image, that writes to the latter.
fn tenants(host: &Host) -> String {
    fs::write(host.folder().join("plain.img"), vec![0; 16 << 20]).unwrap();
    let image = host.folder().join("image.qcow2");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("64M");
    assert!(create.status().expect("qemu-img is installed").success());
    let core = core();
    let contract = "period = \"10ms\"\nslice = \"1ms\"\nextra = true";
    format!(
        "[[tenant]]\nname = \"writes\"\nimage = \"thrash\"\nargs = \"mode=write depth=4 \
         size=65536\"\nmemory = \"64M\"\nprefault = true\ncore = {core}\n\
         cpu = {{ period = \"20ms\", slice = \"2ms\", extra = true }}\n\
         [[tenant.disk]]\ndisk = \"disk\"\nvolume = \"image.qcow2\"\nformat = \
         \"qcow2\"\n{contract}\n\
         [[tenant]]\nname = \"reads\"\nimage = \"thrash\"\nargs = \"mode=mixed depth=8 \
         size=1048576\"\nmemory = \"64M\"\ncore = {core}\nvsock = {{ cid = 3 }}\n\
         cpu = {{ period = \"20ms\", slice = \"2ms\", extra = true }}\n\
         [[tenant.disk]]\ndisk = \"disk\"\nvolume = \"plain.img\"\n{contract}\n\
         [[tenant]]\nname = \"echo\"\nimage = \"echo\"\nargs = \"ip=10.77.0.2/24 port=7\"\n\
         memory = \"16M\"\ncore = {core}\ncpu = {{ period = \"20ms\", slice = \"1ms\" }}\n\
         [[tenant.net]]\nlink = \"link\"\n{contract}\n"
    )
}

fn exports(host: &Host) -> String {
    fs::write(host.folder().join("given.img"), vec![0; 1 << 20]).unwrap();
    "[[export]]\nname = \"given\"\nsocket = \"given.sock\"\n[export.disk]\ndisk = \"disk\"\n\
     volume = \"given.img\"\nperiod = \"10ms\"\nslice = \"1ms\"\n"
        .to_owned()
}

#[test]
fn every_thread_of_a_host_service_has_what_the_table_says_and_no_more() {
    let table = table();
    assert!(table.len() > 15, "{table:?}");
    let host = Host::start();
    let mut met = BTreeSet::new();
    assert_eq!(look(&host, &table, &mut met), Vec::<String>::new());
    let text = host.folder().join("tenants.toml");
    fs::write(&text, tenants(&host)).unwrap();
    let given = host.folder().join("exports.toml");
    fs::write(&given, exports(&host)).unwrap();
    // Seen while tenants come, run and go: some threads live for milliseconds.
    std::thread::scope(|scope| {
        let launched = scope.spawn(|| {
            let launched = host.ask(&["launch", &text.to_string_lossy()]);
            let exported = host.ask(&["export", &given.to_string_lossy()]);
            (said(&launched), launched.status.success(), said(&exported), exported.status.success())
        });
        while !launched.is_finished() {
            assert_eq!(look(&host, &table, &mut met), Vec::<String>::new());
        }
        let (launched, runs, exported, given) = launched.join().unwrap();
        assert!(runs && given, "{launched}\n{exported}\n{}", host.log());
    });
    let _ = host.report("writes", "report");
    let _ = host.report("reads", "report");
    // The kernel's workers and who maps memory come and go.
    let come_and_go = ["populate", "unmap", "iou-wrk-*"];
    let steady = |row: &&Row| !come_and_go.contains(&row.threads.as_str());
    let mut left = Vec::new();
    for _ in 0..10 {
        assert_eq!(look(&host, &table, &mut met), Vec::<String>::new());
        left = table.iter().filter(steady).filter(|row| !met.contains(*row)).collect();
    }
    assert!(left.is_empty(), "nobody like {left:?} was met");
    let part = &host.json(&["show", "writes"]);
    assert_eq!(part["phase"], "running");
    assert!(host.ask(&["stop", "reads"]).status.success());
    assert_eq!(look(&host, &table, &mut met), Vec::<String>::new());
    println!("met: {met:#?}");
}
