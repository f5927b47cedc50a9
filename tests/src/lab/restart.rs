//! What happens if a machine ends before its tests do.
//!
//! If a machine stood still, another one begins with the test that the first was at: emulated
//! machines stood still once in a while (docs/lab.md), and that is not the test's fault. If the
//! next one stands still at the same test, the test has failed. It has also failed if a machine
//! ends in any other way.

/// The tests that are still to run.
#[derive(Debug)]
pub(super) struct Plan {
    left: Vec<String>,
    /// The test with which a machine stood still.
    stood: Option<String>,
}

/// What to do after a machine that ended early.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Decision {
    /// Begin another machine with this test, which another one stood still at.
    OnceMore(String),
    /// This test has failed with its machine; go on behind it.
    Failed(String),
    /// The machine did not even begin with its tests: so would the next one.
    GiveUp,
    /// Its tests had all ended.
    Done,
}

impl Plan {
    pub(super) fn new(tests: Vec<String>) -> Self {
        Self { left: tests, stood: None }
    }

    pub(super) fn left(&self) -> &[String] {
        &self.left
    }

    /// A machine has ended by itself; all of its tests ran.
    pub(super) fn done(&mut self) {
        self.left.clear();
    }

    /// A machine has ended before its command did: that many of its tests had begun, and that many
    /// ended.
    pub(super) fn machine_ended(&mut self, begun: usize, ended: usize, stood: bool) -> Decision {
        if begun == 0 {
            return Decision::GiveUp;
        }
        self.left.drain(..ended.min(self.left.len()));
        // Between two tests it is the next one's machine.
        let Some(at) = self.left.first().cloned() else { return Decision::Done };
        if stood && self.stood.as_ref() != Some(&at) {
            self.stood = Some(at.clone());
            return Decision::OnceMore(at);
        }
        self.left.remove(0);
        Decision::Failed(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new(["a", "b", "c"].map(str::to_owned).to_vec())
    }

    #[test]
    fn a_machine_that_stood_still_is_begun_once_more_with_the_test_that_it_was_at() {
        let mut plan = plan();
        assert_eq!(plan.machine_ended(2, 1, true), Decision::OnceMore("b".to_owned()));
        assert_eq!(plan.left(), ["b", "c"]);
        assert_eq!(plan.machine_ended(1, 0, true), Decision::Failed("b".to_owned()));
        assert_eq!(plan.left(), ["c"]);
    }

    #[test]
    fn each_test_has_its_own_second_machine() {
        let mut plan = plan();
        assert_eq!(plan.machine_ended(1, 0, true), Decision::OnceMore("a".to_owned()));
        assert_eq!(plan.machine_ended(2, 1, true), Decision::OnceMore("b".to_owned()));
        assert_eq!(plan.machine_ended(2, 1, true), Decision::OnceMore("c".to_owned()));
        assert_eq!(plan.machine_ended(1, 0, true), Decision::Failed("c".to_owned()));
        assert!(plan.left().is_empty());
    }

    #[test]
    fn a_machine_that_ends_in_another_way_has_failed_its_test_at_once() {
        let mut plan = plan();
        assert_eq!(plan.machine_ended(1, 0, false), Decision::Failed("a".to_owned()));
        assert_eq!(plan.left(), ["b", "c"]);
    }

    #[test]
    fn a_machine_that_begins_nothing_is_not_tried_again() {
        assert_eq!(plan().machine_ended(0, 0, true), Decision::GiveUp);
    }

    #[test]
    fn tests_that_have_ended_are_not_taken_for_those_that_a_machine_ended_with() {
        let mut plan = plan();
        assert_eq!(plan.machine_ended(1, 1, false), Decision::Failed("b".to_owned()));
        assert_eq!(plan.machine_ended(1, 1, false), Decision::Done);
    }
}
