//! The target that the owner of the slots sets, and the supervisor's record.

use std::collections::BTreeMap;
use std::time::Duration;

use litplex_core::Cause;

/// The target of a supervisor, set by the owner of the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    /// The number of slots that should have a worker.
    pub(crate) workers: usize,
    /// Set once all workers must stop, to the time in which they may finish.
    pub(crate) stop: Option<Duration>,
}

/// The measurements of an endpoint's workers so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The time from a worker's launch until it is ready: a mean in which the last start weighs
    /// half. `None` until a worker was ready.
    pub start_time: Option<Duration>,
    /// For each slot, the number of launches after a worker that was lost or did not become ready.
    /// Counts survive their slots.
    pub restarts: Vec<u64>,
    /// The number of these launches by cause, over all slots.
    pub causes: BTreeMap<Cause, u64>,
}
