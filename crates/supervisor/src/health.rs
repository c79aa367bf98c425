//! The health and the readiness of an endpoint, computed from the states of its slots.

use std::time::Duration;

use litplex_core::{Cause, WorkerExit};
use tokio::time::Instant;

use crate::SlotState;

/// The health of an endpoint, for status pages and probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// A worker starts for the first time, and none was lost.
    Starting,
    /// Every wanted slot has a ready worker; also when no slot is wanted.
    Ready,
    /// A worker is missing or being replaced; with the reason of the first such slot.
    Degraded(WorkerExit),
}

/// Returns the health of an endpoint with these slots. Slots that are no longer wanted do not
/// count.
pub fn health(slots: &[SlotState]) -> Health {
    let starting = |slot: &SlotState| matches!(slot, SlotState::Starting { .. });
    match slots.iter().find_map(reason) {
        Some(reason) => Health::Degraded(reason),
        None if slots.iter().any(starting) => Health::Starting,
        None => Health::Ready,
    }
}

/// The readiness of an endpoint: whether, or when, a worker takes jobs. The queue has an outlook
/// instead, which the composition root makes of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// A worker takes jobs.
    Ready,
    /// No worker takes jobs yet, and one is starting.
    Coming {
        /// The time at which the first is expected to be ready, possibly in the past; `None` while
        /// no start time is known or no worker was launched.
        at: Option<Instant>,
    },
    /// No worker is wanted: the endpoint is scaled to zero.
    Asleep {
        /// The time that a worker takes to start; `None` while that is unknown.
        start_time: Option<Duration>,
    },
    /// Every slot backs off or has failed.
    Down {
        /// The reason why the slot with the next launch has no worker.
        gone: WorkerExit,
        /// The earliest time at which a worker is expected: the next launch, plus the start time if
        /// that is known. `None` if no worker will be launched.
        until: Option<Instant>,
    },
}

impl Readiness {
    /// Returns the time until a worker is expected to take jobs; `None` while that is unknown.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Ready => Some(Duration::ZERO),
            Self::Coming { at } => at.map(|at| at.saturating_duration_since(now)),
            Self::Asleep { start_time } => *start_time,
            Self::Down { until, .. } => until.map(|until| until.saturating_duration_since(now)),
        }
    }
}

/// Returns the readiness of an endpoint with these slots, given the number of wanted slots and the
/// start time of its workers.
pub fn readiness(slots: &[SlotState], wanted: usize, start_time: Option<Duration>) -> Readiness {
    if slots.iter().any(|slot| matches!(slot, SlotState::Ready(_))) {
        return Readiness::Ready;
    }
    if wanted == 0 {
        return Readiness::Asleep { start_time };
    }
    if slots.len() >= wanted && slots[..wanted].iter().all(is_down) {
        return down(&slots[..wanted], start_time);
    }
    let launched = slots.iter().filter_map(|slot| match slot {
        SlotState::Starting { since, .. } => Some(*since),
        _ => None,
    });
    Readiness::Coming { at: launched.min().and_then(|since| Some(since + start_time?)) }
}

fn down(slots: &[SlotState], start_time: Option<Duration>) -> Readiness {
    let tries = slots.iter().filter_map(|slot| match slot {
        SlotState::BackingOff { until, .. } => Some((*until, slot)),
        _ => None,
    });
    let first = tries.min_by_key(|(until, _)| *until);
    let slot = first.map_or(&slots[0], |(_, slot)| slot);
    Readiness::Down {
        gone: reason(slot).unwrap_or_else(|| WorkerExit::new(Cause::Start, "")),
        until: first.map(|(until, _)| until + start_time.unwrap_or_default()),
    }
}

fn is_down(slot: &SlotState) -> bool {
    matches!(slot, SlotState::BackingOff { .. } | SlotState::Failed(_))
}

/// Returns the reason why a slot has no ready worker, if its last worker failed.
fn reason(slot: &SlotState) -> Option<WorkerExit> {
    match slot {
        SlotState::BackingOff { gone, .. } => Some(gone.clone()),
        SlotState::Failed(error) => Some(WorkerExit::new(Cause::Start, error.reason.clone())),
        SlotState::Starting { after, .. } => after.clone(),
        SlotState::Ready(_) | SlotState::Draining | SlotState::Stopped => None,
    }
}

#[cfg(test)]
mod tests {
    use litplex_core::LaunchError;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn killed(reason: &str) -> WorkerExit {
        WorkerExit::new(Cause::Signal, reason)
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
        SlotState::Failed(LaunchError::new(reason))
    }

    #[test]
    fn an_endpoint_is_ready_when_all_wanted_slots_are_ready() {
        let now = Instant::now();
        let degraded = |reason: &str| Health::Degraded(killed(reason));
        assert_eq!(health(&[]), Health::Ready);
        assert_eq!(health(&[ready(), SlotState::Draining]), Health::Ready);
        assert_eq!(health(&[ready(), starting(now, None)]), Health::Starting);
        assert_eq!(health(&[ready(), starting(now, Some("killed"))]), degraded("killed"));
        let no_weights = WorkerExit::new(Cause::Start, "no weights");
        assert_eq!(
            health(&[starting(now, None), failed("no weights")]),
            Health::Degraded(no_weights)
        );
    }

    #[test]
    fn jobs_wait_for_a_starting_worker_with_a_known_time() {
        let now = Instant::now();
        let slots = [backing_off("killed", now + 9 * SECOND), starting(now, None)];
        let coming = readiness(&slots, 2, Some(5 * SECOND));
        assert_eq!(coming, Readiness::Coming { at: Some(now + 5 * SECOND) });
        assert_eq!(coming.wait(now + SECOND), Some(4 * SECOND));
        assert_eq!(coming.wait(now + 6 * SECOND), Some(Duration::ZERO));
        assert_eq!(readiness(&slots, 2, None), Readiness::Coming { at: None });
        assert_eq!(readiness(&[slots[0].clone(), ready()], 2, None), Readiness::Ready);
    }

    #[test]
    fn an_endpoint_without_slots_is_asleep_or_about_to_start() {
        let start_time = Some(SECOND);
        assert_eq!(readiness(&[], 0, start_time), Readiness::Asleep { start_time });
        assert_eq!(
            readiness(&[SlotState::Draining], 0, None),
            Readiness::Asleep { start_time: None }
        );
        assert_eq!(readiness(&[], 1, start_time), Readiness::Coming { at: None });
        assert_eq!(
            readiness(&[SlotState::Draining], 1, start_time),
            Readiness::Coming { at: None }
        );
    }

    #[test]
    fn an_endpoint_is_down_until_its_first_slot_may_be_ready() {
        let now = Instant::now();
        let slots =
            [failed("no weights"), backing_off("b", now + 2 * SECOND), backing_off("a", now)];
        let until = Some(now + 3 * SECOND);
        assert_eq!(
            readiness(&slots[..2], 2, Some(SECOND)),
            Readiness::Down { gone: killed("b"), until }
        );
        let gone = killed("a");
        assert_eq!(readiness(&slots, 3, None), Readiness::Down { gone, until: Some(now) });
        let gone = WorkerExit::new(Cause::Start, "no weights");
        assert_eq!(readiness(&slots, 1, None), Readiness::Down { gone, until: None });
    }
}
