//! The state that the two connections of a worker share, from which they judge whether it hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The number of unanswered pings after which a worker is silent: a little less than three heartbeats.
/// Pings are counted, not timed, so that workers do not pay for a pause of this process.
pub(crate) const UNANSWERED_PINGS: u32 = 5;

/// The lowest speed of decoding JSON, in bytes per second: small values on a slow or busy machine.
const DECODED_BYTES_PER_SECOND: f64 = 2e6;

/// The shared state. The data connection knows what the worker computes; the control connection knows
/// whether its interpreter answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    jobs: AtomicUsize,
    bytes: AtomicUsize,
    unanswered: AtomicU32,
}

impl Pulse {
    /// Sets the number of jobs that the worker holds, and the bytes of their bodies.
    pub(crate) fn set_load(&self, jobs: usize, bytes: usize) {
        self.0.jobs.store(jobs, Relaxed);
        self.0.bytes.store(bytes, Relaxed);
    }

    /// Returns the time that the worker may take to decode its jobs, in one call that holds the
    /// interpreter.
    pub(crate) fn time_to_decode(&self) -> Duration {
        Duration::from_secs_f64(self.0.bytes.load(Relaxed) as f64 / DECODED_BYTES_PER_SECOND)
    }

    /// Sets the number of pings in a row that the worker has not answered.
    pub(crate) fn set_unanswered(&self, pings: u32) {
        self.0.unanswered.store(pings, Relaxed);
    }

    /// Returns whether the worker holds no job.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.jobs.load(Relaxed) == 0
    }

    /// Returns whether the interpreter has been silent for too long for an idle worker.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.unanswered.load(Relaxed) >= UNANSWERED_PINGS
    }
}
