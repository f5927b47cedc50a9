//! A Linux guest of QEMU, without KVM: its devices are exports, its console a pair of pipes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than a boot or a command takes on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(120);

/// A device of the guest.
pub(crate) enum Device<'a> {
    /// A disk behind the socket.
    Disk(&'a Path),
    /// A network card behind the socket, with address and own IP address.
    Net(&'a Path, &'a str, &'a str),
}

/// A running QEMU; killed with the value.
pub(crate) struct Qemu {
    child: Child,
    keyboard: ChildStdin,
    console: Arc<Mutex<String>>,
    /// What of the console was read by commands already.
    seen: usize,
    commands: u32,
}

/// What a guest boots.
pub(crate) struct Software {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Further words for the kernel.
    pub words: String,
}

/// The small guest of the lab, built once.
fn small() -> Software {
    let script = moirai_tests::root().join("tests/export/guest.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut paths = text.split_whitespace().map(PathBuf::from);
    let both = paths.next().zip(paths.next());
    let (kernel, initrd) =
        both.expect("tests/export/guest.sh builds a guest (it needs apt-get, fio and iperf3)");
    Software { kernel, initrd, words: String::new() }
}

impl Qemu {
    /// Boots the guest.
    pub(crate) fn boot(devices: &[Device<'_>]) -> Self {
        let mut qemu = Self::begin(devices);
        qemu.wait_until_ready();
        qemu
    }

    /// Begins to boot the small guest.
    pub(crate) fn begin(devices: &[Device<'_>]) -> Self {
        Self::begin_with(&small(), devices)
    }

    /// Begins to boot a guest.
    pub(crate) fn begin_with(software: &Software, devices: &[Device<'_>]) -> Self {
        let mut words: Vec<String> = [
            "-M q35,accel=tcg,memory-backend=memory -cpu max -smp 1 -m 384M",
            "-object memory-backend-memfd,id=memory,size=384M,share=on",
            "-nodefaults -no-user-config -display none -no-reboot -serial stdio",
        ]
        .iter()
        .flat_map(|words| words.split(' '))
        .map(str::to_owned)
        .collect();
        // A machine that stands still for a while makes the kernel doubt its timer.
        let mut kernel_words =
            format!("console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check {}", software.words);
        for (index, device) in devices.iter().enumerate() {
            let (socket, device) = match device {
                Device::Disk(socket) => (
                    socket,
                    vec!["-device".to_owned(), format!("vhost-user-blk-pci,chardev=c{index}")],
                ),
                Device::Net(socket, mac, ip) => {
                    kernel_words.push_str(&format!(" lab.ip={ip}"));
                    let netdev = format!("vhost-user,id=n{index},chardev=c{index}");
                    // QEMU 7.2 without KVM dies of MSI-X vectors of a vhost-user card.
                    let card = format!("virtio-net-pci,netdev=n{index},mac={mac},vectors=0");
                    (socket, ["-netdev", &netdev, "-device", &card].map(str::to_owned).to_vec())
                }
            };
            let socket = socket.display();
            let chardev = format!("socket,id=c{index},path={socket},reconnect=1");
            words.extend(["-chardev".to_owned(), chardev]);
            words.extend(device);
        }
        // It dies with this thread, however that ends.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(words)
            .arg("-kernel")
            .arg(&software.kernel)
            .arg("-initrd")
            .arg(&software.initrd)
            .args(["-append", &kernel_words])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-system-x86_64 can be run");
        let console = Arc::new(Mutex::new(String::new()));
        let mut output = child.stdout.take().unwrap();
        let copy = Arc::clone(&console);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut piece) {
                copy.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..len]));
            }
        });
        let keyboard = child.stdin.take().unwrap();
        Self { child, keyboard, console, seen: 0, commands: 0 }
    }

    /// Waits for the shell.
    pub(crate) fn wait_until_ready(&mut self) {
        self.wait_for("guest: ready");
    }

    /// Process of the VMM.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Begins a command; [`Qemu::finish`] waits for it.
    pub(crate) fn start(&mut self, command: &str) {
        self.commands += 1;
        // The console echoes what is typed: the mark must not be in it.
        let line = format!("({command}); echo end''-{}:$?:\n", self.commands);
        self.keyboard.write_all(line.as_bytes()).unwrap();
    }

    /// Waits for the command: what it said. It has to succeed.
    pub(crate) fn finish(&mut self) -> String {
        let mark = format!("end-{}:", self.commands);
        let said = self.wait_for(&format!("{mark}0:"));
        said.replace('\r', "")
    }

    /// Runs a command, which has to succeed; what it said.
    pub(crate) fn run(&mut self, command: &str) -> String {
        self.start(command);
        self.finish()
    }

    /// Types a line.
    pub(crate) fn enter(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until the VMM has ended by itself.
    pub(crate) fn wait_for_end(mut self) {
        moirai_tests::wait_for("QEMU has ended", || self.child.try_wait().unwrap().is_some());
    }

    /// Waits until the console says `text`; all that it said since the last wait.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let console = self.console.lock().unwrap();
            let new = &console[self.seen..];
            if let Some(at) = new.find(text) {
                let said = new[..at].to_owned();
                self.seen += at + text.len();
                return said;
            }
            let failed = text.strip_suffix("0:").is_some_and(|mark| {
                new.find(mark).is_some_and(|at| new[at + mark.len()..].contains(':'))
            });
            let late = begin.elapsed() > PATIENCE;
            assert!(!failed && !late, "waited in vain for {text:?}:\n{new}");
            drop(console);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
