//! What the two connections of a worker tell each other, for whether it hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// A worker that has left this many pings unanswered is silent: it is a little less than three
/// heartbeats. They are counted, not timed, so that a pause of this very process is not blamed on its
/// workers.
pub(crate) const UNANSWERED_PINGS: u32 = 5;

/// How fast JSON is decoded at least: small values, on a machine that is slow or busy.
const DECODED_BYTES_PER_SECOND: f64 = 2e6;

/// Shared by the data connection, which knows what the worker computes, and the control connection,
/// which knows whether its interpreter answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    jobs: AtomicUsize,
    bytes: AtomicUsize,
    unanswered: AtomicU32,
}

impl Pulse {
    /// Notes how many jobs the worker holds, and the bytes of their bodies.
    pub(crate) fn set_load(&self, jobs: usize, bytes: usize) {
        self.0.jobs.store(jobs, Relaxed);
        self.0.bytes.store(bytes, Relaxed);
    }

    /// Returns how long the worker may take to decode what it holds, in one call that holds its
    /// interpreter.
    pub(crate) fn time_to_decode(&self) -> Duration {
        Duration::from_secs_f64(self.0.bytes.load(Relaxed) as f64 / DECODED_BYTES_PER_SECOND)
    }

    /// Notes how many pings in a row the worker has not answered.
    pub(crate) fn set_unanswered(&self, pings: u32) {
        self.0.unanswered.store(pings, Relaxed);
    }

    /// Tells whether it holds no job.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.jobs.load(Relaxed) == 0
    }

    /// Tells whether its interpreter has been silent for too long for one that is idle.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.unanswered.load(Relaxed) >= UNANSWERED_PINGS
    }
}
