//! Headers and tables of images.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use moirai_devices::backend::Volume;
use moirai_devices::mock::ImageThreads;
use tempfile::TempDir;

/// A folder in memory, with an image to which a backing file may lead.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
            std::fs::write(folder.path().join("base"), vec![0; 1 << 16]).expect("a base");
            folder
        })
        .path()
}

/// The image process's own code, on threads.
fn processes() -> ImageThreads {
    ImageThreads::new(|socket| drop(moirai_image::serve(socket, |_| Ok(()))))
}

fuzz_target!(|bytes: &[u8]| {
    let image = folder().join("image");
    // A sparse end, so that tables beyond what was written can be in the file.
    std::fs::write(&image, bytes).expect("written");
    let file = std::fs::File::options().write(true).open(&image).expect("open");
    file.set_len(1 << 20).expect("longer");
    if let Ok(volume) = Volume::open_qcow2(folder(), Path::new("image"), false, &processes()) {
        assert!(volume.size_bytes() < 1 << 56, "no disk is as large");
    }
});
