//! The experiment's configuration: who shares what, and who was promised how much.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::DemoError;

/// The tenant with the promises.
pub(super) const CINEMA: &str = "cinema";
/// The ones without.
pub(super) const NEIGHBOURS: [&str; 3] = ["carnage", "flood", "thrash"];
/// The network namespace of the link.
pub(super) const NETNS: &str = "moirai-demo";
/// Receivers: ffmpeg first, then the recorders.
pub(super) const RECEIVERS: [(&str, u16); 4] =
    [("ffmpeg", 5004), ("recorder-1", 5006), ("recorder-2", 5008), ("recorder-3", 5010)];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The volume that `thrash` reads; large enough that no cache in the device holds it all.
const SCRATCH_BYTES: u64 = 512 << 20;

/// The configuration, in the files that a user would write.
const TEMPLATES: [(&str, &str); 4] = [
    ("host.toml", include_str!("scene/host.toml")),
    ("cinema.toml", include_str!("scene/cinema.toml")),
    ("pulse.toml", include_str!("scene/pulse.toml")),
    ("neighbours.toml", include_str!("scene/neighbours.toml")),
];

/// Files of the experiment, in a folder of its own that is removed with the value.
#[derive(Debug)]
pub(super) struct Scene {
    folder: PathBuf,
}

impl Scene {
    /// Lays out volumes and configuration beside the film.
    pub(super) fn prepare(film: &Path) -> Result<Self, DemoError> {
        let parent = film.parent().unwrap_or(Path::new("/"));
        let scratch = parent.join("scratch.img");
        make_scratch(&scratch).map_err(|source| DemoError::Folder { path: scratch, source })?;
        let folder = parent.join(format!("demo-{}", std::process::id()));
        let failed = |source| DemoError::Folder { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let scene = Self { folder: folder.clone() };
        for (name, template) in TEMPLATES {
            let text = fill_in(template, parent, &folder, film);
            std::fs::write(folder.join(name), text).map_err(failed)?;
        }
        Ok(scene)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("host.sock")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Where a receiver listens.
pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from((ADDRESS, port))
}

/// A file that is really there on the disk: holes would cost no disk time.
fn make_scratch(path: &Path) -> std::io::Result<()> {
    if path.metadata().is_ok_and(|scratch| scratch.len() == SCRATCH_BYTES) {
        return Ok(());
    }
    let mut file = std::fs::File::create(path)?;
    let block: Vec<u8> =
        (0..1u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for _ in 0..SCRATCH_BYTES >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// Puts this machine's values into a template.
fn fill_in(template: &str, disk: &Path, state: &Path, film: &Path) -> String {
    let core = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1;
    let film = film.file_name().map(|name| name.to_string_lossy().into_owned());
    let receivers = RECEIVERS.map(|(_, port)| address(port).to_string());
    let values = [
        ("@core@", core.to_string()),
        ("@disk@", disk.display().to_string()),
        ("@state@", state.display().to_string()),
        ("@film@", film.unwrap_or_default()),
        ("@receivers@", receivers.join(",")),
        ("@netns@", NETNS.to_owned()),
        ("@address@", ADDRESS.to_string()),
    ];
    values.iter().fold(template.to_owned(), |text, (word, value)| text.replace(word, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_templates_is_filled_in_and_the_result_is_a_configuration() {
        let folder = Path::new("/var/tmp");
        let filled = TEMPLATES.map(|(_, text)| fill_in(text, folder, folder, Path::new("film.ts")));
        assert!(filled.iter().all(|text| !text.contains('@')), "{filled:?}");
        moirai_config::parse("demo", &filled.join("\n")).unwrap();
    }
}
