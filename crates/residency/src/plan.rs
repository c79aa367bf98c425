//! The consequence of a request, before it comes.

use std::time::Duration;

use tokio::time::Instant;

use crate::decide::shortage;
use crate::endpoint::Worker;
use crate::residency::Residency;
use crate::waiting::Waiting;
use crate::{Ask, EndpointId, Refusal, RefusalReason, WorkerId};

/// The consequence of a request that needs an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// A worker is in memory.
    Resident,
    /// A worker fits beside all others.
    Fits,
    /// The workers of these endpoints leave, at the latest when the request can wait no longer.
    Evicts(Vec<EndpointId>),
    /// No worker that may leave frees enough now: others load, or leave already.
    Waits,
    /// A worker can never be in memory beside what must stay.
    Never(Refusal),
}

impl Residency {
    /// Returns what a request for this endpoint would lead to, whose worker gets this GPU; `None` for an unknown
    /// endpoint.
    pub fn plan(&self, id: EndpointId, gpu: Option<usize>, now: Instant) -> Option<Plan> {
        let endpoint = self.endpoints.get(&id)?;
        if self.has_resident(id) {
            return Some(Plan::Resident);
        }
        let worker = WorkerId { endpoint: id, slot: 0 };
        let chain = Vec::new();
        let ask = Ask { worker, gpu, queued: 1, is_required: false, chain, deadline: now };
        let need = endpoint.need(&self.patience.assumed).all_on(gpu);
        let times = (Duration::ZERO, Duration::ZERO);
        let waiting = Waiting::new(ask, need.clone(), times, now);
        let immovable = self.immovable(&waiting.ask);
        if !shortage(&need, &immovable, &self.budget).is_zero() {
            return Some(Plan::Never(self.refusal(&waiting, RefusalReason::TooLarge, immovable)));
        }
        let is_own = |other: &WorkerId, it: &Worker| *other == worker && it.hibernates();
        let staying = self.memory(|id, it| !it.is_leaving() && !is_own(id, it));
        let short = shortage(&need, &staying, &self.budget);
        if short.is_zero() {
            return Some(Plan::Fits);
        }
        Some(match self.victims(worker, &short, true, now) {
            None => Plan::Waits,
            Some(victims) => {
                let mut ids: Vec<_> = victims.iter().map(|it| it.worker.endpoint).collect();
                ids.sort_unstable();
                ids.dedup();
                Plan::Evicts(ids)
            }
        })
    }
}
