//! The world that faults happen to: a host service with four disks and two links, a film and a
//! pulse that nobody touches, neighbours that are killed, and writers at exports.

use std::path::{Path, PathBuf};
use std::process::Output;

use moirai_api::Stats;
use moirai_bench::driver::{Driver, Start};
use moirai_runtime::Stall;
use moirai_scheduler::Moment;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use super::film::{PORTS, Receivers};
use super::keeper::Keeper;
use super::weak::{VOLUME, Weak};
use crate::{core, moirai_binary, said};

/// Tenants that nobody touches.
pub(super) const UNTOUCHED: [&str; 2] = ["cinema", "pulse"];
/// Tenants that are killed and stopped.
pub(super) const VICTIMS: [&str; 3] = ["thrash", "flood", "carnage"];
/// The TAP that is deleted.
pub(super) const LOOSE: &str = "moirai1";
/// The export that hostile peers come to.
pub(super) const PREY: &str = "prey";
/// Volumes of the exports, in bytes.
const VOLUME_BYTES: u64 = 8 << 20;
/// The small disk: room for three quarters of its volume.
const SMALL_BYTES: u64 = 6 << 20;
/// The film's disk is memory: a disk that others use, too, keeps no promise for anybody.
const MEMORY_BYTES: u64 = 64 << 20;

/// Everything that runs.
#[derive(Debug)]
pub(super) struct World {
    driver: Option<Driver>,
    pub(super) receivers: Option<Receivers>,
    pub(super) keepers: Vec<Keeper>,
    pub(super) weak: Weak,
    pub(super) folder: PathBuf,
    pub(super) netns: String,
    /// The same for all host services of the run.
    text: String,
}

/// The configuration of the host service.
fn configuration(folder: &Path, netns: &str) -> String {
    let (path, core) = (folder.display(), core());
    format!(
        r#"
[host]
cores = [{core}]
socket = "{path}/host.sock"
state_dir = "{path}/state"
[[disk]]
name = "disk"
path = "{path}"
depth = 4
[[disk]]
name = "memory"
path = "{path}/memory"
depth = 4
[[disk]]
name = "weak"
path = "{path}/weak"
depth = 4
[[disk]]
name = "small"
path = "{path}/small"
depth = 4
[[link]]
name = "link"
rate = "100Mbit/s"
tap = "moirai0"
netns = "{netns}"
address = "10.77.0.1/24"
[[link]]
name = "loose"
rate = "100Mbit/s"
tap = "{LOOSE}"
netns = "{netns}"
address = "10.78.0.1/24"
"#
    )
}

/// A tenant's table.
fn tenant(name: &str) -> String {
    let core = core();
    let [first, second] = PORTS;
    let text = match name {
        "cinema" => format!(
            "image = \"streamer\"\nargs = \"ip=10.77.0.2/24 \
             to=10.77.0.1:{first},10.77.0.1:{second}\"\nmemory = \"64M\"\nprefault = true\ncpu = \
             {{ period = \"10ms\", slice = \"2ms\" }}\n[[tenant.disk]]\ndisk = \"memory\"\nvolume \
             = \"film.ts\"\nreadonly = true\nperiod = \"50ms\"\nslice = \"10ms\"\n\
             [[tenant.net]]\nlink = \"link\"\nperiod = \"10ms\"\nrate = \"10Mbit/s\"\n"
        ),
        "pulse" => "image = \"pulse\"\nargs = \"period_us=20000 work_us=400 deadline_us=5000 \
                    report_ms=500\"\nmemory = \"16M\"\nprefault = true\ncpu = { period = \
                    \"19ms\", slice = \"2ms\", deadline = \"4ms\" }\n"
            .to_owned(),
        "thrash" => "image = \"thrash\"\nargs = \"mode=read depth=16 size=65536 \
                     pattern=random\"\nmemory = \"64M\"\ncpu = { period = \"20ms\", slice = \
                     \"1ms\", extra = true }\n[[tenant.disk]]\ndisk = \"disk\"\nvolume = \
                     \"scratch.img\"\nreadonly = true\nextra = true\n"
            .to_owned(),
        "flood" => "image = \"flood\"\nargs = \"ip=10.78.0.3/24 to=10.78.0.1:9 \
                    size=1400\"\nmemory = \"32M\"\ncpu = { period = \"20ms\", slice = \"1ms\", \
                    extra = true }\n[[tenant.net]]\nlink = \"loose\"\nextra = true\n"
            .to_owned(),
        _ => "image = \"carnage\"\nmemory = \"16M\"\ncpu = { period = \"20ms\", slice = \"1ms\", \
              extra = true }\n"
            .to_owned(),
    };
    format!("[[tenant]]\nname = \"{name}\"\ncore = {core}\n{text}")
}

/// An export of a disk. Who writes is paid from what is left.
fn export(name: &str, disk: &str, volume: &str) -> String {
    format!(
        "[[export]]\nname = \"{name}\"\nsocket = \"{name}.sock\"\n[export.disk]\ndisk = \
         \"{disk}\"\nvolume = \"{volume}\"\nextra = true\n"
    )
}

impl World {
    /// Makes disks and volumes in a folder, and starts all.
    ///
    /// # Errors
    /// Something does not start.
    pub(super) fn start(folder: &Path, seed: u64) -> Result<Self, String> {
        let made = |error: std::io::Error| format!("the volumes: {error}");
        let path = |name: &str| folder.join(name);
        in_memory(&path("memory"), MEMORY_BYTES).map_err(made)?;
        super::film::make(&path("memory/film.ts")).map_err(made)?;
        std::fs::write(path("scratch.img"), vec![0x5a; 32 << 20]).map_err(made)?;
        for name in ["strong", PREY] {
            let bytes = usize::try_from(VOLUME_BYTES).unwrap_or(0);
            std::fs::write(path(&format!("{name}.img")), vec![0; bytes]).map_err(made)?;
        }
        in_memory(&path("small"), SMALL_BYTES).map_err(made)?;
        let small = std::fs::File::create(path("small").join(VOLUME)).map_err(made)?;
        small.set_len(VOLUME_BYTES).map_err(made)?;
        let weak = Weak::mount(&path("weak"), &path("weak.store"), VOLUME_BYTES);
        let weak = weak.map_err(|error| format!("the weak disk: {error}"))?;
        let netns = format!("moirai-c{}", std::process::id());
        let writer = |(name, seed): (&'static str, u64)| {
            let socket = path(&format!("{name}.sock"));
            Keeper::new(name, socket, path(&format!("{name}.ledger")), seed)
        };
        let names = [("strong", seed), ("weak", seed ^ 1 << 40), ("small", seed ^ 1 << 41)];
        let mut world = Self {
            driver: None,
            receivers: None,
            keepers: names.into_iter().map(writer).collect(),
            weak,
            folder: folder.to_owned(),
            text: configuration(folder, &netns),
            netns,
        };
        world.serve()?;
        Ok(world)
    }

    /// Starts the host service and everything in it.
    ///
    /// # Errors
    /// See [`World::start`].
    pub(super) fn serve(&mut self) -> Result<(), String> {
        let at = |name: &str| self.folder.join(name);
        let (config, socket) = (at("host.toml"), at("host.sock"));
        std::fs::write(&config, &self.text).map_err(|error| error.to_string())?;
        let start = Start::new(&moirai_binary(), &config, &socket).ends_with_this_thread();
        self.driver = Some(start.serve().map_err(|error| error.to_string())?);
        let exports = [
            export("strong", "disk", "strong.img"),
            export(PREY, "disk", "prey.img"),
            export("weak", "weak", VOLUME),
            export("small", "small", VOLUME),
        ];
        self.give("export", &exports.concat())?;
        self.receivers = Some(Receivers::start(&self.netns)?);
        for name in UNTOUCHED.into_iter().chain(VICTIMS) {
            self.launch(name)?;
        }
        for keeper in &mut self.keepers {
            keeper.verify()?;
        }
        Ok(())
    }

    fn driver(&self) -> &Driver {
        self.driver.as_ref().unwrap_or_else(|| unreachable!("it is served between two faults"))
    }

    /// The process of the host service.
    pub(super) fn pid(&self) -> u32 {
        self.driver().pid()
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        self.driver().log()
    }

    /// The end of what it has logged.
    pub(super) fn last_words(&self) -> String {
        std::fs::read_to_string(self.folder.join("host.log")).unwrap_or_default()
    }

    /// Where its API is.
    pub(super) fn api(&self) -> &Path {
        self.driver().socket()
    }

    /// Where an export is.
    pub(super) fn socket(&self, export: &str) -> PathBuf {
        self.folder.join(format!("{export}.sock"))
    }

    /// Everything that is measured.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn stats(&self) -> Result<Stats, String> {
        self.driver().get("/v1/stats").map_err(|error| error.to_string())
    }

    /// Kills the host service without a chance to clean up.
    pub(super) fn kill(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.kill();
        }
    }

    /// Ends the host service as an operator does.
    ///
    /// # Errors
    /// It does not end well.
    pub(super) fn end(&mut self) -> Result<(), String> {
        for keeper in &mut self.keepers {
            keeper.end();
        }
        let Some(driver) = self.driver.take() else { return Ok(()) };
        driver.end().map_err(|error| error.to_string())
    }

    /// Launches one of the tenants.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn launch(&self, name: &str) -> Result<(), String> {
        self.give("launch", &tenant(name))
    }

    /// Takes away a tenant that has ended, and launches it again.
    ///
    /// # Errors
    /// See [`World::launch`].
    pub(super) fn launch_again(&self, name: &str) -> Result<(), String> {
        // A tenant that was killed has failed: that it is stopped is said with another status.
        let _ = self.ask(&["stop", "--now", name])?;
        self.launch(name)
    }

    fn give(&self, verb: &str, text: &str) -> Result<(), String> {
        let path = self.folder.join(format!("{verb}.toml"));
        std::fs::write(&path, text).map_err(|error| error.to_string())?;
        let output = self.ask(&[verb, &path.to_string_lossy()])?;
        if output.status.success() { Ok(()) } else { Err(format!("{verb}: {}", said(&output))) }
    }

    /// Runs `moirai` against the host service.
    ///
    /// # Errors
    /// It cannot be run.
    pub(super) fn ask(&self, words: &[&str]) -> Result<Output, String> {
        self.driver().ask(words).map_err(|error| error.to_string())
    }

    /// The process of a tenant; none if it has ended.
    pub(super) fn tenant(&self, name: &str) -> Option<u32> {
        let output = self.ask(&["show", name, "--json"]).ok()?;
        let view: Value = serde_json::from_slice(&output.stdout).ok()?;
        let runs = view["phase"] == "running";
        view["pid"].as_u64().filter(|_| runs).and_then(|pid| u32::try_from(pid).ok())
    }
}

/// The stalls of the machine in a report.
pub(super) fn stalls(stats: &Stats) -> Vec<Stall> {
    let stall = |&(begin, end): &(u64, u64)| Stall {
        begin: Moment::from_nanos(begin),
        end: Moment::from_nanos(end),
    };
    stats.stalls.iter().map(stall).collect()
}

/// A file system in memory.
fn in_memory(place: &Path, bytes: u64) -> std::io::Result<()> {
    std::fs::create_dir_all(place)?;
    let words = std::ffi::CString::new(format!("size={bytes},mode=700"))?;
    Ok(mount("moirai-chaos", place, "tmpfs", MountFlags::empty(), words.as_c_str())?)
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.end();
        for disk in ["memory", "small"] {
            let _ = unmount(self.folder.join(disk), UnmountFlags::DETACH);
        }
    }
}
