use std::time::Duration;

use litplex_core::{Gone, LaunchError};
use tokio::time::Instant;

/// What a slot is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// Its worker was launched and loads the model.
    Starting {
        /// When it was launched.
        since: Instant,
        /// Why the worker before it ended or did not become ready; `None` where it is the first.
        after: Option<Gone>,
    },
    /// Its worker takes jobs; it became ready after this time.
    Ready(Duration),
    /// Its worker is gone, or did not become ready, and another is launched later.
    BackingOff {
        /// Why.
        gone: Gone,
        /// The traceback of the model's own code, if that kept it from becoming ready.
        traceback: Option<String>,
        /// When another is launched.
        until: Instant,
    },
    /// Its first worker did not become ready, before any of the endpoint ever was: nothing says
    /// that another would, and none is launched. See [`Settings::give_up`](crate::Settings).
    Failed(LaunchError),
    /// Its worker is no longer wanted and finishes.
    Draining,
    /// It has no worker and wants none; it goes with the last slot after it.
    Stopped,
}

/// What a slot must do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Launch a worker.
    Launch,
    /// End the worker that has not become ready.
    Abandon,
    /// Ask the worker to finish.
    Drain,
    /// Forget what kept it empty.
    Clear,
    /// Wait until something happens.
    Stay,
}

/// Decides what a slot does, given whether it is wanted.
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
    fn a_slot_that_backs_off_waits_its_time_while_it_is_wanted() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let gone = Gone::new(Cause::Signal, "killed");
        let state = SlotState::BackingOff { gone, traceback: None, until };
        assert_eq!(next_step(&state, true, now), Step::Stay);
        assert_eq!(next_step(&state, true, until), Step::Launch);
        assert_eq!(next_step(&state, false, now), Step::Clear);
    }

    #[test]
    fn a_slot_that_drains_is_left_to_finish_even_if_it_is_wanted_again() {
        let now = Instant::now();
        assert_eq!(next_step(&SlotState::Draining, true, now), Step::Stay);
        assert_eq!(next_step(&SlotState::Draining, false, now), Step::Stay);
        assert_eq!(next_step(&SlotState::Stopped, true, now), Step::Launch);
    }
}
