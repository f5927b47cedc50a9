//! Checks exports against a host. Like tenants, they also arrive later, through the API.

use std::collections::HashSet;

use super::names::{numbered, unique};
use super::net::check_net;
use super::{machine, path, volume};
use crate::document::ExportTable;
use crate::model::{Config, Export, ExportDevice};
use crate::problem::{Problem, Problems};

/// What a VMM may hand over unless it is written: a small Linux guest. What is allowed and not used
/// is missing to others, so that more has to be asked for.
const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;

/// Checks exports that are to join the host of `config`; paths begin with `export[N]`.
///
/// # Errors
/// Everything that is wrong with them.
pub fn check_exports(config: &Config, tables: &[ExportTable]) -> Result<Vec<Export>, Vec<Problem>> {
    let mut problems = Problems::default();
    let exports = check_all(config, tables, &mut problems);
    problems.unless_any(exports)
}

/// Checks all exports; those with a problem are left out.
pub(super) fn check_all(
    config: &Config,
    tables: &[ExportTable],
    problems: &mut Problems,
) -> Vec<Export> {
    unique("export", tables.iter().map(|table| &table.name), problems);
    let mut sockets = HashSet::from([config.host.socket.as_path()]);
    let mut exports = Vec::new();
    for (at, table) in numbered("export", tables) {
        let example = "/run/moirai/vm.sock";
        path::check_socket(&table.socket, &format!("{at}.socket"), example, problems);
        if !sockets.insert(&table.socket) {
            let message = format!("the socket {} is taken", table.socket.display());
            problems.add(format!("{at}.socket"), message, "give each export its own socket");
        }
        exports.extend(check_one(config, table, &at, problems));
    }
    exports
}

fn check_one(
    config: &Config,
    table: &ExportTable,
    at: &str,
    problems: &mut Problems,
) -> Option<Export> {
    let owner = table.holder();
    let memory = machine::check_memory(table.memory, DEFAULT_MEMORY_BYTES, at, problems);
    let device = match (&table.disk, &table.net) {
        (Some(volume), None) => {
            let at = format!("{at}.disk");
            ExportDevice::Volume(volume::check(config, &owner, 0, volume, &at, problems)?)
        }
        (None, Some(net)) => {
            ExportDevice::Net(check_net(config, &owner, net, 0, &format!("{at}.net"), problems)?)
        }
        _ => {
            let message = "an export is one device: a volume or a port of a link";
            problems.add(at, message, "write either [export.disk] or [export.net] below it");
            return None;
        }
    };
    Some(Export {
        name: table.name.clone(),
        socket: table.socket.clone(),
        memory,
        unsealed_memory: table.unsealed_memory.unwrap_or(false),
        device,
        table: table.clone(),
    })
}

#[cfg(test)]
mod tests {
    use crate::admission::plan::plan;
    use crate::{check, parse};

    const HOST: &str = "[host]\ncores = [0]\nprofile = \"none\"\nsocket = \"/run/h.sock\"\n\
                        [[disk]]\nname = \"d\"\npath = \"/d\"\n\
                        [[link]]\nname = \"l\"\nrate = \"10Mbit/s\"\n";

    fn problems(exports: &str) -> Vec<String> {
        let document = parse("t", &format!("{HOST}{exports}")).expect("a document");
        let found = check(&document).err().unwrap_or_default();
        found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn an_export_is_one_device_with_a_socket_of_its_own() {
        let good = "[[export]]\nname = \"a\"\nsocket = \"/run/a.sock\"\n[export.disk]\n\
                    disk = \"d\"\nvolume = \"v\"\n[[export]]\nname = \"b\"\n\
                    socket = \"/run/b.sock\"\n[export.net]\nlink = \"l\"\n";
        assert_eq!(problems(good), [""; 0]);
        let both = good.replace("[[export]]\nname = \"b\"\nsocket = \"/run/b.sock\"\n", "");
        let neither = "[[export]]\nname = \"a\"\nsocket = \"/run/a.sock\"\n";
        for text in [both.as_str(), neither] {
            let found = problems(text);
            assert!(found.len() == 1 && found[0].contains("one device"), "{found:?}");
        }
        for (from, to, said) in [
            ("/run/b.sock", "/run/a.sock", "export[1].socket: the socket /run/a.sock is taken"),
            ("/run/b.sock", "/run/h.sock", "export[1].socket: the socket /run/h.sock is taken"),
            ("\"/run/b.sock\"", "\"/\"", "cannot be the path"),
            ("name = \"b\"", "name = \"a\"", "export[1].name: there are two"),
            ("name = \"b\"", "name = \"a/b\"", "export[1].name"),
            ("link = \"l\"", "link = \"x\"", "export[1].net.link: there is no link"),
            ("volume = \"v\"", "volume = \"../v\"", "export[0].disk.volume"),
        ] {
            let found = problems(&good.replace(from, to));
            assert!(found.iter().any(|found| found.contains(said)), "{to}: {found:?}");
        }
        let long = format!("\"/run/{}\"", "x".repeat(103));
        let found = problems(&good.replace("\"/run/b.sock\"", &long));
        assert!(found[0].contains("cannot be the path"), "{found:?}");
    }

    #[test]
    fn what_a_vmm_may_hand_over_is_reserved_like_the_memory_of_a_tenant() {
        let host = HOST.replace("[host]", "[host]\nmemory = \"3G\"");
        let export = |name: &str, memory: &str| {
            format!(
                "[[export]]\nname = \"{name}\"\nsocket = \"/run/{name}\"\n{memory}\n\
                 [export.net]\nlink = \"l\"\nperiod = \"10ms\"\nslice = \"2ms\"\n"
            )
        };
        let (usual, large) = (export("a", ""), export("b", "memory = \"2049M\""));
        let text = format!("{host}{usual}{large}");
        let answer = plan(&check(&parse("t", &text).expect("document")).expect("configuration"));
        let [a, b] = &answer.tenants[..] else { panic!("{answer:?}") };
        assert!(a.admitted && !b.admitted, "{answer}");
        assert_eq!(b.refusals[0].resource, "memory");
        assert_eq!(b.refusals[0].write.as_deref(), Some("memory = \"2048M\""));
        for (memory, said) in [("1M", "are not 2M to 1024G"), ("4097K", "whole pages")] {
            let found = problems(&export("a", &format!("memory = \"{memory}\"")));
            assert!(found[0].starts_with("export[0].memory: "), "{found:?}");
            assert!(found[0].contains(said), "{found:?}");
        }
    }

    #[test]
    fn admission_counts_exports_beside_tenants() {
        let export = |name: &str, slice: &str| {
            format!(
                "[[export]]\nname = \"{name}\"\nsocket = \"/run/{name}\"\n[export.disk]\n\
                 disk = \"d\"\nvolume = \"{name}\"\nperiod = \"10ms\"\nslice = \"{slice}\"\n"
            )
        };
        let tenant = "[[tenant]]\nname = \"a\"\nimage = \"i\"\n[[tenant.disk]]\ndisk = \"d\"\n\
                      volume = \"t\"\nperiod = \"10ms\"\nslice = \"4ms\"\n";
        let text = format!("{HOST}{tenant}{}{}", export("a", "5ms"), export("b", "2ms"));
        let answer = plan(&check(&parse("t", &text).expect("document")).expect("configuration"));
        let named: Vec<_> =
            answer.tenants.iter().map(|it| (it.name.to_string(), it.admitted)).collect();
        let said = [("a", true), ("export/a", true), ("export/b", false)];
        assert_eq!(named, said.map(|(name, admitted)| (name.to_owned(), admitted)));
    }
}
