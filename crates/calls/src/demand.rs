//! The calls that requests of clients lead to.
//!
//! An endpoint that calls others, or a pipeline, learns which endpoints a request of it calls, directly or
//! through others, and how often. Once a request has failed because one of these could not answer in
//! time, requests claim their calls of it when they arrive: one that would come too late is refused
//! before work is done for it. Endpoints without which requests are answered all the same are no reason
//! to refuse one. `observed.rs` watches the requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litplex_core::{Outcome, ServeError};
use litplex_scheduler::Pace;

/// The part of the time of a request that its calls may be expected to take.
const SAFE_PART: f64 = 0.9;

/// The weight of a new request in what is learned.
const WEIGHT_OF_NEW: f64 = 0.05;

/// The units in which calls are claimed, for each call.
const UNITS: f64 = 1000.0;

/// The state of an endpoint as a callee and as a caller.
#[derive(Debug, Default)]
pub struct Demand {
    /// The calls of this endpoint, in thousandths, that requests in progress have not made, or not to the
    /// end.
    claimed: AtomicU64,
    /// The calls that a request to this endpoint leads to.
    learned: Mutex<Learned>,
}

impl Demand {
    /// Returns the calls that a request to this endpoint leads to.
    pub(crate) fn learned(&self) -> MutexGuard<'_, Learned> {
        lock(&self.learned)
    }
}

/// The calls that a request leads to, as those before it have shown.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    pub(crate) callees: Vec<Callee>,
    /// The seconds that a request takes beyond those that its busiest callee was expected to take.
    pub(crate) rest: f64,
}

/// An endpoint that requests call.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(crate) endpoint: String,
    /// The mean number of calls of a request.
    pub(crate) calls: f64,
    /// Whether the last request for which it had no time failed.
    pub(crate) is_needed: bool,
}

impl Learned {
    fn callee(&mut self, endpoint: &str, calls: f64) -> &mut Callee {
        let known = self.callees.iter().position(|callee| callee.endpoint == endpoint);
        let place = known.unwrap_or_else(|| {
            self.callees.push(Callee { endpoint: endpoint.to_owned(), calls, is_needed: false });
            self.callees.len() - 1
        });
        &mut self.callees[place]
    }

    /// Learns from the calls of a request that was answered.
    pub(crate) fn answered(&mut self, calls: &[ObservedCallee], rest: f64) {
        for callee in &mut self.callees {
            callee.calls -= WEIGHT_OF_NEW * callee.calls;
        }
        for ObservedCallee { endpoint, begun, has_failed, .. } in calls {
            let is_known = self.callees.iter().any(|callee| callee.endpoint == *endpoint);
            let callee = self.callee(endpoint, *begun);
            if is_known {
                callee.calls += WEIGHT_OF_NEW * begun;
            }
            callee.is_needed &= !has_failed;
        }
        self.rest += WEIGHT_OF_NEW * (rest - self.rest);
    }

    /// Learns from a request that a callee had no time for.
    pub(crate) fn failed(&mut self, calls: &[ObservedCallee]) {
        for ObservedCallee { endpoint, begun, has_failed, open, .. } in calls {
            if *has_failed || *open > 0 {
                self.callee(endpoint, *begun).is_needed = true;
            }
        }
    }
}

/// The calls of one endpoint that were made for a request.
#[derive(Debug)]
pub(crate) struct ObservedCallee {
    pub(crate) endpoint: String,
    pub(crate) claim: Option<Claim>,
    /// The number of calls that have begun.
    pub(crate) begun: f64,
    /// The number of those that have not ended.
    pub(crate) open: u32,
    /// Whether one failed, and the request has made no other call since.
    pub(crate) has_failed: bool,
}

/// The calls of a callee that a request in progress is expected to make. A drop releases them.
#[derive(Debug)]
pub(crate) struct Claim {
    callee: Arc<Demand>,
    left: u64,
}

impl Claim {
    /// Claims calls. Returns the number that was claimed before, too.
    pub(crate) fn take(callee: &Arc<Demand>, calls: f64) -> (f64, Self) {
        let left = (calls * UNITS) as u64;
        let ahead = callee.claimed.fetch_add(left, Relaxed);
        (ahead as f64 / UNITS, Self { callee: callee.clone(), left })
    }

    pub(crate) fn release(&mut self, calls: f64) {
        let released = self.left.min((calls * UNITS) as u64);
        self.left -= released;
        self.callee.claimed.fetch_sub(released, Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.callee.claimed.fetch_sub(self.left, Relaxed);
    }
}

/// The wait of a request for its calls of one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// The calls that requests before it have claimed.
    pub(crate) ahead: f64,
    /// Its own.
    pub(crate) calls: f64,
    /// The pace of the endpoint.
    pub(crate) pace: Pace,
}

impl Wait {
    /// Returns the time until its calls are answered.
    pub(crate) fn time(&self) -> Duration {
        self.pace.time_for(self.ahead + self.calls)
    }

    /// Returns a refusal if the calls, and the rest of the request, take longer than it has. Calls that
    /// begin at once are not refused.
    pub(crate) fn check(&self, rest: Duration, left: Duration, endpoint: &str) -> Outcome<()> {
        let (time, safe) = (self.time() + rest, left.mul_f64(SAFE_PART));
        if self.ahead + self.calls <= self.pace.capacity as f64 || time <= safe {
            return Ok(());
        }
        let detail = format!(
            "`{endpoint}`, which this request needs, has too many calls to answer: {:.0}, with which a \
             response takes about {:.1} s, and this request has {:.1} s",
            self.ahead,
            time.as_secs_f64(),
            left.as_secs_f64(),
        );
        Err(ServeError::overloaded(detail, (time - safe).as_secs() + 1))
    }
}

pub(crate) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
