//! Two host services on one machine, each with folders of its own: nothing is promised twice.

use std::path::Path;
use std::process::Output;

use moirai_bench::driver::{Driver, Start};

use crate::{moirai, turn};

/// A host service in the background; ends with the value.
fn serve(config: &Path) -> Driver {
    let moirai = Path::new(env!("CARGO_BIN_EXE_moirai"));
    let start = Start::new(moirai, config, &config.with_file_name("host.sock"));
    start.serve().unwrap_or_else(|error| panic!("KVM and root are needed: {error}"))
}

/// A configuration with folders of its own, on `core`; `rest` is about the disk `d`, which is
/// `folder`.
fn config(folder: &Path, name: &str, core: usize, rest: &str) -> std::path::PathBuf {
    let own = folder.join(name);
    std::fs::create_dir(&own).unwrap();
    let (own_text, folder) = (own.display(), folder.display());
    let path = own.join("host.toml");
    let text = format!(
        "[host]\nsocket = \"{own_text}/host.sock\"\nstate_dir = \"{own_text}/state\"\n\
         cores = [{core}]\n\
         [[disk]]\nname = \"d\"\npath = \"{folder}\"\n{rest}"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// What a host service that has to refuse says.
fn refused(config: &Path) -> String {
    let output: Output = moirai(&["host", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

fn export(own: &Path, volume: &str) -> String {
    let own = own.display();
    format!(
        "[[export]]\nname = \"e\"\nsocket = \"{own}/e.sock\"\n\
         [export.disk]\ndisk = \"d\"\nvolume = \"{volume}\"\nextra = true\n"
    )
}

#[test]
fn a_second_host_service_gets_no_core_and_no_volume_that_the_first_one_has() {
    let _turn = turn();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let top = folder.path();
    let core = std::thread::available_parallelism().unwrap().get() - 1;
    std::fs::write(top.join("raw"), vec![0u8; 1 << 20]).unwrap();
    std::fs::write(top.join("other"), vec![0u8; 1 << 20]).unwrap();
    std::os::unix::fs::symlink("raw", top.join("link")).unwrap();
    let first = config(top, "a", core, &export(&top.join("a"), "raw"));
    let service = serve(&first);
    let pid = service.pid();

    let said = refused(&config(top, "b", core, ""));
    let line = format!("core {core} is served by process {pid} (moirai host, started ");
    assert!(said.contains(&line), "{said}");
    assert!(said.contains("host.toml:4:") && said.contains("cores = ["), "{said}");

    if core == 0 {
        assert!(std::env::var_os("MOIRAI_REQUIRE_CORES").is_none(), "one core");
        eprintln!("NOT TESTED HERE: one core is not enough for two host services");
        return;
    }
    let said = refused(&config(top, "c", 0, &export(&top.join("c"), "link")));
    let line = format!("the volume is in use by process {pid} (moirai host, export/e, started ");
    assert!(said.contains(&line), "{said}");
    assert!(said.contains("host.toml:13:") && said.contains("\"link\""), "{said}");

    // What nobody has it may have.
    drop(serve(&config(top, "d", 0, &export(&top.join("d"), "other"))));
    drop(service);
    drop(serve(&config(top, "e", core, &export(&top.join("e"), "link"))));
}

#[test]
fn a_host_service_that_was_killed_blocks_nobody() {
    let _turn = turn();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let top = folder.path();
    std::fs::write(top.join("raw"), vec![0u8; 1 << 20]).unwrap();
    let first = config(top, "a", 0, &export(&top.join("a"), "raw"));
    serve(&first).kill();
    drop(serve(&config(top, "b", 0, &export(&top.join("b"), "raw"))));
}
