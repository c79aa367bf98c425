//! The states of a slot, and the decision on its next step.

use std::time::Duration;

use litplex_core::{LaunchError, WorkerExit};
use tokio::time::Instant;

/// The state of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// The worker was launched and loads the model.
    Starting {
        /// The time of the launch.
        since: Instant,
        /// The reason why the worker before it ended or did not become ready; `None` for the first.
        after: Option<WorkerExit>,
    },
    /// The worker takes jobs; it became ready this long after its launch.
    Ready(Duration),
    /// The worker is gone, or did not become ready, and another is launched later.
    BackingOff {
        /// The reason.
        gone: WorkerExit,
        /// The traceback, if the model's own code kept the worker from becoming ready.
        traceback: Option<String>,
        /// The time of the next launch.
        until: Instant,
    },
    /// The first worker did not become ready, and no worker of the endpoint ever was: another
    /// launch is unlikely to help, so there is none. See
    /// [`SupervisorSettings::give_up`](crate::SupervisorSettings).
    Failed(LaunchError),
    /// The worker is no longer wanted and finishes.
    Draining,
    /// The slot has no worker and wants none; it is removed once no slot follows it.
    Stopped,
}

impl SlotState {
    /// The labels of all states, as metrics have them.
    pub const LABELS: [&str; 6] =
        ["starting", "ready", "backing_off", "failed", "draining", "stopped"];

    /// Returns the label of the state, one of [`LABELS`](Self::LABELS).
    pub fn label(&self) -> &'static str {
        Self::LABELS[match self {
            Self::Starting { .. } => 0,
            Self::Ready(_) => 1,
            Self::BackingOff { .. } => 2,
            Self::Failed(_) => 3,
            Self::Draining => 4,
            Self::Stopped => 5,
        }]
    }
}

/// The next step of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Launch a worker.
    Launch,
    /// Kill the worker that has not become ready.
    Abandon,
    /// Ask the worker to finish.
    Drain,
    /// Drop the reason of the backoff or failure.
    Clear,
    /// Wait for the next event.
    Stay,
}

/// Returns the next step of a slot, given whether it is wanted.
pub(crate) fn next_step(state: &SlotState, wanted: bool, now: Instant) -> Step {
    match (state, wanted) {
        (SlotState::Stopped, true) => Step::Launch,
        (SlotState::BackingOff { until, .. }, true) if *until <= now => Step::Launch,
        (SlotState::Starting { .. }, false) => Step::Abandon,
        (SlotState::Ready(_), false) => Step::Drain,
        (SlotState::BackingOff { .. } | SlotState::Failed(_), false) => Step::Clear,
        _ => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use litplex_core::Cause;

    use super::*;

    #[test]
    fn a_wanted_slot_launches_after_its_backoff() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let gone = WorkerExit::new(Cause::Signal, "killed");
        let state = SlotState::BackingOff { gone, traceback: None, until };
        assert_eq!(next_step(&state, true, now), Step::Stay);
        assert_eq!(next_step(&state, true, until), Step::Launch);
        assert_eq!(next_step(&state, false, now), Step::Clear);
    }

    #[test]
    fn a_draining_slot_finishes_even_if_it_is_wanted_again() {
        let now = Instant::now();
        assert_eq!(next_step(&SlotState::Draining, true, now), Step::Stay);
        assert_eq!(next_step(&SlotState::Draining, false, now), Step::Stay);
        assert_eq!(next_step(&SlotState::Stopped, true, now), Step::Launch);
    }
}
