//! Promises in plain words, for `moirai explain`.

use std::fmt;

use super::promise::{AdmittedOverhead, Got, Promise, Promises};
use super::quantities::{Mebibytes, Percent, WakeUp, rounded};
use super::report::ContractReport;
use crate::units::Time;

/// What a miss and an excuse are, for all resources.
const WORDS: &str = "\
A miss: a slice that was promised from a wake-up or a refill on, was wanted until its deadline
and was not given by then. On a disk or a link also a request or packet that was begun out of a
promised slice and ended after its deadline. A slice is missed at most once.
An excuse: the machine itself stood still between the promise and the deadline, for long enough
to have caused the lateness. Such a slice counts as excused, not as missed.
";

impl fmt::Display for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = Mebibytes(self.memory);
        if self.refused {
            writeln!(f, "{}: refused, so that nothing is promised to it", self.tenant)?;
            self.because.lines().try_for_each(|reason| writeln!(f, "    {reason}"))?;
            writeln!(f, "\nIt asks for {memory} of memory and, if it were admitted:\n")?;
        } else if !self.ended.is_empty() {
            writeln!(f, "{}: has ended, so that nothing is promised to it any more", self.tenant)?;
            writeln!(f, "    {}", self.ended)?;
            writeln!(f, "\nWhile it ran, {memory} of memory were reserved and promised was:\n")?;
        } else {
            writeln!(f, "{}: {memory} of memory are reserved\n", self.tenant)?;
        }
        for part in &self.parts {
            part.say(self, f)?;
            writeln!(f)?;
        }
        write!(f, "{WORDS}")
    }
}

impl Promise {
    fn say(&self, whole: &Promises, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, part, contract, .. } = self;
        let ContractReport { period_ns, slice_ns, deadline_ns, extra } = *contract;
        let [period, slice, deadline] = [period_ns, slice_ns, deadline_ns].map(Time);
        if slice_ns == 0 {
            writeln!(
                f,
                "{resource}, {part}: nothing is promised; it lives on slack, weight {extra}"
            )?;
            return self.say_got(whole.refused, f);
        }
        let share = Percent(self.reserved);
        writeln!(f, "{resource}, {part}: {slice} in every {period} by {deadline} ({share})")?;
        writeln!(
            f,
            "    from       its wake-up: {slice} within {deadline} of it, if {period} have passed"
        )?;
        writeln!(
            f,
            "               since the last slice; while it wants more, again every {period}"
        )?;
        if let (Some(_), Some(costs)) = (self.done_by_ns, whole.core_costs) {
            let latency = Time(rounded(costs.wake_p99));
            writeln!(
                f,
                "    done by    its wake-up + {deadline} + {latency}, if that slice is enough for \
                 it:\n\
                 \x20              {}",
                WakeUp(costs)
            )?;
        }
        if let Some(blackout) = self.blackout_ns {
            writeln!(
                f,
                "    at worst   {} without any service while it wants some",
                Time(blackout)
            )?;
        }
        self.admitted.say(f)?;
        if extra > 0 {
            writeln!(f, "    beyond it  slack, with weight {extra}")?;
        }
        self.say_got(whole.refused, f)
    }

    fn say_got(&self, refused: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(got) = &self.got else { return Ok(()) };
        let Got { guaranteed_ns, extra_ns, misses, excused, kept, because } = got;
        let whole = |nanos: &u64| Time(nanos / 1_000_000 * 1_000_000);
        let (guaranteed, extra) = (whole(guaranteed_ns), whole(extra_ns));
        if !refused {
            writeln!(
                f,
                "    so far     {misses} missed, {excused} excused; {guaranteed} of it, {extra} \
                 of slack"
            )?;
        }
        match kept {
            true => writeln!(f, "    kept       yes"),
            false => writeln!(f, "    kept       NO: {because}"),
        }
    }
}

impl AdmittedOverhead {
    /// What costs nothing here is left out: switches of disks and links, units of cores.
    fn say(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { switch_ns, cache_ns, blocking_ns, overrun_ns, nap_ns } = *self;
        let [switch, cache, blocking, overrun, nap] =
            [switch_ns, cache_ns, blocking_ns, overrun_ns, nap_ns].map(Time);
        let terms = [
            (
                switch_ns.saturating_add(cache_ns),
                format!("2 x ({switch} + {cache}) for the switches of a slice"),
            ),
            (blocking_ns, format!("{blocking} that others may have under way")),
            (overrun_ns, format!("{overrun} by which a slice may be overdrawn")),
        ];
        let counted = terms.into_iter().filter(|(nanos, _)| *nanos > 0).map(|(_, said)| said);
        let said = counted.collect::<Vec<_>>().join(",\n               ");
        match said.as_str() {
            "" => writeln!(f, "    admitted   nothing is counted beside it")?,
            said => writeln!(f, "    admitted   {said}")?,
        }
        if nap_ns > 0 {
            writeln!(
                f,
                "    naps       each further wake-up within a slice takes {nap} of what is left \
                 of\n\
                 \x20              it; where less is left than that, the rest is lost"
            )?;
        }
        Ok(())
    }
}
