//! `moirai top`: looks at the counters, on a live screen, as one table or as they are.

mod screen;
mod view;

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use super::args::TopArgs;
use super::{Failure, Status, print, print_json};
use moirai_api::Stats;
use moirai_api::client::Client;
use view::View;

pub(super) fn run(socket: &Path, args: &TopArgs) -> Result<Status, Failure> {
    let client = Client::new(socket)?;
    let interval = Duration::from_secs_f64(args.interval);
    if !args.once && !args.json {
        if !std::io::stdout().is_terminal() {
            let message = "standard output is no terminal; add --once for one table, or --json";
            return Err(Failure::new(Status::Bad, message));
        }
        return screen::run(&client, interval);
    }
    if args.json {
        super::terminal::end_with_the_reader()?;
        return counters(&client, interval, args.once);
    }
    let before: Stats = client.get("/v1/stats")?;
    std::thread::sleep(interval);
    let after: Stats = client.get("/v1/stats")?;
    print(View::between(&before, &after))
}

/// The counters as they are: a program subtracts by itself.
fn counters(client: &Client, interval: Duration, once: bool) -> Result<Status, Failure> {
    loop {
        print_json(&client.get::<Stats>("/v1/stats")?)?;
        if once {
            return Ok(Status::Done);
        }
        std::thread::sleep(interval);
    }
}
