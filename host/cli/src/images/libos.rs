//! A library OS application as one bootable file: built from the source tree, checked, put in
//! place.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ImageError, at, run};

/// Builds the application `app` of `guest/apps` and puts its image at `out`.
///
/// # Errors
/// Not inside the source tree, no such application, a build that fails.
pub fn libos(app: &str, out: &Path) -> Result<(), ImageError> {
    let here = env::current_dir().map_err(at("."))?;
    let tree = here.ancestors().find(|folder| folder.join("guest/apps").is_dir());
    let guest = tree.ok_or(ImageError::NoTree)?.join("guest");
    let apps = applications(&guest)?;
    if !apps.iter().any(|known| known == app) {
        return Err(ImageError::NoApp { app: app.to_owned(), known: apps.join(", ") });
    }
    let build = env::var_os("CARGO_TARGET_DIR").map_or_else(|| guest.join("target"), PathBuf::from);
    let build = std::path::absolute(&build).map_err(at(&build))?;
    run(
        // Cargo reads guest/.cargo/config.toml (target, linker script) only from inside guest/.
        Command::new("cargo")
            .args(["build", "--locked", "--release", "-p", app])
            .current_dir(&guest)
            .env("CARGO_TARGET_DIR", &build),
        "cargo",
        "cargo",
    )?;
    let built = build.join("x86_64-unknown-none/release").join(app);
    // A VMM may hold the old image open: replace it, do not write into it.
    let mut fresh = out.as_os_str().to_owned();
    fresh.push(".new");
    fs::copy(&built, &fresh).map_err(at(&built))?;
    fs::rename(&fresh, out).map_err(at(out))
}

/// Names of the applications, sorted.
fn applications(guest: &Path) -> Result<Vec<String>, ImageError> {
    let apps = guest.join("apps");
    let entries = fs::read_dir(&apps).map_err(at(&apps))?;
    let is_app = |path: &PathBuf| path.join("Cargo.toml").is_file();
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(is_app).filter_map(name).collect();
    names.sort();
    Ok(names)
}
