//! Leaves a thread what it has opened, and of the file system only what it has to read.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// The kernel has Landlock, and refuses the rules.
#[derive(Debug, thiserror::Error)]
#[error("no rules for files: {0}")]
pub struct FilesError(#[from] RulesetError);

/// Lets the calling thread, and those that it makes from now on, open nothing but files beneath
/// `readable`, for reading. No TCP port can be had or reached, and no process that is outside be
/// signalled unless it `signals`. What is open stays as it is. `false` if the kernel has no
/// Landlock; an older one restricts what it knows.
///
/// # Errors
/// [`FilesError`]; nothing has changed then.
pub fn leave_files(readable: &[&Path], signals: bool) -> Result<bool, FilesError> {
    let newest = ABI::V6;
    let mut scope = Scope::from_all(newest);
    if signals {
        scope.remove(Scope::Signal);
    }
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(scope)?
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::ReadFile))?;
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own, which is shut in for good.
    #[test]
    fn a_thread_that_is_shut_in_opens_nothing_and_uses_what_it_has() {
        let file = std::fs::File::open("/proc/self/stat").expect("a file");
        let shut_in = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).expect("given up");
            if !leave_files(&[], false).expect("rules") {
                eprintln!("NOT TESTED HERE: no Landlock");
                assert!(std::env::var_os("MOIRAI_REQUIRE_LANDLOCK").is_none());
                return;
            }
            let refused = std::fs::File::open("/proc/self/stat").expect_err("refused");
            assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
            let mut text = String::new();
            std::io::Read::read_to_string(&mut &file, &mut text).expect("what is open is readable");
        });
        shut_in.join().expect("the thread");
    }
}
