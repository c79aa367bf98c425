//! The state machine: events in, actions out.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::endpoint::{Endpoint, Phase, Worker};
use crate::rate::Traffic;
use crate::waiting::Waiting;
use crate::{
    Action, Ask, EndpointId, Event, EvictionCause, Memory, Patience, ResidencySettings,
    StartHistory, Usage, WorkerId,
};

/// The residency of all workers: which of them have memory, which leave, and which asks wait.
///
/// One task owns it, reports every event, and carries out the actions in their order. It is a pure
/// function of its events and their instants, which must not go backwards.
#[derive(Debug)]
pub struct Residency {
    pub(crate) budget: Memory,
    pub(crate) patience: Patience,
    pub(crate) endpoints: BTreeMap<EndpointId, Endpoint>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) traffic: Traffic,
}

impl Residency {
    /// Creates a state without endpoints.
    pub fn new(budget: Memory, patience: Patience) -> Self {
        let (endpoints, workers, traffic) = (BTreeMap::new(), BTreeMap::new(), Traffic::default());
        Self { budget, patience, endpoints, traffic, workers, waiting: Vec::new() }
    }

    /// Adds an endpoint, or changes its settings. The history of an endpoint that is there is kept.
    pub fn set_endpoint(
        &mut self,
        id: EndpointId,
        settings: ResidencySettings,
        history: StartHistory,
        now: Instant,
    ) {
        match self.endpoints.get_mut(&id) {
            Some(endpoint) => endpoint.settings = settings,
            None => drop(self.endpoints.insert(id, Endpoint::new(settings, history, now))),
        }
    }

    /// Removes an endpoint, and returns what follows. Its workers leave, whether they load or serve, are pinned
    /// or held; their memory counts until it is back. Its asks are withdrawn: the caller answers the
    /// requests that wait for them.
    pub fn remove_endpoint(&mut self, id: EndpointId, now: Instant) -> Vec<Action> {
        if self.endpoints.remove(&id).is_none() {
            return Vec::new();
        }
        self.waiting.retain(|it| it.ask.worker.endpoint != id);
        let workers = self.workers_of(id).filter(|(_, it)| !it.is_leaving());
        let workers: Vec<_> = workers.map(|(worker, _)| *worker).collect();
        let mut actions = Vec::new();
        for worker in workers {
            actions.push(self.evict(worker, EvictionCause::Removed, now));
        }
        actions.extend(self.decide(now));
        actions
    }

    /// Takes an event, and returns what follows from it. Events of unknown endpoints and workers, and those that
    /// come too late, change nothing.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Ask(ask) => self.ask(ask, now),
            Event::Withdraw(worker) => self.waiting.retain(|it| it.ask.worker != worker),
            Event::Started(worker, memory) => self.started(worker, memory, now),
            Event::Measured(worker, memory) => self.measured(worker, memory),
            Event::Loads(worker) => self.loads(worker, now),
            Event::Hibernated(worker, memory) => self.hibernate(worker, memory, now),
            Event::Gone(worker) => self.gone(worker, now),
            Event::MemoryBack(worker) => self.memory_back(worker),
            Event::Arrivals(endpoint, count) => self.arrivals(endpoint, count, now),
            Event::Queued(endpoint, queued) => self.queued(endpoint, queued, now),
            Event::Usage(endpoint, usage) => self.usage(endpoint, usage),
            Event::Budget(budget) => self.budget = budget,
            Event::Tick => {}
        }
        self.decide(now)
    }

    /// Returns the memory that all workers have, those that load or leave included.
    pub fn held(&self) -> Memory {
        self.workers.values().map(|worker| &worker.memory).collect()
    }

    /// Returns whether a worker may get jobs: it is ready and does not leave. No load changes that.
    pub fn is_resident(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(Worker::is_resident)
    }

    /// Returns the memory that the workers of an endpoint have, those that load or leave included.
    pub fn held_by(&self, id: EndpointId) -> Memory {
        self.workers_of(id).map(|(_, worker)| &worker.memory).collect()
    }

    /// Returns whether workers of an endpoint never leave for others.
    pub fn stays(&self, id: EndpointId) -> bool {
        let settings = self.endpoints.get(&id).map(|it| &it.settings);
        settings.is_some_and(|it| it.is_pinned || it.min_workers > 0)
    }

    /// Returns whether a worker has memory to load and serve, from its grant until it leaves or hibernates.
    pub fn has_memory(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|it| !it.is_leaving() && !it.hibernates())
    }

    /// Returns whether a worker hibernates.
    pub fn hibernates(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(Worker::hibernates)
    }

    /// Returns whether a worker hibernates, or is to end because others need the memory that it still has.
    pub fn is_asleep(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|it| it.hibernates() || it.phase == Phase::Leaving)
    }

    /// Returns since when a worker loads or wakes, and whether it wakes; `None` if it does neither.
    pub fn loading(&self, worker: WorkerId) -> Option<(Instant, bool)> {
        let worker = self.workers.get(&worker)?;
        match worker.phase {
            Phase::Loading { wakes, .. } => Some((worker.since, wakes)),
            _ => None,
        }
    }

    /// Returns whether workers of an endpoint hibernate when they leave.
    pub fn may_hibernate(&self, id: EndpointId) -> bool {
        self.endpoints.get(&id).is_some_and(|it| it.settings.hibernates)
    }

    /// Returns the number of workers of an endpoint that hibernate.
    pub fn hibernated(&self, id: EndpointId) -> usize {
        self.workers_of(id).filter(|(_, worker)| worker.hibernates()).count()
    }

    /// Returns whether an endpoint has a worker that may get jobs.
    pub fn has_resident(&self, id: EndpointId) -> bool {
        self.workers_of(id).any(|(_, worker)| worker.is_resident())
    }

    /// Returns the number of asks that wait.
    pub fn asks(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the history of an endpoint, to be kept across restarts.
    pub fn history(&self, id: EndpointId) -> Option<&StartHistory> {
        self.endpoints.get(&id).map(|endpoint| &endpoint.history)
    }

    /// Returns whether the memory of an endpoint's next start was measured, and not declared or assumed.
    pub fn is_measured(&self, id: EndpointId) -> bool {
        self.history(id).is_some_and(|history| history.memory().is_some())
    }

    /// Returns the memory and the time of an endpoint's next start.
    pub fn prediction(&self, id: EndpointId) -> Option<(Memory, Duration)> {
        let endpoint = self.endpoints.get(&id)?;
        Some((endpoint.need(&self.patience.assumed), self.next_load(id)))
    }

    fn ask(&mut self, ask: Ask, now: Instant) {
        if let Some(waiting) = self.waiting.iter_mut().find(|it| it.ask.worker == ask.worker) {
            return waiting.renew(ask, now);
        }
        // The worker has its grant already. One that leaves is asked for again, and waits until it is gone.
        if self.has_memory(ask.worker) {
            return;
        }
        let Some(endpoint) = self.endpoints.get(&ask.worker.endpoint) else { return };
        let need = endpoint.need(&self.patience.assumed).all_on(ask.gpu);
        let times = (self.patience.longest_wait, self.next_load(ask.worker.endpoint));
        self.waiting.push(Waiting::new(ask, need, times, now));
    }

    fn started(&mut self, id: WorkerId, memory: Memory, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let Phase::Loading { wakes, .. } = worker.phase {
            let time = now - worker.since;
            *worker = Worker {
                phase: Phase::Resident { has_served: false },
                memory: memory.clone(),
                since: now,
            };
            match self.endpoints.get_mut(&id.endpoint) {
                Some(endpoint) if wakes => endpoint.history.add_wake(time),
                Some(endpoint) => endpoint.history.add(time, memory),
                None => {}
            }
        }
    }

    fn measured(&mut self, id: WorkerId, memory: Memory) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let (Phase::Resident { .. }, Some(endpoint)) =
            (&worker.phase, self.endpoints.get_mut(&id.endpoint))
        {
            endpoint.history.grow(&memory);
        }
        // A worker that loads has only begun to take what it is predicted to need.
        let is_loading = matches!(worker.phase, Phase::Loading { .. });
        worker.memory = if is_loading { worker.memory.max(&memory) } else { memory };
    }

    fn loads(&mut self, id: WorkerId, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let Phase::Loading { wakes: wakes @ true, .. } = &mut worker.phase {
            *wakes = false;
            worker.since = now;
        }
    }

    fn hibernate(&mut self, id: WorkerId, memory: Memory, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.is_resident() || worker.phase == Phase::Leaving {
            *worker = Worker { phase: Phase::Hibernated, memory, since: now };
        }
    }

    fn gone(&mut self, id: WorkerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&id) {
            (worker.phase, worker.since) = (Phase::Gone, now);
        }
    }

    fn memory_back(&mut self, id: WorkerId) {
        if self.workers.get(&id).is_some_and(|worker| worker.phase == Phase::Gone) {
            self.workers.remove(&id);
        }
    }

    fn arrivals(&mut self, id: EndpointId, count: u64, now: Instant) {
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            self.traffic.add(count, now);
            endpoint.rate.add(count, self.traffic.half_life(endpoint.reload(), now), now);
        }
    }

    fn queued(&mut self, id: EndpointId, queued: usize, now: Instant) {
        let asks = self.waiting.iter_mut().filter(|it| it.ask.worker.endpoint == id);
        asks.for_each(|waiting| waiting.set_queued(queued, now));
    }

    fn usage(&mut self, id: EndpointId, usage: Usage) {
        let Some(endpoint) = self.endpoints.get_mut(&id) else { return };
        let has_finished = endpoint.usage != Usage::Idle && usage == Usage::Idle;
        endpoint.usage = usage;
        if has_finished {
            for (worker, state) in &mut self.workers {
                if let (true, Phase::Resident { has_served }) =
                    (worker.endpoint == id, &mut state.phase)
                {
                    *has_served = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVING: EndpointId = EndpointId(0);
    const LOADING: EndpointId = EndpointId(1);
    const WAITING: EndpointId = EndpointId(2);
    const OTHER: EndpointId = EndpointId(3);

    fn worker(endpoint: EndpointId) -> WorkerId {
        WorkerId { endpoint, slot: 0 }
    }

    fn removed(endpoint: EndpointId) -> Action {
        Action::Evict { worker: worker(endpoint), cause: EvictionCause::Removed }
    }

    /// Returns a residency with room for two workers, in which one serves, one loads and two wait.
    fn residency(now: Instant) -> Residency {
        let mut residency = Residency::new(Memory::on_host(20), Patience::default());
        for id in [SERVING, LOADING, WAITING, OTHER] {
            let declared = Some(Memory::on_host(10));
            let settings =
                ResidencySettings { declared, is_pinned: id == SERVING, ..Default::default() };
            residency.set_endpoint(id, settings, StartHistory::default(), now);
            let deadline = now + Duration::from_secs(60);
            let ask = Ask {
                worker: worker(id),
                gpu: None,
                is_required: false,
                queued: 1,
                chain: Vec::new(),
                deadline,
            };
            residency.handle(Event::Ask(ask), now);
        }
        residency.handle(Event::Started(worker(SERVING), Memory::on_host(10)), now);
        residency.handle(Event::Usage(SERVING, Usage::Busy), now);
        residency
    }

    #[test]
    fn a_removed_endpoint_that_serves_or_loads_gives_its_memory_to_others_once_it_is_back() {
        for id in [SERVING, LOADING] {
            let now = Instant::now();
            let mut residency = residency(now);
            assert_eq!(residency.remove_endpoint(id, now), [removed(id)]);
            assert!(!residency.is_resident(worker(id)));
            assert_eq!(residency.handle(Event::Started(worker(id), Memory::on_host(9)), now), []);
            assert_eq!(residency.handle(Event::Gone(worker(id)), now), []);
            let granted = residency.handle(Event::MemoryBack(worker(id)), now);
            assert_eq!(granted, [Action::Grant(worker(WAITING))]);
        }
    }

    #[test]
    fn a_worker_that_hibernates_makes_room_and_is_woken_by_the_next_grant_of_its_slot() {
        let now = Instant::now();
        let mut residency = residency(now);
        residency.handle(Event::Started(worker(LOADING), Memory::on_host(10)), now);
        for id in [LOADING, WAITING] {
            let declared = Some(Memory::on_host(10));
            let settings = ResidencySettings { declared, hibernates: true, ..Default::default() };
            residency.set_endpoint(id, settings, StartHistory::default(), now);
        }
        let rest = Memory::on_host(1);
        // One byte is missing for those that wait.
        let actions = residency.handle(Event::Hibernated(worker(LOADING), rest), now);
        assert_eq!(actions, [Action::End(worker(LOADING))], "the rest is needed");
        residency.handle(Event::Gone(worker(LOADING)), now);
        let actions = residency.handle(Event::MemoryBack(worker(LOADING)), now);
        assert_eq!(actions, [Action::Grant(worker(WAITING))]);

        residency.handle(Event::Withdraw(worker(OTHER)), now);
        residency.handle(Event::Started(worker(WAITING), Memory::on_host(9)), now);
        let rest = Memory::on_host(1);
        assert_eq!(residency.handle(Event::Hibernated(worker(WAITING), rest), now), []);
        assert_eq!(residency.hibernated(WAITING), 1);
        assert!(!residency.has_memory(worker(WAITING)));
        let deadline = now + Duration::from_secs(60);
        let ask = Ask {
            worker: worker(WAITING),
            gpu: None,
            is_required: false,
            queued: 1,
            chain: Vec::new(),
            deadline,
        };
        // What it still has is a part of what it needs: 10 beside 10 of 20.
        assert_eq!(residency.handle(Event::Ask(ask), now), [Action::Grant(worker(WAITING))]);
        let now = now + Duration::from_secs(2);
        residency.handle(Event::Started(worker(WAITING), Memory::on_host(9)), now);
        let history = residency.history(WAITING).unwrap();
        assert_eq!(history.wake(), Some(Duration::from_secs(2)));
        assert_eq!(history.last_time(), Some(Duration::ZERO), "the wake is no start");
        // One that is not to hibernate any more ends.
        let rest = Memory::on_host(1);
        assert_eq!(residency.handle(Event::Hibernated(worker(WAITING), rest), now), []);
        residency.set_endpoint(WAITING, ResidencySettings::default(), StartHistory::default(), now);
        assert_eq!(residency.handle(Event::Tick, now), [Action::End(worker(WAITING))]);
    }

    #[test]
    fn a_removed_endpoint_that_waits_is_passed_over_and_unknown() {
        let now = Instant::now();
        let mut residency = residency(now);
        assert_eq!(residency.remove_endpoint(WAITING, now), []);
        assert_eq!(residency.remove_endpoint(WAITING, now), []);
        assert_eq!(residency.prediction(WAITING), None);
        residency.handle(Event::Gone(worker(LOADING)), now);
        let granted = residency.handle(Event::MemoryBack(worker(LOADING)), now);
        assert_eq!(granted, [Action::Grant(worker(OTHER))]);
    }
}
