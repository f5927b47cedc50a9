//! Whether the machine has the cores that a configuration names.

use moirai_config::Problem;
use moirai_config::model::Config;

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Cores of `config` that this machine has not, each at its place: they cannot be served.
#[must_use]
pub fn core_problems(config: &Config) -> Vec<Problem> {
    let online = std::fs::read_to_string(ONLINE).unwrap_or_default();
    missing(config, online.trim())
}

fn missing(config: &Config, online: &str) -> Vec<Problem> {
    let named = config.host.cores.iter().enumerate();
    let named = named.map(|(index, core)| (format!("host.cores[{index}]"), *core));
    let io = config.host.io_core.map(|core| ("host.io_core".to_owned(), core));
    let missing = named.chain(io).filter(|(_, core)| !online.is_empty() && !lists(online, *core));
    let problem = |(path, core)| Problem {
        path,
        message: format!("there is no core {core}: this machine has {online}"),
        help: "name cores that are there; `lscpu` shows them".to_owned(),
    };
    missing.map(problem).collect()
}

/// Whether a list of the kernel's, as `0-3,5`, has that number in it.
fn lists(list: &str, number: usize) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = first.trim().parse().ok().zip(last.trim().parse().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cores_is_read_as_the_kernel_writes_it() {
        let cores = |list| (0..10).filter(|core| lists(list, *core)).collect::<Vec<_>>();
        assert_eq!(cores("0-1"), [0, 1]);
        assert_eq!(cores("0,2-4,9"), [0, 2, 3, 4, 9]);
        assert_eq!(cores("0"), [0]);
    }

    #[test]
    fn every_core_that_is_missing_has_its_place() {
        let text = "[host]\ncores = [1, 7, 2, 9]\nio_core = 8\n";
        let document = moirai_config::parse("t", text).expect("a document");
        let config = moirai_config::check(&document).expect("a configuration");
        let places = |online| -> Vec<_> {
            missing(&config, online).into_iter().map(|problem| problem.path).collect()
        };
        assert_eq!(places("0-3"), ["host.cores[1]", "host.cores[3]", "host.io_core"]);
        assert_eq!(places("0-9"), [""; 0]);
        assert_eq!(places(""), [""; 0], "nobody knows");
    }
}
