use std::time::Duration;

use litplex_core::{Cause, Gone};
use tokio::time::Instant;

use crate::SlotState;

/// What an endpoint's slots amount to, for those who watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Some worker starts for the first time, and none is missing.
    Starting,
    /// Every wanted slot has a worker that takes jobs; also where none is wanted.
    Ready,
    /// Some worker is missing or being replaced, with the reason of the first such.
    Degraded(Gone),
}

/// Reads the health of an endpoint off its slots. Those that are no longer wanted do not count.
pub fn health(slots: &[SlotState]) -> Health {
    let starting = |slot: &SlotState| matches!(slot, SlotState::Starting { .. });
    match slots.iter().find_map(reason) {
        Some(reason) => Health::Degraded(reason),
        None if slots.iter().any(starting) => Health::Starting,
        None => Health::Ready,
    }
}

/// What an endpoint's slots amount to, for jobs that wait for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// Some worker takes jobs.
    Ready,
    /// None does yet, and some is on its way.
    Coming {
        /// When the first is expected to be ready, which may have passed; `None` while no start
        /// has been measured or none has begun.
        at: Option<Instant>,
    },
    /// No worker is wanted: the endpoint is scaled to zero.
    Asleep {
        /// How long one takes to start; `None` while no start has been measured.
        start_time: Option<Duration>,
    },
    /// Every slot backs off or has failed.
    Down {
        /// Why the slot that is tried first has no worker.
        gone: Gone,
        /// When a worker is expected at the earliest: its launch and, where one has been
        /// measured, its start. `None` if no worker will be launched.
        until: Option<Instant>,
    },
}

impl Outlook {
    /// How long until a worker is expected to take jobs; `None` where nothing is known.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Ready => Some(Duration::ZERO),
            Self::Coming { at } => at.map(|at| at.saturating_duration_since(now)),
            Self::Asleep { start_time } => *start_time,
            Self::Down { until, .. } => until.map(|until| until.saturating_duration_since(now)),
        }
    }
}

/// Reads off an endpoint's slots whether a job can expect a worker, given how many are wanted and
/// how long the last starts took.
pub fn outlook(slots: &[SlotState], wanted: usize, start_time: Option<Duration>) -> Outlook {
    if slots.iter().any(|slot| matches!(slot, SlotState::Ready(_))) {
        return Outlook::Ready;
    }
    if wanted == 0 {
        return Outlook::Asleep { start_time };
    }
    if slots.len() >= wanted && slots[..wanted].iter().all(is_down) {
        return down(&slots[..wanted], start_time);
    }
    let launched = slots.iter().filter_map(|slot| match slot {
        SlotState::Starting { since, .. } => Some(*since),
        _ => None,
    });
    Outlook::Coming { at: launched.min().and_then(|since| Some(since + start_time?)) }
}

fn down(slots: &[SlotState], start_time: Option<Duration>) -> Outlook {
    let tries = slots.iter().filter_map(|slot| match slot {
        SlotState::BackingOff { until, .. } => Some((*until, slot)),
        _ => None,
    });
    let first = tries.min_by_key(|(until, _)| *until);
    let slot = first.map_or(&slots[0], |(_, slot)| slot);
    Outlook::Down {
        gone: reason(slot).unwrap_or_else(|| Gone::new(Cause::Start, "")),
        until: first.map(|(until, _)| until + start_time.unwrap_or_default()),
    }
}

fn is_down(slot: &SlotState) -> bool {
    matches!(slot, SlotState::BackingOff { .. } | SlotState::Failed(_))
}

/// Why a slot that should have a worker has none, if anything went wrong.
fn reason(slot: &SlotState) -> Option<Gone> {
    match slot {
        SlotState::BackingOff { gone, .. } => Some(gone.clone()),
        SlotState::Failed(error) => Some(Gone::new(Cause::Start, error.reason.clone())),
        SlotState::Starting { after, .. } => after.clone(),
        SlotState::Ready(_) | SlotState::Draining | SlotState::Stopped => None,
    }
}

#[cfg(test)]
mod tests {
    use litplex_core::LaunchError;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn killed(reason: &str) -> Gone {
        Gone::new(Cause::Signal, reason)
    }

    fn ready() -> SlotState {
        SlotState::Ready(Duration::ZERO)
    }

    fn starting(since: Instant, after: Option<&str>) -> SlotState {
        SlotState::Starting { since, after: after.map(killed) }
    }

    fn backing_off(reason: &str, until: Instant) -> SlotState {
        SlotState::BackingOff { gone: killed(reason), traceback: None, until }
    }

    fn failed(reason: &str) -> SlotState {
        SlotState::Failed(LaunchError { reason: reason.into(), traceback: None })
    }

    #[test]
    fn an_endpoint_is_ready_when_all_its_wanted_slots_are() {
        let now = Instant::now();
        let degraded = |reason: &str| Health::Degraded(killed(reason));
        assert_eq!(health(&[]), Health::Ready);
        assert_eq!(health(&[ready(), SlotState::Draining]), Health::Ready);
        assert_eq!(health(&[ready(), starting(now, None)]), Health::Starting);
        assert_eq!(health(&[ready(), starting(now, Some("killed"))]), degraded("killed"));
        let no_weights = Gone::new(Cause::Start, "no weights");
        assert_eq!(
            health(&[starting(now, None), failed("no weights")]),
            Health::Degraded(no_weights)
        );
    }

    #[test]
    fn jobs_may_wait_for_what_starts_and_are_told_how_long() {
        let now = Instant::now();
        let slots = [backing_off("killed", now + 9 * SECOND), starting(now, None)];
        let coming = outlook(&slots, 2, Some(5 * SECOND));
        assert_eq!(coming, Outlook::Coming { at: Some(now + 5 * SECOND) });
        assert_eq!(coming.wait(now + SECOND), Some(4 * SECOND));
        assert_eq!(coming.wait(now + 6 * SECOND), Some(Duration::ZERO));
        assert_eq!(outlook(&slots, 2, None), Outlook::Coming { at: None });
        assert_eq!(outlook(&[slots[0].clone(), ready()], 2, None), Outlook::Ready);
    }

    #[test]
    fn an_endpoint_without_slots_sleeps_or_is_about_to_wake() {
        let start_time = Some(SECOND);
        assert_eq!(outlook(&[], 0, start_time), Outlook::Asleep { start_time });
        assert_eq!(outlook(&[SlotState::Draining], 0, None), Outlook::Asleep { start_time: None });
        assert_eq!(outlook(&[], 1, start_time), Outlook::Coming { at: None });
        assert_eq!(outlook(&[SlotState::Draining], 1, start_time), Outlook::Coming { at: None });
    }

    #[test]
    fn an_endpoint_is_down_until_the_first_of_its_slots_may_be_ready() {
        let now = Instant::now();
        let slots =
            [failed("no weights"), backing_off("b", now + 2 * SECOND), backing_off("a", now)];
        let until = Some(now + 3 * SECOND);
        assert_eq!(
            outlook(&slots[..2], 2, Some(SECOND)),
            Outlook::Down { gone: killed("b"), until }
        );
        let gone = killed("a");
        assert_eq!(outlook(&slots, 3, None), Outlook::Down { gone, until: Some(now) });
        let gone = Gone::new(Cause::Start, "no weights");
        assert_eq!(outlook(&slots, 1, None), Outlook::Down { gone, until: None });
    }
}
