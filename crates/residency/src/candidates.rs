//! Which workers may leave, what they are worth, and what can never leave.

use std::time::Duration;

use tokio::time::Instant;

use crate::decide::shortage;
use crate::endpoint::{Endpoint, Phase, Worker};
use crate::price::Worth;
use crate::residency::Residency;
use crate::victims::Candidate;
use crate::{Ask, EndpointId, Memory, Usage, WorkerId};

impl Residency {
    /// Returns the workers that may leave for another endpoint's worker: idle ones, and for an urgent ask also
    /// those that finish what they have.
    pub(crate) fn candidates(
        &self,
        newcomer: WorkerId,
        is_urgent: bool,
        now: Instant,
    ) -> Vec<Candidate> {
        let mut candidates = if is_urgent { self.drainable(now) } else { self.idle(now) };
        let is_other = |it: &Candidate| {
            it.worker.endpoint != newcomer.endpoint
                || it.worker != newcomer && self.hibernates(it.worker)
        };
        candidates.retain(is_other);
        candidates
    }

    pub(crate) fn idle(&self, now: Instant) -> Vec<Candidate> {
        self.leaving_if(now, |usage, stays_until| usage == Usage::Idle && now >= stays_until)
    }

    pub(crate) fn drainable(&self, now: Instant) -> Vec<Candidate> {
        self.leaving_if(now, |_, stays_until| now >= stays_until)
    }

    pub(crate) fn unpinned(&self, now: Instant) -> Vec<Candidate> {
        self.leaving_if(now, |_, _| true)
    }

    /// Returns the workers that hibernate, and the resident workers that are neither pinned, nor among the fewest of their endpoint, nor held by a
    /// blocked caller, and whose use and time allow it.
    fn leaving_if(&self, now: Instant, may: impl Fn(Usage, Instant) -> bool) -> Vec<Candidate> {
        let blocked = self.blocked_callers();
        let may_leave = |(id, worker): &(&WorkerId, &Worker)| {
            if worker.hibernates() {
                return true;
            }
            let usage = self.endpoints.get(&id.endpoint).map(|it| it.usage);
            worker.is_resident()
                && usage.is_some_and(|usage| may(usage, self.stays_until(**id, worker)))
                && !self.is_floor(**id)
                && !blocked.contains(&id.endpoint)
        };
        let candidate = |(id, worker): (&WorkerId, &Worker)| Candidate {
            worker: *id,
            memory: worker.memory.clone(),
            value: self.worth_of(id.endpoint, worker, now).value,
        };
        // The highest slots of an endpoint first: those above a number of workers are what a supervisor stops.
        self.workers.iter().rev().filter(may_leave).map(candidate).collect()
    }

    /// Returns the endpoints that are blocked in calls for which a worker waits or loads. Evicting them is in
    /// vain: they do not finish before that worker is there.
    fn blocked_callers(&self) -> Vec<EndpointId> {
        let waiting = self.waiting.iter().map(|it| &it.ask.chain);
        let loading = self.workers.values().filter_map(|worker| match &worker.phase {
            Phase::Loading { chain, .. } => Some(chain),
            _ => None,
        });
        waiting.chain(loading).flatten().copied().collect()
    }

    /// Returns whether a worker is pinned, or among the fewest that its endpoint must have: those of the lowest
    /// slots that are ready.
    pub(crate) fn is_floor(&self, id: WorkerId) -> bool {
        let Some(endpoint) = self.endpoints.get(&id.endpoint) else { return false };
        let below = self.workers.range(first(id.endpoint)..id).filter(|(_, it)| it.is_resident());
        let is_resident = self.is_resident(id);
        let is_needed = is_resident && below.count() < endpoint.settings.min_workers;
        endpoint.settings.is_pinned || is_needed
    }

    /// Returns the memory that can never be there for an ask: that of its callers, of workers that are never
    /// evicted, and of its own endpoint. Those that load count when they are measured.
    pub(crate) fn immovable(&self, ask: &Ask) -> Memory {
        self.memory(|id, worker| {
            let is_caller = ask.chain.contains(&id.endpoint);
            let is_own = id.endpoint == ask.worker.endpoint;
            let stays = worker.is_resident() && (is_own || self.is_floor(*id));
            let is_held = is_caller && worker.phase != Phase::Gone && !worker.hibernates();
            (stays || is_held) && *id != ask.worker
        })
    }

    /// Returns the newest ask of a knot, and the memory that is not available to it. In a knot each ask waits for
    /// memory that the callers of the others hold, and none of these can finish: the greatest set of calls in
    /// which none fits beside the callers of the others.
    pub(crate) fn newest_of_knot(&self) -> Option<(usize, Memory)> {
        let calls = self.waiting.iter().enumerate().filter(|(_, it)| !it.ask.chain.is_empty());
        let mut knot: Vec<usize> = calls.map(|(index, _)| index).collect();
        loop {
            let is_stuck = |index: &usize| {
                let waiting = &self.waiting[*index];
                let taken = self.immovable(&self.beside(*index, &knot));
                !shortage(&waiting.need, &taken, &self.budget).is_zero()
            };
            let stuck: Vec<_> = knot.iter().copied().filter(is_stuck).collect();
            if stuck.len() == knot.len() {
                break;
            }
            knot = stuck;
        }
        let newest = knot.iter().copied().max_by_key(|index| self.waiting[*index].since)?;
        Some((newest, self.immovable(&self.beside(newest, &knot))))
    }

    /// Returns an ask as if the callers of all these asks were its own.
    fn beside(&self, index: usize, knot: &[usize]) -> Ask {
        let chain = knot.iter().flat_map(|other| self.waiting[*other].ask.chain.iter().copied());
        Ask { chain: chain.collect(), ..self.waiting[index].ask.clone() }
    }

    /// Returns the memory of the workers that satisfy a condition.
    pub(crate) fn memory(&self, is_meant: impl Fn(&WorkerId, &Worker) -> bool) -> Memory {
        let workers = self.workers.iter().filter(|(id, worker)| is_meant(id, worker));
        workers.map(|(_, worker)| &worker.memory).collect()
    }

    /// Returns the worth of one of so many workers of an endpoint, which share its requests.
    pub(crate) fn worth(&self, id: EndpointId, workers: usize, now: Instant) -> Worth {
        let Some(endpoint) = self.endpoints.get(&id) else { return Worth::default() };
        let reload = endpoint.reload();
        let rate = endpoint.rate.per_second(self.traffic.half_life(reload, now), reload, now)
            / workers.max(1) as f64;
        Worth { rate, value: rate * reload.as_secs_f64() }
    }

    /// Returns the worth of a worker that is in memory. One that hibernates saves the difference of the times.
    fn worth_of(&self, id: EndpointId, worker: &Worker, now: Instant) -> Worth {
        let worth = self.worth(id, self.resident(id), now);
        let Some(endpoint) = self.endpoints.get(&id).filter(|_| worker.hibernates()) else {
            return worth;
        };
        let saved = endpoint.history.reload().saturating_sub(endpoint.reload());
        Worth { value: worth.rate * saved.as_secs_f64(), ..worth }
    }

    pub(crate) fn worth_of_newcomer(&self, id: EndpointId, now: Instant) -> Worth {
        self.worth(id, self.resident(id) + 1, now)
    }

    pub(crate) fn worth_together(&self, victims: &[Candidate], now: Instant) -> Worth {
        let workers = victims.iter().filter_map(|it| Some((it, self.workers.get(&it.worker)?)));
        workers.fold(Worth::default(), |sum, (it, worker)| {
            let one = self.worth_of(it.worker.endpoint, worker, now);
            Worth { rate: sum.rate + one.rate, value: sum.value + one.value }
        })
    }

    fn resident(&self, id: EndpointId) -> usize {
        self.workers_of(id).filter(|(_, it)| it.is_resident()).count()
    }

    pub(crate) fn workers_of(&self, id: EndpointId) -> impl Iterator<Item = (&WorkerId, &Worker)> {
        self.workers.range(first(id)..first(EndpointId(id.0 + 1)))
    }

    /// Returns the instant until which a worker stays because it has not served yet.
    pub(crate) fn stays_until(&self, id: WorkerId, worker: &Worker) -> Instant {
        worker.stays_until(self.patience.least_residence, self.reload(id.endpoint))
    }

    pub(crate) fn reload(&self, id: EndpointId) -> Duration {
        self.endpoints.get(&id).map(Endpoint::reload).unwrap_or_default()
    }

    /// Returns the time until the next worker is ready, which wakes if one hibernates.
    pub(crate) fn next_load(&self, id: EndpointId) -> Duration {
        let Some(endpoint) = self.endpoints.get(&id) else { return Duration::ZERO };
        if self.hibernated(id) > 0 { endpoint.reload() } else { endpoint.history.reload() }
    }

    pub(crate) fn is_kept(&self, id: EndpointId) -> bool {
        self.endpoints.get(&id).is_some_and(|it| it.settings.is_kept)
    }
}

fn first(endpoint: EndpointId) -> WorkerId {
    WorkerId { endpoint, slot: 0 }
}
