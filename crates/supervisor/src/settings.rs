//! The settings of a supervisor.

use std::time::Duration;

/// The settings of the supervisor of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupervisorSettings {
    /// The time in which a worker that is no longer wanted may finish its jobs before it is killed.
    /// Default: 30 s.
    pub grace: Duration,
    /// Whether a slot stays [`SlotState::Failed`](crate::SlotState::Failed) when its first launch
    /// fails before any worker of the endpoint was ready, so that the caller can end the program.
    /// Otherwise the slot backs off and tries again, as after every other failure. Default: true.
    pub give_up: bool,
}

impl Default for SupervisorSettings {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), give_up: true }
    }
}
