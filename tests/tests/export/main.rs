//! Exports: another VMM's Linux guest on our volumes and links. QEMU without KVM, so it runs
//! anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it unwraps")]

mod debian;
mod disk;
mod link;
mod neighbours;
mod operator;
mod peers;
mod qemu;
mod shares;

use std::path::PathBuf;
use std::process::Output;

use moirai_tests::{Host, said};

/// A volume of zeros and its export.
fn disk(host: &Host, name: &str, contract: &str) -> String {
    let volume = host.folder().join(format!("{name}.img"));
    if !volume.exists() {
        std::fs::write(volume, vec![0; 64 << 20]).unwrap();
    }
    format!(
        "[[export]]\nname = \"{name}\"\nsocket = \"{name}.sock\"\n\
         [export.disk]\ndisk = \"disk\"\nvolume = \"{name}.img\"\n{contract}\n"
    )
}

/// An export of a port of the link.
fn port(name: &str, mac: &str, contract: &str) -> String {
    format!(
        "[[export]]\nname = \"{name}\"\nsocket = \"{name}.sock\"\n\
         [export.net]\nlink = \"link\"\nmac = \"{mac}\"\n{contract}\n"
    )
}

fn try_export(host: &Host, text: &str) -> Output {
    let path = host.folder().join("export.toml");
    std::fs::write(&path, text).unwrap();
    host.ask(&["export", &path.to_string_lossy()])
}

fn export(host: &Host, text: &str) {
    let output = try_export(host, text);
    assert!(output.status.success(), "{}\n{}", said(&output), host.log());
}

fn socket(host: &Host, name: &str) -> PathBuf {
    host.folder().join(format!("{name}.sock"))
}
