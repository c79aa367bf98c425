//! The task that shares devices: the clock, the inbox and the hands of [`Device`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use litplex_core::{Pausing, Priority};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::demand::Demand;
use super::device::{Ask, Change, Device, MemberId};
use super::seat::{Capacity, SharedDevice};
use crate::event::{Event, WorkerId, next_id};

/// The most messages that are applied before the next decisions.
const MESSAGES_AT_ONCE: usize = 256;

/// The time between two measurements while workers compute and none waits.
const MEASURE_EVERY: Duration = Duration::from_millis(100);

/// The part of the cores from which on workers may hinder each other.
const FULL: f64 = 0.75;

/// The id of a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SeatId(u64);

impl SeatId {
    pub(super) fn next() -> Self {
        Self(next_id())
    }
}

/// A message to the task.
pub(super) enum Message {
    Join {
        seat: SeatId,
        device: SharedDevice,
        endpoint: String,
        weight: f64,
        is_shared: Arc<AtomicBool>,
    },
    Weigh {
        seat: SeatId,
        weight: f64,
    },
    Leave(SeatId),
    Enter {
        worker: WorkerId,
        seat: SeatId,
        pausing: Option<Arc<dyn Pausing>>,
        threads: usize,
        events: mpsc::WeakUnboundedSender<Event>,
    },
    Exit(WorkerId),
    Ask(WorkerId, Priority),
    End(WorkerId),
}

/// An endpoint's seat.
struct Seated {
    device: String,
    endpoint: String,
    member: MemberId,
    is_shared: Arc<AtomicBool>,
}

struct Shared {
    capacity: Capacity,
    device: Device,
    /// The time of its next decision or measurement.
    due: Option<Instant>,
    is_changed: bool,
}

struct Worker {
    device: String,
    member: MemberId,
    pausing: Option<Arc<dyn Pausing>>,
    events: mpsc::WeakUnboundedSender<Event>,
    demand: Demand,
    /// The time since which it runs and is not measured.
    since: Option<Instant>,
}

/// The owner of all shared devices.
pub(super) struct ShareTask {
    inbox: mpsc::UnboundedReceiver<Message>,
    devices: HashMap<String, Shared>,
    seats: HashMap<SeatId, Seated>,
    workers: HashMap<WorkerId, Worker>,
    next_member: u64,
}

impl ShareTask {
    pub(super) fn new(inbox: mpsc::UnboundedReceiver<Message>) -> Self {
        let (devices, seats, workers) = Default::default();
        Self { inbox, devices, seats, workers, next_member: 0 }
    }

    pub(super) async fn run(mut self) {
        let mut messages = Vec::with_capacity(MESSAGES_AT_ONCE);
        while self.next_messages(&mut messages).await {
            let now = Instant::now();
            messages.drain(..).for_each(|message| self.handle(message, now));
            self.act(now);
        }
        // No endpoint is left. A worker that still finishes jobs must not stay paused.
        self.workers.values().filter_map(|it| it.pausing.as_ref()).for_each(|it| it.resume());
    }

    async fn next_messages(&mut self, messages: &mut Vec<Message>) -> bool {
        let due = self.devices.values().filter_map(|shared| shared.due).min();
        let inbox = self.inbox.recv_many(messages, MESSAGES_AT_ONCE);
        match due {
            None => inbox.await > 0,
            Some(due) => tokio::select! {
                received = inbox => received > 0,
                () = sleep_until(due) => true,
            },
        }
    }

    fn handle(&mut self, message: Message, now: Instant) {
        match message {
            Message::Join { seat, device, endpoint, weight, is_shared } => {
                self.join(seat, device, endpoint, weight, is_shared, now);
            }
            Message::Weigh { seat, weight } => {
                let Some(Seated { device, member, .. }) = self.seats.get(&seat) else { return };
                if let Some(shared) = self.devices.get_mut(device) {
                    shared.device.join(*member, weight, now);
                }
            }
            Message::Leave(seat) => self.leave(seat, now),
            Message::Enter { worker, seat, pausing, threads, events } => {
                let Some(Seated { device, member, .. }) = self.seats.get(&seat) else { return };
                let cpu = pausing.as_ref().and_then(|pausing| pausing.cpu_time());
                let (device, member) = (device.clone(), *member);
                let demand = Demand::expected(threads, cpu);
                let entry = Worker { device, member, pausing, events, demand, since: None };
                self.workers.insert(worker, entry);
            }
            Message::Exit(worker) => {
                self.end(worker, now);
                self.workers.remove(&worker);
            }
            Message::Ask(worker, class) => self.ask(worker, class, now),
            Message::End(worker) => self.end(worker, now),
        }
    }

    fn join(
        &mut self,
        seat: SeatId,
        SharedDevice { name, capacity }: SharedDevice,
        endpoint: String,
        weight: f64,
        is_shared: Arc<AtomicBool>,
        now: Instant,
    ) {
        let same = self.seats.values().find(|it| it.device == name && it.endpoint == endpoint);
        let member = same.map_or(MemberId(self.next_member), |seated| seated.member);
        self.next_member += 1;
        let size = match capacity {
            Capacity::Cores(count) | Capacity::Workers(count) => count as f64,
        };
        let shared = self.devices.entry(name.clone()).or_insert_with(|| Shared {
            capacity,
            device: Device::new(size, now),
            due: None,
            is_changed: false,
        });
        shared.device.join(member, weight, now);
        self.seats.insert(seat, Seated { device: name.clone(), endpoint, member, is_shared });
        self.publish(&name);
    }

    fn leave(&mut self, seat: SeatId, now: Instant) {
        let Some(Seated { device, member, .. }) = self.seats.remove(&seat) else { return };
        if self.seats.values().any(|other| other.member == member) {
            return;
        }
        let turns: Vec<_> = self.workers.iter().filter(|(_, it)| it.member == member).collect();
        let turns: Vec<_> = turns.into_iter().map(|(worker, _)| *worker).collect();
        turns.into_iter().for_each(|worker| self.handle(Message::Exit(worker), now));
        let Some(shared) = self.devices.get_mut(&device) else { return };
        shared.device.leave(member, now);
        shared.is_changed = true;
        if shared.device.has_no_members() {
            self.devices.remove(&device);
        }
        self.publish(&device);
    }

    /// Tells the endpoints on a device whether they share it.
    fn publish(&self, device: &str) {
        let there = || self.seats.values().filter(|seat| seat.device == device);
        let first = there().map(|seat| seat.member).next();
        let is_shared = there().any(|seat| Some(seat.member) != first);
        there().for_each(|seat| seat.is_shared.store(is_shared, Relaxed));
    }

    fn ask(&mut self, id: WorkerId, class: Priority, now: Instant) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(shared) = self.devices.get_mut(&worker.device) else { return };
        let (member, can_pause) = (worker.member, worker.pausing.is_some());
        let demand = demand(shared.capacity, worker);
        shared.device.ask(Ask { turn: id, member, class, demand, can_pause }, now);
        shared.is_changed = true;
    }

    fn end(&mut self, id: WorkerId, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(shared) = self.devices.get_mut(&worker.device) else { return };
        worker.stop_counting(now);
        if shared.device.end(id, now) {
            worker.resume();
        }
        shared.is_changed = true;
    }

    fn act(&mut self, now: Instant) {
        let Self { devices, workers, .. } = self;
        for shared in devices.values_mut() {
            if shared.is_changed || shared.due.is_some_and(|due| due <= now) {
                shared.is_changed = false;
                shared.act(workers, now);
            }
        }
    }
}

impl Shared {
    fn act(&mut self, workers: &mut HashMap<WorkerId, Worker>, now: Instant) {
        self.measure(workers, now);
        for (id, change) in self.device.decide(now) {
            if let Some(worker) = workers.get_mut(&id) {
                worker.change(id, change, now);
            }
        }
        let is_busy = self.device.running().next().is_some();
        let measure = (is_busy && self.measures()).then(|| now + MEASURE_EVERY);
        self.due = self.device.due().or(measure);
    }

    fn measures(&self) -> bool {
        matches!(self.capacity, Capacity::Cores(_))
    }

    /// Measures the workers that run, where that tells something.
    fn measure(&mut self, workers: &mut HashMap<WorkerId, Worker>, now: Instant) {
        let Capacity::Cores(cores) = self.capacity else { return };
        let running: Vec<_> = self.device.running().collect();
        let mut seen = Vec::with_capacity(running.len());
        for id in &running {
            let Some(worker) = workers.get_mut(id) else { continue };
            worker.count(now);
            if worker.demand.is_due()
                && let Some(cpu) = worker.cpu_time()
            {
                seen.push((*id, cpu, worker.demand.used(cpu)));
            }
        }
        // A worker that computes alone gets what it can use.
        let used: f64 = seen.iter().map(|(_, _, used)| used).sum();
        let is_full = running.len() > 1 && used >= FULL * cores as f64;
        for (id, cpu, _) in seen {
            let Some(worker) = workers.get_mut(&id) else { continue };
            worker.demand.measure(cpu, is_full);
            self.device.set_demand(id, worker.demand.cores());
        }
    }
}

impl Worker {
    fn cpu_time(&self) -> Option<Duration> {
        self.pausing.as_ref()?.cpu_time()
    }

    fn resume(&self) {
        if let Some(pausing) = &self.pausing {
            pausing.resume();
        }
    }

    fn change(&mut self, id: WorkerId, change: Change, now: Instant) {
        match (change, &self.pausing) {
            (Change::Paused, Some(pausing)) => {
                pausing.pause();
                self.stop_counting(now);
            }
            (Change::Resumed, _) => {
                self.since = Some(now);
                self.resume();
            }
            (Change::Granted, _) => {
                if self.demand.is_fresh() {
                    self.demand.begin(self.cpu_time());
                }
                self.since = Some(now);
            }
            (Change::Yield | Change::Paused, _) => {}
        }
        if let Some(events) = self.events.upgrade() {
            let _ = events.send(Event::Turn(id, change));
        }
    }

    /// Counts the time up to now in which it has run.
    fn count(&mut self, now: Instant) {
        if let Some(since) = &mut self.since {
            self.demand.ran(now - std::mem::replace(since, now));
        }
    }

    fn stop_counting(&mut self, now: Instant) {
        self.count(now);
        self.since = None;
    }
}

/// Returns the part of a device that a worker is expected to take.
fn demand(capacity: Capacity, worker: &Worker) -> f64 {
    match capacity {
        Capacity::Cores(_) => worker.demand.cores(),
        Capacity::Workers(_) => 1.0,
    }
}
