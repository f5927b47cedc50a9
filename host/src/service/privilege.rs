//! Which promises this process may make: KVM, real-time priority, network devices.
//!
//! Asked once, before anything is started, so that the answer is complete and says what to grant.

use std::fmt;

use moirai_launch::kvm::open_kvm;
use rustix::thread::CapabilitySet;

use moirai_config::model::Config;

/// Everything that is missing.
#[derive(Debug)]
pub struct Missing(Vec<String>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the promises of this configuration cannot be kept on this machine:")?;
        for line in &self.0 {
            write!(f, "\n  - {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Missing {}

/// Checks that what `config` promises can be kept.
///
/// # Errors
/// All that is missing, each with the promise that falls and what to grant.
pub(super) fn check(config: &Config) -> Result<(), Missing> {
    let effective =
        rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let kvm = open_kvm().err().map(|error| format!("no tenant can run: {error}"));
    let missing = missing(config, effective, kvm);
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

fn missing(config: &Config, effective: CapabilitySet, kvm: Option<String>) -> Vec<String> {
    let mut missing: Vec<_> = kvm.into_iter().collect();
    if !effective.contains(CapabilitySet::SYS_NICE) {
        missing.push(
            "CPU, disk and link guarantees need real-time priority: run as root, or grant \
             CAP_SYS_NICE (setcap cap_sys_nice+ep moirai, or AmbientCapabilities=CAP_SYS_NICE in \
             the service unit)"
                .to_owned(),
        );
    }
    let links: Vec<_> = config.links.iter().map(|link| link.name.as_str()).collect();
    if !links.is_empty() && !effective.contains(CapabilitySet::NET_ADMIN) {
        let links = links.join(", ");
        missing.push(format!(
            "the TAPs of the links {links} need network administration: run as root, or grant \
             CAP_NET_ADMIN in the same way"
        ));
    }
    let namespaces: Vec<_> = config.links.iter().filter_map(|link| link.netns.as_deref()).collect();
    if !namespaces.is_empty() && !effective.contains(CapabilitySet::SYS_ADMIN) {
        let namespaces = namespaces.join(", ");
        missing.push(format!(
            "the network namespaces {namespaces} need CAP_SYS_ADMIN: run as root, or leave `netns` \
             out"
        ));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use moirai_config::{check, parse};

    #[test]
    fn each_missing_privilege_names_the_promise_and_the_grant() {
        let text = "[[link]]\nname = \"up\"\nrate = \"1Mbit/s\"\nnetns = \"lab\"\n";
        let config = check(&parse("t", text).expect("document")).expect("configuration");
        let none = CapabilitySet::empty();
        let said = Missing(missing(&config, none, Some("no tenant can run".into()))).to_string();
        insta::assert_snapshot!(said, @r#"
    the promises of this configuration cannot be kept on this machine:
      - no tenant can run
      - CPU, disk and link guarantees need real-time priority: run as root, or grant CAP_SYS_NICE (setcap cap_sys_nice+ep moirai, or AmbientCapabilities=CAP_SYS_NICE in the service unit)
      - the TAPs of the links up need network administration: run as root, or grant CAP_NET_ADMIN in the same way
      - the network namespaces lab need CAP_SYS_ADMIN: run as root, or leave `netns` out
    "#);
        assert!(missing(&config, CapabilitySet::all(), None).is_empty());
    }

    #[test]
    fn a_host_without_links_needs_no_network_administration() {
        let config = check(&parse("t", "").expect("document")).expect("configuration");
        assert!(missing(&config, CapabilitySet::SYS_NICE, None).is_empty());
    }
}
