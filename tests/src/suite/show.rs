//! What `suite` shows of a suite's output: neither that tests have passed nor what they said; the
//! log has it.

/// Reads line by line.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// In the part of a program's output that has what its passing tests said.
    successes: bool,
}

impl Filter {
    /// Whether to show a line.
    pub(super) fn shows(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.successes = true,
            "failures:" => self.successes = false,
            _ if line.starts_with("test result: ") => self.successes = false,
            _ => {}
        }
        let passed = line.starts_with("test ") && line.ends_with(" ... ok");
        !self.successes && !passed && !line.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_progress_are_shown() {
        let output = "[ 1/9] test boot::pvh ... ok, 12.1 s\nrunning 2 tests\ntest a ... ok\n\
                      test b ... FAILED\n\nsuccesses:\n\n---- a stdout \
                      ----\nnoise\n\nsuccesses:\n    a\n\n\
                      failures:\n---- b stdout ----\nleft: 1\n\ntest result: FAILED. 1 \
                      passed\nnext\n";
        let mut filter = Filter::default();
        let shown: Vec<_> = output.lines().filter(|line| filter.shows(line)).collect();
        let expected = "[ 1/9] test boot::pvh ... ok, 12.1 s|running 2 tests|test b ... \
                        FAILED|failures:|\
                        ---- b stdout ----|left: 1|test result: FAILED. 1 passed|next";
        assert_eq!(shown.join("|"), expected);
    }
}
