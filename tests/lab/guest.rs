//! A small Linux tenant (`guest-init`) under a host service, driven by its serial console as a
//! person would: a test reads its output and types commands.
//!
//! `moirai console` copies the output into a file beside the host's; input goes to the API.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use moirai_tests::{Host, moirai_binary, root, wait_for};

/// Boot takes about 6 s in the lab, with eight at once a minute, on a busy machine far more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// How a tenant is to be built.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// `vmlinux` (PVH) or `bzImage`.
    pub kernel: &'static str,
    /// `mmio` or `pci`.
    pub transport: &'static str,
    /// How many.
    pub vcpus: u32,
    /// As in the configuration.
    pub memory: &'static str,
    /// Further keys and tables of the tenant.
    pub more: String,
    /// Further words for its kernel.
    pub words: String,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            kernel: "vmlinux",
            transport: "mmio",
            vcpus: 1,
            memory: "256M",
            more: String::new(),
            words: String::new(),
        }
    }
}

impl Machine {
    /// The same with a network card that has this address.
    pub(crate) fn on_link(mut self, address: &str) -> Self {
        let _ = write!(self.words, " lab.ip={address}");
        self.more.push_str("\n[[tenant.net]]\nlink = \"link\"\n");
        self
    }

    /// The same with a volume; `keys` are those of `[[tenant.disk]]` but for the disk's name.
    pub(crate) fn with_volume(mut self, keys: &str) -> Self {
        let _ = write!(self.more, "\n[[tenant.disk]]\ndisk = \"disk\"\n{keys}\n");
        self
    }

    /// The same with the volume of tools as its last one (see [`tools`]).
    pub(crate) fn with_tools(self) -> Self {
        self.with_volume("volume = \"tools\"\nformat = \"raw\"\nreadonly = true")
    }

    fn config(&self, name: &str) -> String {
        let Self { kernel, transport, vcpus, memory, more, words } = self;
        let guest = root().join("target/lab/guest");
        let guest = guest.display();
        format!(
            "[[tenant]]\nname = \"{name}\"\nkernel = \"{guest}/{kernel}\"\n\
             initrd = \"{guest}/initramfs.cpio\"\ntransport = \"{transport}\"\nvcpus = {vcpus}\n\
             memory = \"{memory}\"\ncmdline = \"console=ttyS0 quiet panic=-1 lab.plain {words}\"\n\
             {more}\n"
        )
    }
}

/// A running tenant of this kind.
#[derive(Debug)]
pub(crate) struct Guest<'host> {
    host: &'host Host,
    name: String,
    console: PathBuf,
    copier: Child,
    /// Output before this has been looked at.
    seen: usize,
    commands: u32,
}

impl<'host> Guest<'host> {
    /// Launches it and waits until it has booted.
    pub(crate) fn boot(host: &'host Host, name: &str, machine: &Machine) -> Self {
        let mut guest = Self::launch(host, name, machine);
        guest.ready();
        guest
    }

    /// Launches it.
    pub(crate) fn launch(host: &'host Host, name: &str, machine: &Machine) -> Self {
        host.launch(&machine.config(name));
        Self::attach(host, name)
    }

    /// Takes over a tenant that runs already.
    pub(crate) fn attach(host: &'host Host, name: &str) -> Self {
        let console = host.folder().join(format!("{name}.console"));
        let copier = Command::new(moirai_binary())
            .arg("--socket")
            .arg(host.folder().join("host.sock"))
            .args(["console", name])
            .stdin(Stdio::null())
            .stdout(File::create(&console).expect("the console's file"))
            .spawn()
            .expect("moirai can be run");
        Self { host, name: name.to_owned(), console, copier, seen: 0, commands: 0 }
    }

    /// Waits until it has booted.
    pub(crate) fn ready(&mut self) {
        self.expect("guest: ready");
        self.expect("\n");
    }

    /// All output so far.
    pub(crate) fn output(&self) -> String {
        let bytes = std::fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a text in the output after what was waited for last, and returns what came
    /// before it.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let output = self.output();
            let rest = output.get(self.seen..).unwrap_or_default();
            if let Some(at) = rest.find(text) {
                let before = rest.get(..at).unwrap_or_default().to_owned();
                self.seen += at + text.len();
                return before;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "waited in vain for {text:?} of {}; its console:\n{output}\nthe host's log:\n{}",
                self.name,
                self.host.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a command in it, which has to succeed, and returns its output.
    pub(crate) fn run(&mut self, command: &str) -> String {
        let (status, output) = self.try_run(command);
        assert_eq!(status, 0, "{command:?} in {}:\n{output}", self.name);
        output
    }

    /// Runs a command in it and returns its exit status and output.
    pub(crate) fn try_run(&mut self, command: &str) -> (i32, String) {
        self.commands += 1;
        let number = self.commands;
        // In one line, because what is typed after it may be read by the command (sudo does that).
        // The quotes keep a console that echoes from answering itself.
        self.start(&format!("{command}; echo \"[end \"\"{number} $?]\""));
        let output = self.expect(&format!("[end {number} "));
        let status = self.expect("]");
        (status.parse().expect("an exit status"), output.trim().replace('\r', ""))
    }

    /// Types a line.
    pub(crate) fn start(&self, line: &str) {
        let mut rest = format!("{line}\n").into_bytes();
        let begin = Instant::now();
        while !rest.is_empty() {
            let taken = self.type_bytes(&rest);
            rest.drain(..taken);
            assert!(begin.elapsed() < PATIENCE, "{} does not read its console", self.name);
            if !rest.is_empty() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Sends bytes to the console; returns how many it took.
    fn type_bytes(&self, bytes: &[u8]) -> usize {
        let socket = self.host.folder().join("host.sock");
        let mut stream = UnixStream::connect(socket).expect("the host's socket");
        let head = format!(
            "POST /v1/tenants/{}/console HTTP/1.1\r\nHost: moirai\r\nConnection: close\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            self.name,
            bytes.len()
        );
        stream.write_all(&[head.as_bytes(), bytes].concat()).expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the host answers");
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        let taken = body["taken"].as_u64().unwrap_or_else(|| panic!("cannot type: {answer}"));
        usize::try_from(taken).expect("a length")
    }

    /// Has it power itself off, waits for the end of the machine and returns the reason.
    pub(crate) fn power_off(&mut self) -> String {
        self.start("poweroff -f");
        wait_for("the machine has ended", || self.show()["phase"] == "ended");
        let end = self.show()["end"].clone();
        assert_eq!(end["ok"], true, "{end}");
        end["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// Makes the volume of tools usable; it is the last of `volumes` volumes.
    pub(crate) fn mount_tools(&mut self, volumes: u8) {
        let disk = char::from(b'a' + volumes - 1);
        self.run(&format!("mount -o ro /dev/vd{disk} /mnt"));
        self.run(
            "for f in proc sys dev; do mount -o bind /$f /mnt/$f; done; mount -t tmpfs tmp \
                  /mnt/tmp",
        );
    }

    /// The view that `moirai show` has of it.
    pub(crate) fn show(&self) -> serde_json::Value {
        self.host.json(&["show", &self.name])
    }

    /// Number of its process.
    pub(crate) fn pid(&self) -> u32 {
        let pid = self.show()["pid"].as_u64().expect("a process");
        u32::try_from(pid).expect("a process number")
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let _ = self.copier.kill();
        let _ = self.copier.wait();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<_> = output.lines().rev().take(40).collect();
            let tail: Vec<_> = tail.into_iter().rev().collect();
            eprintln!("== console of {} at its end:\n{}", self.name, tail.join("\n"));
        }
    }
}

/// Puts the volume of tools (fio, iperf3, mke2fs, e2fsck) on the host's disk. It is copied from the
/// development machine once.
pub(crate) fn tools(host: &Host) {
    let here = Path::new("/var/tmp/tools.img");
    if !here.exists() {
        let new = here.with_extension("new");
        std::fs::copy(root().join("target/lab/guest/tools.img"), &new).expect("the tools");
        std::fs::rename(&new, here).expect("the tools");
    }
    std::fs::hard_link(here, host.folder().join("tools")).expect("the tools");
}

/// Makes an empty raw volume on the host's disk.
pub(crate) fn volume(host: &Host, name: &str, bytes: u64) -> PathBuf {
    let path = host.folder().join(name);
    let file = File::create(&path).expect("the volume");
    file.set_len(bytes).expect("the volume");
    path
}
