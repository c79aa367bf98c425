//! The decisions after an event: what is given up, granted, evicted, refused.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint::{Phase, Worker};
use crate::price::price;
use crate::residency::Residency;
use crate::victims::{Candidate, cheapest};
use crate::waiting::Waiting;
use crate::{Action, EndpointId, EvictionCause, Memory, Refusal, RefusalReason, WorkerId};

/// A worker of which nothing is known starts if there can be room for this part of what is assumed.
const LEAST_PART: u64 = 10;

/// The decision on an ask.
enum Verdict {
    Grant,
    /// Workers that leave give back enough.
    WaitForMemory,
    Evict(Vec<Candidate>),
    /// The ask pays later, or never before it is urgent.
    WaitUntilItPays(Option<Duration>),
    /// No set of workers that may leave frees enough.
    WaitForWorkers,
}

impl Residency {
    /// Returns what follows from the state at this instant.
    pub(crate) fn decide(&mut self, now: Instant) -> Vec<Action> {
        // A refused call frees its callers, whose memory may then be what must shrink.
        self.predict_needs();
        let mut actions = self.end_unwanted(now);
        actions.extend(self.force(now));
        actions.extend(self.refuse(now));
        actions.extend(self.shrink(now));
        actions.extend(self.admit(now));
        actions
    }

    /// Returns the instant at which the caller sends the next `Tick`; `None` if only events change anything.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let asks = self
            .waiting
            .iter()
            .flat_map(|it| [Some(it.ask.deadline), Some(it.urgent_at), it.pays_at]);
        let has_asks = !self.waiting.is_empty() || !self.excess().is_zero();
        let stays =
            self.workers.iter().filter(|_| has_asks).map(|(id, it)| self.stays_until(*id, it));
        asks.flatten().chain(stays).filter(|due| *due > now).min()
    }

    /// Gives each ask memory, or makes room for it, or lets it wait. An ask for which workers leave, or that has
    /// waited long enough, reserves its memory: what comes back is not taken by later and smaller ones.
    fn admit(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut reserved = Memory::default();
        self.waiting.sort_by_key(|waiting| waiting.order(now));
        let mut index = 0;
        // Those that are decided remain in the list until they end: their callers are blocked.
        while let Some(mut waiting) = self.waiting.get(index).cloned() {
            let newcomer = waiting.ask.worker;
            waiting.pays_at = None;
            match self.verdict(&waiting, &reserved, now) {
                Verdict::Grant => {
                    self.waiting.remove(index);
                    self.grant(&waiting, now);
                    actions.push(Action::Grant(newcomer));
                    continue;
                }
                Verdict::Evict(victims) => {
                    waiting.is_paid = true;
                    for Candidate { worker, value, .. } in victims {
                        let cause = EvictionCause::For { newcomer, value };
                        actions.push(self.evict(worker, cause, now));
                    }
                }
                Verdict::WaitForMemory => waiting.is_paid = true,
                Verdict::WaitUntilItPays(time) => waiting.pays_at = time.map(|time| now + time),
                Verdict::WaitForWorkers => {}
            }
            if waiting.is_paid || waiting.is_urgent(now) {
                reserved = reserved.plus(&waiting.need);
            }
            self.waiting[index] = waiting;
            index += 1;
        }
        actions
    }

    fn verdict(&self, waiting: &Waiting, reserved: &Memory, now: Instant) -> Verdict {
        let need = &waiting.need;
        // What a worker has that hibernates is a part of what it needs when it wakes.
        let is_own = |id: &WorkerId, it: &Worker| *id == waiting.ask.worker && it.hibernates();
        let held = self.memory(|id, it| !is_own(id, it));
        if self.is_slot_free(waiting.ask.worker)
            && shortage(need, &held.plus(reserved), &self.budget).is_zero()
        {
            return Verdict::Grant;
        }
        let staying = self.memory(|id, it| {
            let is_blocked = waiting.ask.chain.contains(&id.endpoint) && it.phase != Phase::Gone;
            !is_own(id, it) && (!it.is_leaving() || is_blocked)
        });
        let short = shortage(need, &staying.plus(reserved), &self.budget);
        if short.is_zero() {
            return Verdict::WaitForMemory;
        }
        self.choose_victims(waiting, &short, now)
    }

    fn choose_victims(&self, waiting: &Waiting, short: &Memory, now: Instant) -> Verdict {
        if waiting.is_idle() && !waiting.is_paid {
            return Verdict::WaitUntilItPays(None);
        }
        let is_urgent = waiting.is_paid || waiting.is_urgent(now);
        let victims = self.victims(waiting.ask.worker, short, is_urgent, now);
        let Some(victims) = victims else { return Verdict::WaitForWorkers };
        let worth = self.worth_together(&victims, now);
        let price = price(worth, self.worth_of_newcomer(waiting.ask.worker.endpoint, now));
        let stays_forever = victims.iter().any(|it| self.is_kept(it.worker.endpoint));
        if is_urgent || !stays_forever && waiting.waited(now) >= price {
            Verdict::Evict(victims)
        } else {
            let time = || waiting.time_until(price, now);
            Verdict::WaitUntilItPays((!stays_forever).then(time))
        }
    }

    /// Returns the workers to evict. None of the core leaves if the others would free enough: an ask that
    /// is not urgent waits while these load, are busy, or have not served yet.
    pub(crate) fn victims(
        &self,
        newcomer: WorkerId,
        short: &Memory,
        is_urgent: bool,
        now: Instant,
    ) -> Option<Vec<Candidate>> {
        let candidates = self.candidates(newcomer, is_urgent, now);
        let core = self.core(now);
        let is_other = |it: &&Candidate| !core.contains(&it.worker);
        let others: Vec<_> = candidates.iter().filter(is_other).cloned().collect();
        let waits = || !is_urgent && short.fits_in(&self.memory_in_turn(newcomer.endpoint, &core));
        let victims = cheapest(&others, short);
        victims.or_else(|| if waits() { None } else { cheapest(&candidates, short) })
    }

    /// Returns the memory of the workers outside the core that may leave now or later.
    fn memory_in_turn(&self, newcomer: EndpointId, core: &BTreeSet<WorkerId>) -> Memory {
        self.memory(|id, worker| {
            let is_other = id.endpoint != newcomer && !core.contains(id);
            let may_leave = self.endpoints.contains_key(&id.endpoint) && !self.is_floor(*id);
            is_other && may_leave && !worker.is_leaving()
        })
    }

    /// Refuses the asks that can wait no longer, and those that would wait in vain.
    /// Grants required workers that cannot fit, where the budget is a guess.
    fn force(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.patience.is_strict {
            return actions;
        }
        for waiting in std::mem::take(&mut self.waiting) {
            let worker = waiting.ask.worker;
            let immovable = self.immovable(&waiting.ask);
            let fits = shortage(&waiting.need, &immovable, &self.budget).is_zero();
            let is_free = self.is_slot_free(worker);
            if waiting.ask.is_required && waiting.ask.chain.is_empty() && !fits && is_free {
                self.grant(&waiting, now);
                actions.push(Action::Grant(worker));
            } else {
                self.waiting.push(waiting);
            }
        }
        actions
    }

    /// Predicts the needs again: other workers may have been measured. That of a worker of which nothing is known is
    /// at most the room that can be there, so that a guess is no reason to refuse it, unless there is hardly any.
    fn predict_needs(&mut self) {
        for mut waiting in std::mem::take(&mut self.waiting) {
            if let Some(endpoint) = self.endpoints.get(&waiting.ask.worker.endpoint) {
                waiting.need = endpoint.need(&self.patience.assumed).all_on(waiting.ask.gpu);
                let room = self.budget.short_of(&self.immovable(&waiting.ask)).host;
                if endpoint.known_need().is_none() && room >= waiting.need.host / LEAST_PART {
                    waiting.need.host = waiting.need.host.min(room);
                }
            }
            self.waiting.push(waiting);
        }
    }

    fn refuse(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let immovable = self.immovable(&waiting.ask);
            let is_too_large = !shortage(&waiting.need, &immovable, &self.budget).is_zero();
            let reason = match () {
                () if is_too_large => Some((RefusalReason::TooLarge, immovable)),
                () if now >= waiting.ask.deadline => Some((RefusalReason::Deadline, self.held())),
                () => None,
            };
            match reason {
                Some((reason, taken)) => {
                    actions.push(Action::Refuse(self.refusal(&waiting, reason, taken)));
                }
                None => self.waiting.push(waiting),
            }
        }
        while let Some((index, taken)) = self.newest_of_knot() {
            let waiting = self.waiting.remove(index);
            actions.push(Action::Refuse(self.refusal(&waiting, RefusalReason::Knot, taken)));
        }
        actions
    }

    pub(crate) fn refusal(
        &self,
        waiting: &Waiting,
        reason: RefusalReason,
        taken: Memory,
    ) -> Refusal {
        let worker = waiting.ask.worker;
        let reload = self.reload(worker.endpoint);
        let retry_after = (reason != RefusalReason::TooLarge).then_some(reload);
        let (need, budget) = (waiting.need.clone(), self.budget.clone());
        Refusal { worker, reason, need, taken, budget, retry_after }
    }

    /// Ends the workers that hibernate of endpoints that are not to hibernate any more.
    fn end_unwanted(&mut self, now: Instant) -> Vec<Action> {
        let hibernates = |id| self.endpoints.get(&id).is_none_or(|it| it.settings.hibernates);
        let unwanted =
            self.workers.iter().filter(|(id, it)| it.hibernates() && !hibernates(id.endpoint));
        let unwanted: Vec<_> = unwanted.map(|(id, _)| *id).collect();
        unwanted.iter().for_each(|id| self.leave(*id, now));
        unwanted.into_iter().map(Action::End).collect()
    }

    /// Evicts what is above the budget: idle workers, then busy ones, then those that have served nothing yet.
    fn shrink(&mut self, now: Instant) -> Vec<Action> {
        let staying = self.memory(|_, it| !it.is_leaving());
        let excess = staying.short_of(&self.budget);
        if excess.is_zero() {
            return Vec::new();
        }
        let groups = [self.idle(now), self.drainable(now), self.unpinned(now)];
        let victims = groups.iter().find_map(|candidates| cheapest(candidates, &excess));
        // If all of them do not suffice, all that helps must leave.
        let [.., all] = groups;
        let helps = |it: &Candidate| it.memory.shares_a_place(&excess);
        let victims = victims.unwrap_or_else(|| all.into_iter().filter(helps).collect());
        let evict = |it: Candidate| self.evict(it.worker, EvictionCause::OverBudget, now);
        victims.into_iter().map(evict).collect()
    }

    fn grant(&mut self, waiting: &Waiting, now: Instant) {
        let Waiting { ask, need, .. } = waiting;
        let wakes = self.hibernates(ask.worker);
        let phase = Phase::Loading { chain: ask.chain.clone(), wakes };
        self.workers.insert(ask.worker, Worker { phase, memory: need.clone(), since: now });
    }

    /// Makes a worker leave, and returns what the caller does for it.
    pub(crate) fn evict(&mut self, worker: WorkerId, cause: EvictionCause, now: Instant) -> Action {
        let hibernates = self.hibernates(worker);
        self.leave(worker, now);
        if hibernates { Action::End(worker) } else { Action::Evict { worker, cause } }
    }

    fn leave(&mut self, worker: WorkerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            (worker.phase, worker.since) = (Phase::Leaving, now);
        }
    }

    /// Returns whether a worker can be granted: the one before it in its slot is gone, or hibernates and wakes.
    fn is_slot_free(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_none_or(Worker::hibernates)
    }

    /// Returns what the workers that stay have above the budget.
    fn excess(&self) -> Memory {
        self.memory(|_, it| !it.is_leaving()).short_of(&self.budget)
    }
}

/// Returns what is missing for `need` beside what is used, in the places that it needs.
pub(crate) fn shortage(need: &Memory, used: &Memory, budget: &Memory) -> Memory {
    need.plus(used).short_of(budget).where_used_by(need)
}
