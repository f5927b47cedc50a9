//! Tells which threads have asked the kernel for what their role does not allow
//! (`moirai_confine`): each call of each thread once in a while, because a thread that tries again
//! and again must not fill the log.

use std::collections::BTreeSet;

use moirai_confine::{Violation, violations};
use moirai_scheduler::{Moment, Span};

/// How often at most the same is told.
const AGAIN: Span = Span::from_secs(10);

/// What was told lately.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    told: BTreeSet<(String, u32)>,
    /// Since when.
    since: Moment,
    /// Refused since the last line.
    count: usize,
}

impl Refused {
    /// Looks, and says what is new.
    pub(crate) fn tell(&mut self, now: Moment) {
        let (seen, made) = violations();
        let named = seen.into_iter().map(|Violation { thread, call }| (name(thread), call));
        for (thread, call, count) in self.news(now, named.collect(), made) {
            tracing::error!(
                thread,
                count,
                "asked for system call {call}, which is not for it, and was refused: an intrusion, \
                 or a bug"
            );
        }
    }

    /// Whom to tell of, with the call and how many were refused since the last time.
    fn news(
        &mut self,
        now: Moment,
        seen: BTreeSet<(String, u32)>,
        made: usize,
    ) -> Vec<(String, u32, usize)> {
        if now.since(self.since) >= AGAIN {
            self.told.clear();
            self.since = now;
        }
        self.count += made;
        let new: Vec<_> = seen.difference(&self.told).cloned().collect();
        self.told.extend(new.iter().cloned());
        let with_count = |(thread, call)| (thread, call, std::mem::take(&mut self.count));
        new.into_iter().map(with_count).collect()
    }
}

fn name(thread: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
    name.map_or_else(|_| "one that has ended".to_owned(), |name| name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_call_of_the_same_thread_is_told_once_in_ten_seconds() {
        let mut refused = Refused::default();
        let seen = |calls: &[u32]| calls.iter().map(|call| ("io-a".to_owned(), *call)).collect();
        let mut news = |seconds: u64, calls: &[u32], made| {
            let now = Moment::from_nanos(Span::from_secs(100 + seconds).as_nanos());
            let news = refused.news(now, seen(calls), made);
            news.into_iter().map(|(_, call, count)| (call, count)).collect::<Vec<_>>()
        };
        assert_eq!(news(0, &[7], 1), [(7, 1)]);
        assert_eq!(news(1, &[7], 900), []);
        assert_eq!(news(2, &[7, 8], 2), [(8, 902)]);
        assert_eq!(news(3, &[], 0), []);
        assert_eq!(news(11, &[7], 5), [(7, 5)]);
    }
}
