//! One run of the experiment: host service, receivers, tenants, measurement, and everything away
//! again.

use std::time::Duration;

use indicatif::ProgressBar;
use moirai_runtime::netns::in_netns;
use moirai_scheduler::{Moment, Span};

use super::player::{Played, Player};
use super::pulse::{self, PULSE};
use super::report::{NoiseReport, ReceiverReport, RunReport, ServiceReport, TenantReport};
use super::scene::{self, CINEMA, NEIGHBOURS, NETNS, RECEIVERS, Scene};
use super::servant::Servant;
use super::{DemoError, interrupted};
use crate::recorder::analysis::{Lateness, lateness};
use crate::recorder::{Arrival, Capture, Stalls, analyse};
use moirai_api::{PartStats, Stats, TenantStats};
use moirai_config::Holder;
use moirai_runtime::Stall;

/// How long the film plays alone before the neighbours come: it fixes the RTP clock.
const ALONE: Duration = Duration::from_secs(2);
/// How long the neighbours get to reach their full load.
const SETTLE: Duration = Duration::from_secs(1);
/// How long a tenant may take from its launch to its first report. On a loaded machine it is
/// seconds, and a run that began before would count fewer jobs than there were.
const BOOT: Duration = Duration::from_secs(20);
/// How many of ffmpeg's complaints are shown.
const COMPLAINTS: usize = 3;
const LOOK: Duration = Duration::from_millis(100);

/// What was measured in one run.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) report: RunReport,
    pub(super) noise: NoiseReport,
    /// Payload bytes that Moirai copied for `cinema`.
    pub(super) copied: u64,
    arrivals: Vec<Vec<Arrival>>,
}

impl Recording {
    /// How late every packet of every recorder was.
    pub(super) fn lateness(&self) -> Vec<Vec<Lateness>> {
        self.arrivals.iter().map(|arrivals| lateness(arrivals)).collect()
    }
}

/// Everything that listens.
struct Receivers {
    player: Player,
    recorders: Vec<(&'static str, Capture)>,
}

/// Plays the scene once.
pub(super) fn run(
    scene: &Scene,
    scheduling: bool,
    length: Duration,
    progress: &ProgressBar,
) -> Result<Recording, DemoError> {
    let title = if scheduling { "with scheduling" } else { "without scheduling" };
    let say = |text: &str| progress.set_message(format!("{title}: {text}"));
    say("starting the host service");
    let servant = Servant::start(scene, scheduling)?;
    let receivers = Receivers::start()?;
    say("the film begins");
    servant.launch(&scene.file("cinema.toml"))?;
    rest(ALONE, |_| say("the film plays alone"))?;
    servant.launch(&scene.file("pulse.toml"))?;
    servant.launch(&scene.file("neighbours.toml"))?;
    rest(SETTLE, |_| say("the neighbours begin"))?;
    pulse::wait_until_it_reports(&servant, BOOT)?;
    let (before, jobs_before) = (servant.stats()?, pulse::look(&servant)?);
    rest(length, |left| {
        say(&format!("{} s left, {} packets", left.as_secs() + 1, receivers.packets()));
    })?;
    let (after, jobs_after) = (servant.stats()?, pulse::look(&servant)?);
    let (played, arrivals) = receivers.finish();
    servant.end()?;
    let still: Vec<Stall> = after.stalls.iter().map(|&stall| still(stall)).collect();
    let tenants = tenants(&before, &after);
    let jobs = jobs_after.since(jobs_before, after.now_ns.saturating_sub(before.now_ns));
    let on_time = jobs.is_on_time(pulse::excused(&still, Moment::from_nanos(before.now_ns)));
    let stalls = Stalls { stalls: &still, used_permille: used_permille(&tenants) };
    let report = RunReport {
        receivers: seen(&played, &arrivals, &stalls),
        tenants,
        pulse: jobs,
        pulse_on_time: on_time,
        stalled_share: stalled_share(&still, before.now_ns, after.now_ns),
    };
    let micro = |nanos: u64| nanos / 1_000;
    Ok(Recording {
        report,
        noise: NoiseReport {
            p50: micro(after.noise.late_p50_ns),
            p99: micro(after.noise.late_p99_ns),
            max: micro(after.noise.late_max_ns),
        },
        copied: copied(&after),
        arrivals: arrivals.into_iter().map(|(_, arrivals)| arrivals).collect(),
    })
}

impl Receivers {
    fn start() -> Result<Self, DemoError> {
        let [(_, first), rest @ ..] = RECEIVERS;
        let player = Player::start(NETNS, scene::address(first))?;
        let start = |&(name, port): &(&'static str, u16)| {
            let capture = in_netns(NETNS, move || Capture::start(scene::address(port)));
            let failed = |source| DemoError::Namespace { name: NETNS.to_owned(), source };
            Ok((name, capture.map_err(failed)??))
        };
        let recorders = rest.iter().map(start).collect::<Result<_, DemoError>>()?;
        Ok(Self { player, recorders })
    }

    fn packets(&self) -> u64 {
        self.recorders.iter().map(|(_, capture)| capture.packets()).sum()
    }

    fn finish(self) -> (Played, Vec<(&'static str, Vec<Arrival>)>) {
        let played = self.player.finish();
        let finish = |(name, capture): (&'static str, Capture)| (name, capture.finish());
        (played, self.recorders.into_iter().map(finish).collect())
    }
}

/// Waits, and tells how long it still takes.
fn rest(time: Duration, mut tell: impl FnMut(Duration)) -> Result<(), DemoError> {
    let begin = moirai_runtime::instant();
    while moirai_runtime::since(begin) < time {
        if interrupted() {
            return Err(DemoError::Interrupted);
        }
        let left = time.saturating_sub(moirai_runtime::since(begin));
        tell(left);
        std::thread::sleep(left.min(LOOK));
    }
    Ok(())
}

fn seen(
    played: &Played,
    arrivals: &[(&'static str, Vec<Arrival>)],
    stalls: &Stalls<'_>,
) -> Vec<ReceiverReport> {
    let [(name, _), ..] = RECEIVERS;
    let player = ReceiverReport {
        name: name.to_owned(),
        packets: played.frames,
        decode_errors: played.errors,
        complaints: played.complaints.iter().take(COMPLAINTS).cloned().collect(),
        ..ReceiverReport::default()
    };
    let recorders = arrivals.iter().map(|(name, arrivals)| {
        ReceiverReport::recorder((*name).to_owned(), &analyse(arrivals, stalls))
    });
    [player].into_iter().chain(recorders).collect()
}

/// How much of what it has reserved on the link the film takes.
fn used_permille(tenants: &[TenantReport]) -> u64 {
    let link = tenants.iter().find(|tenant| tenant.name == CINEMA).map(|tenant| tenant.link);
    let used = |link: ServiceReport| (link.guaranteed + link.extra) * 1000;
    link.map_or(1000, |link| used(link).div_ceil(link.reserved.max(1)))
}

fn tenants(before: &Stats, after: &Stats) -> Vec<TenantReport> {
    let elapsed = after.now_ns.saturating_sub(before.now_ns).max(1);
    let report = |name: &str| {
        let service = |kind| service(&part(before, name, kind), &part(after, name, kind), elapsed);
        TenantReport {
            name: name.to_owned(),
            cpu: service("cpu"),
            disk: service("disk"),
            link: service("link"),
        }
    };
    [CINEMA, PULSE].iter().chain(&NEIGHBOURS).map(|name| report(name)).collect()
}

/// A tenant's part in the resources of one kind; nothing if it has none.
fn part(stats: &Stats, tenant: &str, kind: &str) -> PartStats {
    let of_kind = |part: &&PartStats| part.resource.split('/').next() == Some(kind);
    let tenant = stats.tenants.iter().find(|stats| stats.name == Holder::from(tenant));
    let parts = tenant.map(|tenant: &TenantStats| tenant.parts.as_slice()).unwrap_or_default();
    parts.iter().find(of_kind).cloned().unwrap_or_default()
}

fn service(before: &PartStats, after: &PartStats, elapsed: u64) -> ServiceReport {
    let per_second = |before: u64, after: u64| {
        let service = u128::from(after.saturating_sub(before)) * 1_000_000_000;
        u64::try_from(service / u128::from(elapsed)).unwrap_or(u64::MAX)
    };
    ServiceReport {
        reserved: after.reserved,
        guaranteed: per_second(before.guaranteed_ns, after.guaranteed_ns),
        extra: per_second(before.extra_ns, after.extra_ns),
        misses: after.misses.saturating_sub(before.misses),
        misses_in_stall: after.misses_in_stall.saturating_sub(before.misses_in_stall),
    }
}

/// Payload bytes that Moirai copied on their way from disk to link, for the tenant that streams.
fn copied(stats: &Stats) -> u64 {
    let cinema = stats.tenants.iter().filter(|tenant| tenant.name == Holder::from(CINEMA));
    cinema.flat_map(|tenant| &tenant.parts).map(|part| part.copied_by_us_bytes).sum()
}

/// A stall as it came over the wire.
fn still((begin, end): (u64, u64)) -> Stall {
    Stall { begin: Moment::from_nanos(begin), end: Moment::from_nanos(end) }
}

/// Share of the time between `begin` and `end` that lies in stalls, each moment counted once.
fn stalled_share(stalls: &[Stall], begin: u64, end: u64) -> f64 {
    let (begin, end) = (Moment::from_nanos(begin), Moment::from_nanos(end));
    let mut inside: Vec<(Moment, Moment)> = stalls
        .iter()
        .map(|stall| (stall.begin.max(begin), stall.end.min(end)))
        .filter(|(begin, end)| begin < end)
        .collect();
    inside.sort_unstable();
    let (mut total, mut covered) = (Span::ZERO, begin);
    for (from, to) in inside {
        total += to.since(from.max(covered));
        covered = covered.max(to);
    }
    #[allow(clippy::cast_precision_loss, reason = "display only")]
    let share = total.as_nanos() as f64 / end.since(begin).max(Span::ONE).as_nanos() as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_that_overlap_are_counted_once_and_only_inside_the_run() {
        let stalls = [(0, 20), (15, 30), (90, 200)].map(still);
        assert!((stalled_share(&stalls, 10, 110) - 0.4).abs() < 1e-9);
        assert!(stalled_share(&[], 0, 0).abs() < 1e-9);
    }

    #[test]
    fn services_are_differences_per_second() {
        let before = PartStats { guaranteed_ns: 100, misses: 3, ..PartStats::default() };
        let after = PartStats { guaranteed_ns: 600, misses: 4, ..before.clone() };
        let service = service(&before, &after, 500_000_000);
        assert_eq!((service.guaranteed, service.misses), (1_000, 1));
    }
}
