//! The task that owns the residency: it takes the messages of generations and workers, and carries out what is
//! decided.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::Monitor;
use litplex_residency::{
    Action, Ask, EndpointId, Event, EvictionCause, Memory, Patience, Refusal, Residency,
    StartHistory, WorkerId,
};
use litplex_workers::{Templates, endpoint_span};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::budget::Devices;
use super::measure::Measured;
use super::member::{AskedFor, Load, Membership, Message, gpu_of};
use super::report::MemoryReport;
use super::starts::Starts;

/// The memory of a worker of which nothing is known; at most a part of the budget, so that it is no reason to
/// refuse it.
const ASSUMED: u64 = 1_000_000_000;
const ASSUMED_PART: u64 = 4;

/// The time between two measurements of a worker or a template that loads, and of one that is ready.
const WHILE_LOADING: Duration = Duration::from_millis(250);
const WHILE_READY: Duration = Duration::from_secs(2);

/// The change of the templates' memory, in bytes, from which on the budget of the workers changes.
const NOTEWORTHY: u64 = 1 << 20;

/// The time that a worker which hibernates has to end when its memory is needed.
const HIBERNATION_GRACE: Duration = Duration::from_secs(10);

/// The task.
pub(super) struct ResidencyTask {
    pub(super) residency: Residency,
    devices: Devices,
    host: u64,
    pub(super) budget: Memory,
    starts: Starts,
    templates: Templates,
    /// The bytes that the templates have.
    pub(super) template_memory: u64,
    /// The bytes of the budget of the workers, as last decided with.
    told_budget: u64,
    pub(super) members: BTreeMap<EndpointId, JoinedMember>,
    /// The asks that wait, with the way to answer them.
    pub(super) asks: BTreeMap<WorkerId, oneshot::Sender<Result<(), Refusal>>>,
    /// The workers with a process.
    measured: BTreeMap<WorkerId, Measured>,
    /// The workers that are ready and not measured since.
    is_new: Vec<WorkerId>,
    /// The workers that move their memory to swap.
    moving_out: BTreeSet<WorkerId>,
    /// The workers that are gone and whose memory is not back.
    returning: BTreeSet<WorkerId>,
    measuring: JoinSet<Figure>,
    pub(super) counts: BTreeMap<Arc<str>, Counts>,
    /// Whether the workers have more memory than the budget.
    is_over: bool,
    pub(super) publish: watch::Sender<MemoryReport>,
}

/// A generation that has joined.
pub(super) struct JoinedMember {
    pub(super) membership: Membership,
    leave: mpsc::UnboundedSender<usize>,
    pub(super) last_eviction: Option<String>,
}

/// The counts of an endpoint since the server started, over all its generations.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) loads: u64,
    pub(super) load_seconds: f64,
    pub(super) wakes: u64,
    pub(super) waking_seconds: f64,
    pub(super) evictions: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) refusals: u64,
}

/// The result of a measurement.
enum Figure {
    /// The memory of a worker; `None` once it has none.
    Memory(WorkerId, Arc<dyn Monitor>, Option<Memory>),
    /// The memory of a worker that is gone is back; whether that was seen.
    Back(WorkerId, bool),
    /// The bytes that all templates have.
    Templates(u64),
}

impl ResidencyTask {
    pub(super) fn new(
        host: u64,
        is_strict: bool,
        devices: Devices,
        (starts, templates): (Starts, Templates),
        publish: watch::Sender<MemoryReport>,
    ) -> Self {
        let assumed = Memory::on_host(ASSUMED.min(host / ASSUMED_PART));
        let patience = Patience { assumed, is_strict, ..Patience::default() };
        let budget = Memory::on_host(host);
        Self {
            residency: Residency::new(budget.clone(), patience),
            devices,
            host,
            budget,
            starts,
            templates,
            template_memory: 0,
            told_budget: host,
            members: BTreeMap::new(),
            asks: BTreeMap::new(),
            measured: BTreeMap::new(),
            is_new: Vec::new(),
            moving_out: BTreeSet::new(),
            returning: BTreeSet::new(),
            measuring: JoinSet::new(),
            counts: BTreeMap::new(),
            is_over: false,
            publish,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>) {
        // Before any ask: the driver says how much there is.
        self.budget = self.devices.budget(self.host).await;
        self.told_budget = self.budget.host;
        self.tell(Event::Budget(self.budget.clone()));
        self.measure_templates();
        loop {
            let due = self.residency.next_due(Instant::now());
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                Some(figure) = self.measuring.join_next() => {
                    // A measurement that panicked is as none.
                    if let Ok(figure) = figure {
                        self.note(figure);
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.tell(Event::Tick);
                }
            }
            self.warn_if_over();
            self.publish();
        }
    }

    fn measure_templates(&mut self) {
        let templates = self.templates.clone();
        self.measuring.spawn(async move {
            let pause = if templates.are_starting() { WHILE_LOADING } else { WHILE_READY };
            let _ = timeout(pause, templates.begun()).await;
            // Most servers have none, and need no further thread for it.
            let bytes = match templates.is_empty() {
                true => 0,
                false => spawn_blocking(move || templates.footprint()).await.unwrap_or(0),
            };
            Figure::Templates(bytes)
        });
    }

    fn tell_budget(&mut self) {
        let left = self.budget_of_workers();
        if left.host.abs_diff(self.told_budget) >= NOTEWORTHY {
            self.told_budget = left.host;
            self.tell(Event::Budget(left));
        }
    }

    /// Returns the budget less what templates have. A model that fits without them must not be refused because of
    /// them: forked from a template it needs less than was measured without.
    fn budget_of_workers(&self) -> Memory {
        let needs = self.members.keys().filter_map(|id| self.residency.prediction(*id));
        let largest = needs.map(|(need, _)| need.host).max().unwrap_or(0);
        let left = self.budget.short_of(&Memory::on_host(self.template_memory));
        Memory { host: left.host.max(largest.min(self.budget.host)), ..left }
    }

    /// Returns the memory that workers and templates have.
    pub(super) fn held(&self) -> Memory {
        self.residency.held().plus(&Memory::on_host(self.template_memory))
    }

    /// Says once that the workers have more memory than the budget. What may leave does; the others stay, because
    /// they are pinned or the least that their endpoints have.
    fn warn_if_over(&mut self) {
        let held = self.held();
        let is_over = !held.fits_in(&self.budget);
        if is_over && !std::mem::replace(&mut self.is_over, is_over) {
            let budget = &self.budget;
            tracing::warn!(
                "all workers have {held}, more than the budget of {budget}: raise `memory_budget`, or let models \
                 leave (`min_workers = 0`)"
            );
        }
        self.is_over = is_over;
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Join(id, membership, settings, leave) => {
                let history = self.starts.read(&membership.memory_of);
                self.residency.set_endpoint(id, settings, history, Instant::now());
                let member = JoinedMember { membership, leave, last_eviction: None };
                self.members.insert(id, member);
            }
            Message::Set(id, settings) => {
                let history = StartHistory::default();
                self.residency.set_endpoint(id, settings, history, Instant::now());
                self.tell(Event::Tick);
            }
            Message::Leave(id) => {
                let actions = self.residency.remove_endpoint(id, Instant::now());
                self.members.remove(&id);
                self.carry_out(actions);
            }
            Message::Ask(worker, demand, reply) => self.ask(worker, demand, reply),
            Message::Loading(worker, measured) => self.measure_from_now_on(worker, measured),
            Message::Ready(worker, measured) => self.ready(worker, measured),
            Message::Ended(worker) => self.ended(worker),
            Message::MovesOut(worker) => drop(self.moving_out.insert(worker)),
            Message::Hibernated(worker, memory) => {
                self.moving_out.remove(&worker);
                self.is_new.retain(|it| *it != worker);
                self.tell(Event::Hibernated(worker, memory));
            }
            Message::Loads(worker) => self.tell(Event::Loads(worker)),
            // Its slot may have been granted again, and its next worker counts.
            Message::HibernationEnded(worker) if self.residency.is_asleep(worker) => {
                self.process_ended(worker);
            }
            Message::HibernationEnded(_) => {}
            Message::Load(id, load) => self.load(id, load),
            // The operator may have left.
            Message::Plan(reply) => drop(reply.send(self.plan())),
        }
    }

    fn ask(
        &mut self,
        worker: WorkerId,
        demand: AskedFor,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        // What was measured since may be the largest need.
        self.tell_budget();
        let AskedFor { queued, is_required, chain, deadline } = demand;
        // An ask that was answered may be renewed at the same time.
        if self.residency.has_memory(worker) {
            let _ = reply.send(Ok(()));
            return;
        }
        let is_blocked =
            |(_, member): &(&EndpointId, &JoinedMember)| chain.contains(&member.membership.label);
        let callers = self.members.iter().filter(is_blocked).map(|(id, _)| *id);
        let chain = callers.filter(|id| *id != worker.endpoint).collect();
        self.asks.insert(worker, reply);
        let gpu = self.gpu(worker);
        self.tell(Event::Ask(Ask { worker, gpu, queued, is_required, chain, deadline }));
    }

    fn ready(&mut self, worker: WorkerId, measured: Option<Measured>) {
        match measured {
            Some(measured) => {
                self.is_new.push(worker);
                self.measure_from_now_on(worker, measured);
            }
            None => {
                let declared = self.residency.prediction(worker.endpoint).map(|(memory, _)| memory);
                self.started(worker, declared.unwrap_or_default());
            }
        }
    }

    fn started(&mut self, worker: WorkerId, memory: Memory) {
        let member = self.members.get(&worker.endpoint);
        if let (Some(member), Some((since, wakes))) = (member, self.residency.loading(worker)) {
            let counts = self.counts.entry(member.membership.label.clone()).or_default();
            let seconds = since.elapsed().as_secs_f64();
            if wakes {
                counts.wakes += 1;
                counts.waking_seconds += seconds;
            } else {
                counts.loads += 1;
                counts.load_seconds += seconds;
            }
        }
        self.tell(Event::Started(worker, memory));
        self.remember(worker.endpoint);
    }

    /// Writes what is known of the starts of a model.
    fn remember(&self, id: EndpointId) {
        let Some(member) = self.members.get(&id).filter(|it| it.membership.is_measured) else {
            return;
        };
        let Some(history) = self.residency.history(id).cloned() else { return };
        let (starts, name) = (self.starts.clone(), member.membership.memory_of.clone());
        spawn_blocking(move || starts.write(&name, &history));
    }

    /// Notes that a worker has no process, or that its start was given up before its grant.
    fn ended(&mut self, worker: WorkerId) {
        if self.asks.remove(&worker).is_some() {
            return self.tell(Event::Withdraw(worker));
        }
        // A refused ask of a worker that hibernates has ended, and not the worker.
        if self.residency.hibernates(worker) {
            return;
        }
        // One that was granted and given up before it was woken hibernates no longer.
        if let Some((_, true)) = self.residency.loading(worker) {
            self.end_hibernated(worker);
        }
        self.process_ended(worker);
    }

    fn process_ended(&mut self, worker: WorkerId) {
        self.moving_out.remove(&worker);
        self.is_new.retain(|it| *it != worker);
        self.tell(Event::Gone(worker));
        match self.measured.remove(&worker) {
            Some(measured) => {
                self.remember(worker.endpoint);
                self.returning.insert(worker);
                self.measuring.spawn(async move { Figure::Back(worker, measured.back().await) });
            }
            // The end of an ask that waited for the memory of the worker before it.
            None if self.returning.contains(&worker) => {}
            None => self.tell(Event::MemoryBack(worker)),
        }
    }

    fn load(&mut self, id: EndpointId, load: Load) {
        let Load { arrivals, queued, usage } = load;
        if let (Some(member), 1..) = (self.members.get(&id), arrivals) {
            let counts = self.counts.entry(member.membership.label.clone()).or_default();
            let is_hit = self.residency.has_resident(id);
            *(if is_hit { &mut counts.hits } else { &mut counts.misses }) += arrivals;
            self.tell(Event::Arrivals(id, arrivals));
        }
        self.tell(Event::Queued(id, queued));
        self.tell(Event::Usage(id, usage));
    }

    fn measure_from_now_on(&mut self, worker: WorkerId, measured: Measured) {
        self.measured.insert(worker, measured.clone());
        self.measure(worker, measured, Duration::ZERO);
    }

    /// Returns the GPU of a worker.
    pub(super) fn gpu(&self, worker: WorkerId) -> Option<usize> {
        gpu_of(&self.members.get(&worker.endpoint)?.membership.gpus, worker.slot)
    }

    fn measure(&mut self, worker: WorkerId, measured: Measured, after: Duration) {
        self.measuring.spawn(async move {
            sleep(after).await;
            let memory = measured.memory().await;
            Figure::Memory(worker, measured.monitor, memory)
        });
    }

    fn note(&mut self, figure: Figure) {
        match figure {
            Figure::Back(worker, was_seen) => {
                self.returning.remove(&worker);
                if !was_seen {
                    tracing::warn!(
                        slot = worker.slot,
                        "the memory of a worker that is gone is still in use; it counts as free"
                    );
                }
                self.tell(Event::MemoryBack(worker));
            }
            Figure::Templates(bytes) => {
                self.measure_templates();
                self.template_memory = bytes;
                self.tell_budget();
            }
            Figure::Memory(worker, monitor, memory) => {
                // Of the worker before it in this slot, or of the same before it was ready.
                let measured = self.measured.get(&worker);
                let Some(measured) = measured.filter(|it| Arc::ptr_eq(&it.monitor, &monitor))
                else {
                    return;
                };
                // It goes on when the worker wakes.
                if self.residency.hibernates(worker) {
                    return;
                }
                let measured = measured.clone();
                if self.moving_out.contains(&worker) {
                    return self.measure(worker, measured, WHILE_READY);
                }
                let was_new = self.is_new.len();
                self.is_new.retain(|it| *it != worker);
                match memory {
                    Some(memory) if self.is_new.len() < was_new => self.started(worker, memory),
                    Some(memory) => self.tell(Event::Measured(worker, memory)),
                    // Its end is reported next.
                    None => return,
                }
                let is_ready = self.residency.is_resident(worker);
                let after = if is_ready { WHILE_READY } else { WHILE_LOADING };
                self.measure(worker, measured, after);
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let actions = self.residency.handle(event, Instant::now());
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Grant(worker) => self.answer(worker, Ok(())),
                Action::Evict { worker, cause } => self.evict(worker, cause),
                Action::End(worker) => self.end_hibernation(worker),
                Action::Refuse(refusal) => {
                    if let Some(member) = self.members.get(&refusal.worker.endpoint) {
                        let label = member.membership.label.clone();
                        self.counts.entry(label).or_default().refusals += 1;
                    }
                    self.answer(refusal.worker, Err(refusal));
                }
            }
        }
    }

    fn answer(&mut self, worker: WorkerId, answer: Result<(), Refusal>) {
        if let Some(reply) = self.asks.remove(&worker) {
            // A launch that was given up reports its end.
            let _ = reply.send(answer);
        }
    }

    fn evict(&mut self, worker: WorkerId, cause: EvictionCause) {
        let cause = match cause {
            EvictionCause::For { newcomer, .. } => {
                let newcomer = self.members.get(&newcomer.endpoint);
                let label = newcomer.map_or("another endpoint", |it| &*it.membership.label);
                format!("for `{label}`")
            }
            EvictionCause::OverBudget => {
                "because the workers had more memory than the budget".to_owned()
            }
            EvictionCause::Removed => return self.leave(worker),
        };
        let held = self.held();
        if let Some(member) = self.members.get_mut(&worker.endpoint) {
            let label = member.membership.label.clone();
            let budget = &self.budget;
            endpoint_span(&label).in_scope(|| {
                let slot = worker.slot;
                tracing::info!(slot, "evicted {cause}; all workers have {held} of {budget}");
            });
            member.last_eviction = Some(cause);
            self.counts.entry(label).or_default().evictions += 1;
        }
        self.leave(worker);
    }

    fn end_hibernation(&self, worker: WorkerId) {
        let Some(member) = self.members.get(&worker.endpoint) else { return };
        endpoint_span(&member.membership.label).in_scope(|| {
            tracing::info!(slot = worker.slot, "hibernates no longer, and ends");
        });
        self.end_hibernated(worker);
    }

    fn end_hibernated(&self, worker: WorkerId) {
        let member = self.members.get(&worker.endpoint);
        // A generation that ends stops its workers itself.
        if let Some(hibernated) = member.and_then(|it| it.membership.hibernated.upgrade()) {
            hibernated.end(worker.slot, HIBERNATION_GRACE);
        }
    }

    /// Tells the owner of a worker's slot that it must leave.
    fn leave(&self, worker: WorkerId) {
        if let Some(member) = self.members.get(&worker.endpoint) {
            // A generation that ends stops its workers itself.
            let _ = member.leave.send(worker.slot);
        }
    }
}
