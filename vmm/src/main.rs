//! `moirai-tenant`: the process of one tenant. The host service starts it with a control socket as
//! descriptor 3; `moirai-tenant run IMAGE` plays the host for one VM, for tests and by hand.

use std::process::ExitCode;

use moirai_vmm::{run, tenant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = if arguments.is_empty() {
        tenant::from_spawn().map_err(|error| error.to_string())
    } else {
        run::main(&arguments).map_err(|error| error.to_string())
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("moirai-tenant: {error}");
            ExitCode::FAILURE
        }
    }
}
