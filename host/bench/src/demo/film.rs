//! The film: made once with ffmpeg, real H.264 and AAC in an MPEG transport stream of constant
//! rate.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::DemoError;

/// Rate of the transport stream.
pub(super) const RATE_BPS: u64 = 8_000_000;
/// Length; the streamer begins again at its end.
const SECONDS: u32 = 180;
/// Volumes are counted in sectors; the rest of the last one is zeros.
const SECTOR_BYTES: u64 = 512;

/// Returns the film, made first if there is none.
pub(super) fn provide(path: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf, DemoError> {
    if path.metadata().is_ok_and(|film| film.len() > 0) {
        return Ok(path.to_owned());
    }
    progress("making the film (once)");
    let failed = |source| DemoError::Film { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // Made beside its place and moved there whole: an interrupted demo leaves no half film.
    let part = path.with_extension("part");
    encode(&part).map_err(failed)?;
    pad(&part).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)?;
    Ok(path.to_owned())
}

fn encode(path: &Path) -> io::Result<()> {
    let length = SECONDS.to_string();
    let mux = RATE_BPS.to_string();
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-loglevel", "error", "-y"])
        .args(["-f", "lavfi", "-i", "testsrc2=size=960x540:rate=25"])
        .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"])
        .args(["-t", &length, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"])
        .args(["-g", "25", "-b:v", "7M", "-minrate", "7M", "-maxrate", "7M", "-bufsize", "1M"])
        .args(["-x264-params", "nal-hrd=cbr", "-c:a", "aac", "-b:a", "128k"])
        .args(["-muxrate", &mux, "-pcr_period", "20", "-f", "mpegts"])
        .arg(path)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ffmpeg failed: {}", said.trim())))
}

fn pad(path: &Path) -> io::Result<()> {
    let file = std::fs::File::options().write(true).open(path)?;
    let length = file.metadata()?.len();
    file.set_len(length.div_ceil(SECTOR_BYTES) * SECTOR_BYTES)?;
    file.sync_all()
}
