//! Requests of clients that lead to calls: their admission, and what `demand.rs` learns from them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use litplex_core::{CallEnd, ObserveCalls, Outcome};
use litplex_metrics::Shed;
use litplex_scheduler::Endpoint;
use tokio::time::Instant;

use crate::demand::{Callee, Claim, ObservedCallee, Wait, lock};
use crate::{Registry, Target, TimeBudget};

/// A request of a client, whose calls are observed.
#[derive(Debug)]
pub struct ObservedRequest {
    target: Arc<Target>,
    began: Instant,
    /// The time that its busiest callee was expected to take.
    expected: Duration,
    callees: Mutex<Vec<ObservedCallee>>,
}

impl ObservedRequest {
    /// Admits a request to an endpoint that makes calls, or refuses it if an endpoint that it needs will
    /// not be able to answer it in time.
    ///
    /// # Errors
    /// A counted 503 with `Retry-After`.
    pub(crate) fn admit(
        target: &Arc<Target>,
        registry: &Registry,
        budget: TimeBudget,
        now: Instant,
    ) -> Outcome<Self> {
        let (mut callees, mut expected) = (Vec::new(), Duration::ZERO);
        let learned = target.demand.learned();
        let rest = Duration::from_secs_f64(learned.rest);
        for Callee { endpoint, calls, .. } in learned.callees.iter().filter(|it| it.is_needed) {
            let Some(callee) = registry.get(endpoint) else { continue };
            let (ahead, claim) = Claim::take(&callee.demand, *calls);
            if let Some(pace) = callee.queue().and_then(Endpoint::pace) {
                let wait = Wait { ahead, calls: *calls, pace };
                let left = budget.deadline.saturating_duration_since(now).min(callee.timeout);
                wait.check(rest, left, endpoint).inspect_err(|_| {
                    target.metrics.shed(Shed::Deadline);
                })?;
                expected = expected.max(wait.time());
            }
            let (endpoint, claim) = (endpoint.clone(), Some(claim));
            let callee = ObservedCallee { endpoint, claim, begun: 0.0, open: 0, has_failed: false };
            callees.push(callee);
        }
        drop(learned);
        let (target, callees) = (target.clone(), Mutex::new(callees));
        Ok(Self { target, began: now, expected, callees })
    }

    /// Learns from the response with this status: of a stream, when its first items are there. Calls that
    /// it has not made by then are not expected any longer: a stream may last, and make none.
    pub fn answered(&self, status: u16, now: Instant) {
        let (mut callees, mut learned) = (lock(&self.callees), self.target.demand.learned());
        match status {
            503 | 504 => learned.failed(&callees),
            ..500 => {
                let rest = (now - self.began).saturating_sub(self.expected);
                learned.answered(&callees, rest.as_secs_f64());
            }
            _ => {}
        }
        callees.iter_mut().for_each(|callee| callee.claim = None);
    }
}

impl ObserveCalls for ObservedRequest {
    fn begun(&self, endpoint: &str, share: f64) {
        let mut callees = lock(&self.callees);
        // A request that goes on does so without the calls that failed.
        for callee in callees.iter_mut().filter(|callee| callee.has_failed) {
            callee.has_failed = false;
        }
        let known = callees.iter().position(|callee| callee.endpoint == endpoint);
        let place = known.unwrap_or_else(|| {
            let endpoint = endpoint.to_owned();
            let callee =
                ObservedCallee { endpoint, claim: None, begun: 0.0, open: 0, has_failed: false };
            callees.push(callee);
            callees.len() - 1
        });
        callees[place].begun += share;
        callees[place].open += 1;
    }

    fn ended(&self, endpoint: &str, share: f64, ended: CallEnd) {
        let mut callees = lock(&self.callees);
        let Some(callee) = callees.iter_mut().find(|callee| callee.endpoint == endpoint) else {
            return;
        };
        callee.open = callee.open.saturating_sub(1);
        callee.has_failed |= ended == CallEnd::Failed;
        if let Some(claim) = &mut callee.claim {
            claim.release(share);
        }
    }
}
