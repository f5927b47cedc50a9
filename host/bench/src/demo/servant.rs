//! The host service of the demo, and what the demo asks of it.

use std::path::{Path, PathBuf};

use super::DemoError;
use super::scene::Scene;
use crate::driver::{Driver, Start};
use moirai_api::Stats;

/// A running host service; ends with the value.
#[derive(Debug)]
pub(super) struct Servant(Driver);

impl Servant {
    /// Starts the service and waits until it answers. A killed demo leaves none behind.
    pub(super) fn start(scene: &Scene, scheduling: bool) -> Result<Self, DemoError> {
        let me = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("moirai"));
        let start = Start::new(&me, &scene.file("host.toml"), &scene.socket());
        let (log, words): (_, &[&str]) =
            if scheduling { ("with.log", &[]) } else { ("without.log", &["--no-scheduling"]) };
        let start = start.words(words).log(scene.file(log)).ends_with_this_thread();
        Ok(Self(start.serve()?))
    }

    /// Starts the tenants of a file.
    pub(super) fn launch(&self, file: &Path) -> Result<(), DemoError> {
        self.ask(&["launch", &file.to_string_lossy(), "--json"]).map(drop)
    }

    /// What is on the console of a tenant.
    pub(super) fn console(&self, tenant: &str) -> Result<String, DemoError> {
        self.ask(&["console", tenant, "--once"])
    }

    /// One look at everything.
    pub(super) fn stats(&self) -> Result<Stats, DemoError> {
        Ok(self.0.get("/v1/stats")?)
    }

    /// Ends the service, which ends its tenants.
    pub(super) fn end(self) -> Result<(), DemoError> {
        Ok(self.0.end()?)
    }

    fn ask(&self, words: &[&str]) -> Result<String, DemoError> {
        let output = self.0.ask(words)?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let why = String::from_utf8_lossy(&said).trim().to_owned();
            return Err(DemoError::Refused { what: words.join(" "), why });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
