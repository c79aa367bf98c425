//! Random schedules of the state machine: loads that fail, hang or take longer, deaths, victims that are called
//! again while they leave, endpoints that are removed, budgets that change, and workers larger than predicted.
//!
//! The simulation plays the workers, and checks after each event that no rule is violated. At the end it
//! lets time pass: every ask must end.

mod dealt;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::{
    Action, Ask, EndpointId, Event, EvictionCause, Memory, Patience, Residency, ResidencySettings,
    StartHistory, Usage, WorkerId,
};
use dealt::{memory, settings};

/// The number of schedules; a longer run sets `LITPLEX_SIMULATIONS`.
const SCHEDULES: u64 = 20_000;
const STEPS: usize = 60;
const SLOTS: usize = 2;

/// The longest time that a client waits, in seconds.
const LONGEST_DEADLINE: u64 = 40;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Loading,
    Resident,
    Leaving,
    Hibernated,
    Gone,
}

/// An ask that has not ended.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    /// The instant of the first ask.
    since: Instant,
    /// The instant from which it may evict what is busy.
    urgent_at: Instant,
    /// Whether a caller is blocked for it; then it may at once.
    is_call: bool,
}

struct Schedule {
    random: Rng,
    residency: Residency,
    settings: Vec<ResidencySettings>,
    usage: Vec<Usage>,
    budget: Memory,
    now: Instant,
    workers: BTreeMap<WorkerId, (Phase, Memory)>,
    asked: BTreeMap<WorkerId, Asked>,
    /// The asks for which workers left already before the last event.
    paid: Vec<WorkerId>,
    /// Whether workers were measured beyond their prediction, or the budget fell, and it is still above.
    may_exceed: bool,
    grants: usize,
    evictions: usize,
    refusals: usize,
    wakes: usize,
    ended: usize,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let now = Instant::now();
        let budget = memory(&mut random, 6..14);
        let mut residency = Residency::new(budget.clone(), Patience::default());
        let settings: Vec<_> = (0..1 + random.usize(..5)).map(|_| settings(&mut random)).collect();
        for (id, settings) in (0..).map(EndpointId).zip(&settings) {
            let mut history = StartHistory::default();
            history.add(Duration::from_millis(random.u64(100..4_000)), memory(&mut random, 0..6));
            residency.set_endpoint(id, settings.clone(), history, now);
        }
        let usage = vec![Usage::Idle; settings.len()];
        let (workers, asked, paid) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let (may_exceed, grants, evictions, refusals, wakes, ended) = (false, 0, 0, 0, 0, 0);
        Self {
            random,
            residency,
            settings,
            usage,
            budget,
            now,
            workers,
            asked,
            paid,
            may_exceed,
            grants,
            evictions,
            refusals,
            wakes,
            ended,
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.random.usize(..16) {
                0..=3 => self.ask(),
                4 => self.withdraw(),
                5..=7 => self.end_a_phase(),
                8 => self.die(),
                9 | 10 => self.change_usage(),
                11 => self.measure(),
                12 if self.random.usize(..4) == 0 => self.change_budget(),
                13 if self.random.usize(..4) == 0 => self.remove_or_add(),
                _ => self.pass(),
            }
        }
        self.settle();
    }

    /// Lets time pass, in which loads hang and streams stay open, until every ask has ended.
    fn settle(&mut self) {
        let end = self.now + Duration::from_secs(LONGEST_DEADLINE);
        while let Some(due) = self.residency.next_due(self.now).filter(|due| *due <= end) {
            self.now = due;
            self.tell(Event::Tick);
        }
        assert_eq!((self.residency.asks(), &self.asked), (0, &BTreeMap::new()), "asks hang");
        // Everything ends, and the memory is back.
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            self.gone(worker);
            self.back(worker);
        }
        assert_eq!(self.residency.held(), Memory::default(), "memory is leaked");
    }

    fn ask(&mut self) {
        let worker = self.any_worker();
        self.tell(Event::Arrivals(worker.endpoint, 1));
        let deadline = self.now + Duration::from_secs(self.random.u64(1..LONGEST_DEADLINE));
        let mut chain = Vec::new();
        if self.random.usize(..3) == 0 {
            let caller = self.any_worker().endpoint;
            if caller != worker.endpoint {
                self.usage[caller.0] = Usage::Busy;
                self.tell(Event::Usage(caller, Usage::Busy));
                chain.push(caller);
            }
        }
        let phase = self.workers.get(&worker).map(|it| it.0);
        let is_known = self.residency.prediction(worker.endpoint).is_some();
        if is_known && !matches!(phase, Some(Phase::Loading | Phase::Resident)) {
            let (_, reload) = self.residency.prediction(worker.endpoint).unwrap();
            let in_time = deadline.checked_sub(reload).unwrap_or(self.now);
            let since = self.asked.get(&worker).map_or(self.now, |asked| asked.since);
            let urgent_at = in_time.min(since + Patience::default().longest_wait);
            let asked = Asked { since, urgent_at, is_call: !chain.is_empty() };
            self.asked.insert(worker, asked);
        }
        let queued = self.random.usize(..5);
        self.tell(Event::Ask(Ask {
            worker,
            gpu: None,
            is_required: false,
            queued,
            chain,
            deadline,
        }));
    }

    fn withdraw(&mut self) {
        let worker = self.any_worker();
        self.asked.remove(&worker);
        self.tell(Event::Withdraw(worker));
    }

    /// Ends a load or an unload, or returns memory, of any worker; one that is not chosen hangs.
    fn end_a_phase(&mut self) {
        let Some(worker) = self.choose(|_| true) else { return };
        let (phase, memory) = self.workers[&worker].clone();
        match phase {
            Phase::Loading if self.random.usize(..4) == 0 => {
                self.gone(worker);
            }
            Phase::Loading => {
                if self.random.bool() {
                    // One that was to wake was loaded.
                    self.tell(Event::Loads(worker));
                }
                let measured = self.measured(memory);
                self.workers.insert(worker, (Phase::Resident, measured.clone()));
                self.tell(Event::Started(worker, measured));
            }
            Phase::Resident if self.usage[worker.endpoint.0] == Usage::Idle => {
                self.hibernate(worker, &memory);
            }
            Phase::Leaving if self.random.bool() => self.hibernate(worker, &memory),
            Phase::Resident | Phase::Hibernated => {}
            Phase::Leaving => self.gone(worker),
            Phase::Gone => self.back(worker),
        }
    }

    /// Moves most of the memory of a worker to swap, as far as its endpoint is told to.
    fn hibernate(&mut self, worker: WorkerId, memory: &Memory) {
        if self.settings[worker.endpoint.0].hibernates {
            let rest = Memory::on_host(self.random.u64(..2).min(memory.host));
            self.workers.insert(worker, (Phase::Hibernated, rest.clone()));
            self.tell(Event::Hibernated(worker, rest));
        }
    }

    fn die(&mut self) {
        if let Some(worker) = self.choose(|phase| phase != Phase::Gone) {
            self.gone(worker);
        }
    }

    fn gone(&mut self, worker: WorkerId) {
        self.set(worker, Phase::Gone);
        self.tell(Event::Gone(worker));
    }

    fn back(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
        self.tell(Event::MemoryBack(worker));
    }

    fn change_usage(&mut self) {
        let endpoint = self.any_worker().endpoint;
        let usage = [Usage::Idle, Usage::Busy][self.random.usize(..2)];
        self.usage[endpoint.0] = usage;
        self.tell(Event::Usage(endpoint, usage));
    }

    fn measure(&mut self) {
        let Some(worker) = self.choose(|phase| phase != Phase::Gone) else { return };
        let (phase, memory) = self.workers[&worker].clone();
        let measured = self.measured(memory);
        self.workers.insert(worker, (phase, measured.clone()));
        self.tell(Event::Measured(worker, measured));
    }

    fn change_budget(&mut self) {
        self.budget = memory(&mut self.random, 4..14);
        self.may_exceed = true;
        self.tell(Event::Budget(self.budget.clone()));
    }

    /// Removes an endpoint, or adds it again, also while its workers still leave.
    fn remove_or_add(&mut self) {
        let endpoint = self.any_worker().endpoint;
        if self.residency.prediction(endpoint).is_some() {
            self.asked.retain(|worker, _| worker.endpoint != endpoint);
            self.change(false, |residency, now| residency.remove_endpoint(endpoint, now));
            let workers = self.workers.iter().filter(|(worker, _)| worker.endpoint == endpoint);
            let mut phases = workers.map(|(_, it)| it.0);
            let is_over = |phase| matches!(phase, Phase::Leaving | Phase::Gone);
            assert!(phases.all(is_over), "a worker of a removed endpoint stays");
        } else {
            let settings = self.settings[endpoint.0].clone();
            self.usage[endpoint.0] = Usage::Idle;
            self.residency.set_endpoint(endpoint, settings, StartHistory::default(), self.now);
        }
    }

    fn pass(&mut self) {
        let due = self.residency.next_due(self.now).filter(|_| self.random.bool());
        let time = Duration::from_millis(self.random.u64(..3_000));
        self.now = due.unwrap_or(self.now + time);
        self.tell(Event::Tick);
    }

    fn measured(&mut self, predicted: Memory) -> Memory {
        match self.random.usize(..4) {
            0 => {
                self.may_exceed = true;
                predicted.plus(&memory(&mut self.random, 0..3))
            }
            _ => predicted,
        }
    }

    fn tell(&mut self, event: Event) {
        let is_measured = matches!(event, Event::Measured(..) | Event::Started(..));
        self.change(is_measured, |residency, now| residency.handle(event, now));
    }

    fn change(
        &mut self,
        is_measured: bool,
        change: impl FnOnce(&mut Residency, Instant) -> Vec<Action>,
    ) {
        let resident: Vec<_> =
            self.workers.keys().copied().filter(|it| self.residency.is_resident(*it)).collect();
        let waiting = self.residency.waiting.iter();
        self.paid = waiting.filter(|it| it.is_paid).map(|it| it.ask.worker).collect();
        let actions = change(&mut self.residency, self.now);
        let mut left = Vec::new();
        for action in actions {
            match action {
                Action::Grant(worker) => self.granted(worker),
                Action::Evict { worker, cause } => {
                    match cause {
                        EvictionCause::For { newcomer, .. } => self.check_use(worker, newcomer),
                        EvictionCause::OverBudget => {}
                        EvictionCause::Removed => {
                            self.set(worker, Phase::Leaving);
                            left.push(worker);
                            continue;
                        }
                    }
                    self.evicted(worker);
                    left.push(worker);
                }
                Action::End(worker) => {
                    self.ended += 1;
                    let phase = self.workers.get(&worker).map(|it| it.0);
                    assert_eq!(phase, Some(Phase::Hibernated), "what does not hibernate is ended");
                    self.set(worker, Phase::Leaving);
                }
                Action::Refuse(refusal) => {
                    self.refusals += 1;
                    let asked = self.asked.remove(&refusal.worker);
                    assert!(asked.is_some(), "an ask is refused that was not made");
                }
            }
        }
        for worker in resident {
            let is_there = matches!(self.workers.get(&worker), Some((Phase::Resident, _)));
            let stays = !is_there || left.contains(&worker);
            assert!(stays || self.residency.is_resident(worker), "a resident waits");
        }
        self.check_budget(is_measured);
    }

    fn granted(&mut self, worker: WorkerId) {
        self.grants += 1;
        assert!(self.asked.remove(&worker).is_some(), "a grant that was not asked for");
        let before = self.workers.get(&worker).map(|it| it.0);
        assert!(matches!(before, None | Some(Phase::Hibernated)), "a double load");
        self.wakes += usize::from(before.is_some());
        let memory = self.residency.workers[&worker].memory.clone();
        self.workers.insert(worker, (Phase::Loading, memory.clone()));
        let held: Memory = self.workers.values().map(|(_, memory)| memory).collect();
        let above = held.short_of(&self.budget).where_used_by(&memory);
        assert!(above.is_zero(), "a grant above the budget");
    }

    /// A busy worker leaves only for an ask that has waited long enough, for which others left already, or for
    /// which a caller is blocked. A call that joins the ask counts at once.
    fn check_use(&self, victim: WorkerId, newcomer: WorkerId) {
        let asked = &self.asked[&newcomer];
        let may_drain = asked.is_call || self.now >= asked.urgent_at;
        let is_idle = self.usage[victim.endpoint.0] == Usage::Idle;
        let is_paid = self.paid.contains(&newcomer);
        assert!(is_idle || may_drain || is_paid, "what is busy is evicted too soon");
    }

    fn evicted(&mut self, worker: WorkerId) {
        self.evictions += 1;
        let endpoint = worker.endpoint;
        let settings = self.settings[endpoint.0].clone();
        assert!(!settings.is_pinned, "a pinned worker is evicted");
        let phase = self.workers.get(&worker).map(|it| it.0);
        assert_eq!(phase, Some(Phase::Resident), "the victim is not resident");
        let is_called = |it: &Ask| it.chain.contains(&endpoint);
        let waiting = self.residency.waiting.iter().map(|it| &it.ask);
        assert!(!waiting.into_iter().any(is_called), "a blocked caller is evicted");
        self.set(worker, Phase::Leaving);
        let workers = self.workers.iter().filter(|(id, _)| id.endpoint == endpoint);
        let left = workers.filter(|(_, it)| it.0 == Phase::Resident).count();
        assert!(left >= settings.min_workers, "fewer than `min_workers` are left");
    }

    /// Above the budget are only workers that leave, or that may not be evicted.
    fn check_budget(&mut self, is_measured: bool) {
        let held = self.residency.held();
        if held.fits_in(&self.budget) {
            self.may_exceed = false;
        }
        assert!(self.may_exceed || is_measured || held.fits_in(&self.budget), "above the budget");
        let staying =
            self.workers.values().filter(|it| it.0 != Phase::Leaving && it.0 != Phase::Gone);
        let staying: Memory = staying.map(|it| &it.1).collect();
        let excess = staying.short_of(&self.budget);
        for candidate in self.residency.unpinned(self.now) {
            let helps = candidate.memory.shares_a_place(&excess);
            assert!(!helps, "it is above the budget, and does not shrink");
        }
    }

    fn set(&mut self, worker: WorkerId, phase: Phase) {
        if let Some(it) = self.workers.get_mut(&worker) {
            it.0 = phase;
        }
    }

    fn any_worker(&mut self) -> WorkerId {
        let endpoint = EndpointId(self.random.usize(..self.settings.len()));
        WorkerId { endpoint, slot: self.random.usize(..SLOTS) }
    }

    fn choose(&mut self, is_meant: impl Fn(Phase) -> bool) -> Option<WorkerId> {
        let meant = self.workers.iter().filter(|(_, it)| is_meant(it.0));
        let workers: Vec<_> = meant.map(|(worker, _)| *worker).collect();
        (!workers.is_empty()).then(|| workers[self.random.usize(..workers.len())])
    }
}

#[test]
fn no_ask_hangs_and_no_rule_is_violated_on_random_schedules() {
    let schedules = std::env::var("LITPLEX_SIMULATIONS").ok().and_then(|n| n.parse().ok());
    let (mut grants, mut evictions, mut refusals, mut wakes, mut ended) = (0, 0, 0, 0, 0);
    for seed in 0..schedules.unwrap_or(SCHEDULES) {
        let mut schedule = Schedule::new(seed);
        let run = std::panic::AssertUnwindSafe(|| schedule.run());
        if std::panic::catch_unwind(run).is_err() {
            panic!("schedule {seed} violated a rule; see the message above");
        }
        grants += schedule.grants;
        evictions += schedule.evictions;
        refusals += schedule.refusals;
        wakes += schedule.wakes;
        ended += schedule.ended;
    }
    println!(
        "{grants} grants, {wakes} of them wakes, {evictions} evictions, {ended} ended, {refusals} refusals"
    );
    assert!(grants > 0 && evictions > 0 && refusals > 0, "the schedules decide too little");
    assert!(wakes > 0 && ended > 0, "too few workers hibernate");
}
