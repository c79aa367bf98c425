//! The task that owns the slots of one endpoint.

use std::mem::replace;
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Cause, Launch, LaunchError, Launched, Monitor, WorkerExit};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::restart::{delay, failures_after};
use crate::slot::{Step, next_step};
use crate::target::{Record, Target};
use crate::{SlotState, SupervisorSettings};

/// The task that owns the slots of one endpoint.
pub(crate) struct SupervisorTask {
    launch: Arc<dyn Launch>,
    settings: SupervisorSettings,
    seed: u64,
    target: watch::Receiver<Target>,
    slots: Vec<Slot>,
    /// The running task of each slot: at most one per slot.
    pending: JoinSet<SlotOutcome>,
    record: Record,
    times: StartTimes,
    publish: Publish,
}

/// The times from a launch until its worker is ready: means in which the last start weighs half.
#[derive(Default)]
struct StartTimes {
    load: Option<Duration>,
    /// The time of workers that hibernated.
    wake: Option<Duration>,
}

/// The watches on which the task publishes.
pub(crate) struct Publish {
    pub(crate) states: watch::Sender<Vec<SlotState>>,
    pub(crate) record: watch::Sender<Record>,
    pub(crate) monitors: watch::Sender<Monitors>,
}

/// The monitor of each slot's worker, for the slots that serve or start.
pub(crate) type Monitors = Vec<SlotMonitor>;

/// A watch of the monitor of a slot's worker. A worker that starts has one once its process is there.
pub(crate) type SlotMonitor = watch::Receiver<Option<Arc<dyn Monitor>>>;

/// An event that the task handles.
enum Event {
    /// The target changed.
    TargetChanged,
    /// The task of a slot ended.
    Ended(Result<(Id, SlotOutcome), JoinError>),
    /// The backoff of a slot is over.
    Due,
}

/// The outcome of a slot's task.
enum SlotOutcome {
    /// The worker is ready.
    Launched(Box<dyn Launched>),
    /// The worker did not become ready.
    Failed(LaunchError),
    /// The worker ended unasked, for this reason.
    Exited(WorkerExit),
    /// The worker finished after a request to stop.
    Stopped,
}

/// A slot: its phase and its failures.
struct Slot {
    phase: SlotPhase,
    /// The number of consecutive workers that lived briefly.
    failures: u32,
}

/// A [`SlotState`] with the handles that are needed to leave it.
enum SlotPhase {
    Starting {
        task: AbortHandle,
        since: Instant,
        /// Whether it is expected to wake a worker that hibernates.
        wakes: bool,
        after: Option<WorkerExit>,
        monitor: SlotMonitor,
    },
    Serving {
        task: AbortHandle,
        since: Instant,
        start_time: Duration,
        stop: StopWorker,
        monitor: SlotMonitor,
    },
    Draining {
        task: AbortHandle,
    },
    BackingOff {
        gone: WorkerExit,
        traceback: Option<String>,
        until: Instant,
    },
    Failed(LaunchError),
    Empty,
}

/// The channel that stops a worker; it carries the grace.
type StopWorker = oneshot::Sender<Duration>;

impl SupervisorTask {
    pub(crate) fn new(
        launch: Arc<dyn Launch>,
        settings: SupervisorSettings,
        seed: u64,
        target: watch::Receiver<Target>,
        publish: Publish,
    ) -> Self {
        let (slots, pending, record) = (Vec::new(), JoinSet::new(), Record::default());
        let times = StartTimes::default();
        let mut task =
            Self { launch, settings, seed, target, slots, pending, record, times, publish };
        task.reconcile(Instant::now());
        task.publish();
        task
    }

    pub(crate) async fn run(mut self) {
        while let Some(event) = self.next_event().await {
            self.handle_event(event, Instant::now());
            self.publish();
        }
        if self.slots.is_empty() {
            self.launch.close(self.grace()).await;
        }
    }

    /// Begins to end what hibernates, once all workers are to stop.
    fn close_if_stopping(&self) {
        if self.target.borrow().stop.is_some() {
            drop(self.launch.close(self.grace()));
        }
    }

    /// Waits for an event. Returns `None` when all workers have stopped, or the supervisor was
    /// dropped.
    async fn next_event(&mut self) -> Option<Event> {
        if self.slots.is_empty() && self.target.borrow().stop.is_some() {
            return None;
        }
        let due = self.slots.iter().filter_map(Slot::due).min();
        tokio::select! {
            changed = self.target.changed() => changed.ok().map(|()| Event::TargetChanged),
            Some(ended) = self.pending.join_next_with_id() => Some(Event::Ended(ended)),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Some(Event::Due),
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Ended(Ok((task, outcome))) => self.advance(task, outcome, now),
            Event::Ended(Err(error)) => self.on_panic(&error, now),
            Event::TargetChanged => self.close_if_stopping(),
            Event::Due => {}
        }
        self.reconcile(now);
    }

    /// Applies the outcome of a task to its slot.
    fn advance(&mut self, task: Id, outcome: SlotOutcome, now: Instant) {
        let Some(index) = self.slot_with_task(task) else { return };
        let phase = replace(&mut self.slots[index].phase, SlotPhase::Empty);
        match (outcome, phase) {
            (SlotOutcome::Launched(worker), SlotPhase::Starting { since, .. }) => {
                let start_time = worker.start_time().unwrap_or(now - since);
                self.watch_worker(index, worker, start_time, now);
            }
            // The worker became ready while its slot was given up, and may have jobs.
            (SlotOutcome::Launched(worker), _) => self.drain(index, worker),
            (SlotOutcome::Failed(error), SlotPhase::Starting { .. }) => {
                self.launch_failed(index, error, now);
            }
            (SlotOutcome::Exited(gone), SlotPhase::Serving { since, .. }) => {
                self.back_off(index, gone, None, Some(now - since), now);
            }
            (SlotOutcome::Failed(_) | SlotOutcome::Exited(_) | SlotOutcome::Stopped, _) => {}
        }
    }

    /// Treats a panic of a task as the end of its worker; a slot that was given up becomes empty.
    fn on_panic(&mut self, error: &JoinError, now: Instant) {
        let Some(index) = self.slot_with_task(error.id()) else { return };
        let reason = format!("the supervision of the worker failed: {error}");
        match replace(&mut self.slots[index].phase, SlotPhase::Empty) {
            SlotPhase::Starting { .. } => {
                self.launch_failed(index, LaunchError::new(reason), now);
            }
            SlotPhase::Serving { since, .. } => {
                self.back_off(
                    index,
                    WorkerExit::new(Cause::Exit, reason),
                    None,
                    Some(now - since),
                    now,
                );
            }
            _ => {}
        }
    }

    fn slot_with_task(&self, task: Id) -> Option<usize> {
        self.slots.iter().position(|slot| slot.task() == Some(task))
    }

    fn watch_worker(
        &mut self,
        index: usize,
        worker: Box<dyn Launched>,
        start_time: Duration,
        now: Instant,
    ) {
        let StartTimes { load, wake } = &mut self.times;
        let mean = if worker.is_woken() { wake } else { load };
        *mean = Some(mean.map_or(start_time, |mean| (mean + start_time) / 2));
        let monitor = watch::channel(worker.monitor()).1;
        let (stop, stopped) = oneshot::channel();
        let task = self.pending.spawn(serve(worker, stopped, self.target.clone()));
        self.slots[index].phase =
            SlotPhase::Serving { task, since: now, start_time, stop, monitor };
    }

    fn drain(&mut self, index: usize, worker: Box<dyn Launched>) {
        let drained = drain(worker, self.grace(), self.target.clone());
        self.slots[index].phase = SlotPhase::Draining { task: self.pending.spawn(drained) };
    }

    fn launch_failed(&mut self, index: usize, error: LaunchError, now: Instant) {
        let never_ready = self.times.load.is_none();
        let is_hopeless = error.no_room.is_none_or(|no_room| no_room.is_in_vain);
        if self.settings.give_up && never_ready && is_hopeless {
            self.slots[index].phase = SlotPhase::Failed(error);
        } else if let Some(no_room) = error.no_room {
            let gone = WorkerExit::new(Cause::NoRoom, error.reason);
            let until = now + no_room.retry_after;
            self.slots[index].phase = SlotPhase::BackingOff { gone, traceback: None, until };
        } else {
            let gone = WorkerExit::new(Cause::Start, error.reason);
            self.back_off(index, gone, error.traceback, None, now);
        }
    }

    fn back_off(
        &mut self,
        index: usize,
        gone: WorkerExit,
        traceback: Option<String>,
        ready_for: Option<Duration>,
        now: Instant,
    ) {
        let slot = &mut self.slots[index];
        slot.failures = failures_after(slot.failures, ready_for);
        let until = now + delay(slot.failures, self.seed.wrapping_add(index as u64));
        slot.phase = SlotPhase::BackingOff { gone, traceback, until };
    }

    /// Takes the next step of every slot towards the target.
    fn reconcile(&mut self, now: Instant) {
        let wanted = self.target.borrow_and_update().workers;
        while self.slots.len() < wanted {
            self.slots.push(Slot::new());
            self.record.restarts.resize(self.record.restarts.len().max(self.slots.len()), 0);
        }
        for index in 0..self.slots.len() {
            self.take_step(index, index < wanted, now);
        }
        while self.slots.len() > wanted && self.slots.last().is_some_and(Slot::is_empty) {
            self.slots.pop();
        }
    }

    fn take_step(&mut self, index: usize, wanted: bool, now: Instant) {
        let step = next_step(&self.slots[index].state(), wanted, now);
        if step == Step::Stay {
            return;
        }
        let phase = replace(&mut self.slots[index].phase, SlotPhase::Empty);
        self.slots[index].phase = match (step, phase) {
            (Step::Launch, phase) => self.launch(index, phase, now),
            (_, SlotPhase::Starting { task, .. }) => {
                task.abort();
                SlotPhase::Draining { task }
            }
            (_, SlotPhase::Serving { task, stop, .. }) => {
                // A worker that is gone already is reported by its task next.
                let _ = stop.send(self.grace());
                SlotPhase::Draining { task }
            }
            _ => SlotPhase::Empty,
        };
    }

    fn launch(&mut self, index: usize, before: SlotPhase, now: Instant) -> SlotPhase {
        let (loading, monitor) = watch::channel(None);
        let loading = Box::new(move |monitor| drop(loading.send_replace(Some(monitor))));
        let wakes = self.launch.wakes(index);
        let launched = self.launch.launch(index, loading);
        let task = self.pending.spawn(async {
            launched.await.map_or_else(SlotOutcome::Failed, SlotOutcome::Launched)
        });
        let after = match before {
            SlotPhase::BackingOff { gone, .. } => {
                // Without room there was no worker that could be restarted.
                if gone.cause != Cause::NoRoom {
                    self.record.restarts[index] += 1;
                    *self.record.causes.entry(gone.cause).or_default() += 1;
                }
                Some(gone)
            }
            _ => None,
        };
        SlotPhase::Starting { task, since: now, wakes, after, monitor }
    }

    fn grace(&self) -> Duration {
        self.target.borrow().stop.unwrap_or(self.settings.grace)
    }

    /// Returns the time that the next start of the endpoint takes, or the one that is under way.
    fn next_start_time(&self) -> Option<Duration> {
        let wakes = match self.slots.first().map(|slot| &slot.phase) {
            Some(SlotPhase::Starting { wakes, .. }) => *wakes,
            _ => self.launch.wakes(0),
        };
        let StartTimes { load, wake } = self.times;
        // Before the first wake a load is what is known.
        if wakes { wake.or(load) } else { load }
    }

    fn publish(&mut self) {
        self.record.start_time = self.next_start_time();
        // The record comes first: readers of the states read it too.
        self.publish.record.send_if_modified(|published| update(published, &self.record));
        self.publish.monitors.send_replace(self.slots.iter().map(Slot::monitor).collect());
        let states: Vec<_> = self.slots.iter().map(Slot::state).collect();
        self.publish.states.send_if_modified(|published| update(published, &states));
    }
}

impl Slot {
    fn new() -> Self {
        Self { phase: SlotPhase::Empty, failures: 0 }
    }

    fn state(&self) -> SlotState {
        match &self.phase {
            SlotPhase::Starting { since, after, .. } => {
                SlotState::Starting { since: *since, after: after.clone() }
            }
            SlotPhase::Serving { start_time, .. } => SlotState::Ready(*start_time),
            SlotPhase::Draining { .. } => SlotState::Draining,
            SlotPhase::BackingOff { gone, traceback, until } => {
                let (gone, traceback) = (gone.clone(), traceback.clone());
                SlotState::BackingOff { gone, traceback, until: *until }
            }
            SlotPhase::Failed(error) => SlotState::Failed(error.clone()),
            SlotPhase::Empty => SlotState::Stopped,
        }
    }

    fn task(&self) -> Option<Id> {
        match &self.phase {
            SlotPhase::Starting { task, .. }
            | SlotPhase::Serving { task, .. }
            | SlotPhase::Draining { task } => Some(task.id()),
            SlotPhase::BackingOff { .. } | SlotPhase::Failed(_) | SlotPhase::Empty => None,
        }
    }

    fn monitor(&self) -> SlotMonitor {
        match &self.phase {
            SlotPhase::Starting { monitor, .. } | SlotPhase::Serving { monitor, .. } => {
                monitor.clone()
            }
            _ => watch::channel(None).1,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self.phase {
            SlotPhase::BackingOff { until, .. } => Some(until),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.phase, SlotPhase::Empty)
    }
}

/// Waits until a worker is gone, or until it has finished after a request to stop.
async fn serve(
    mut worker: Box<dyn Launched>,
    stop: oneshot::Receiver<Duration>,
    target: watch::Receiver<Target>,
) -> SlotOutcome {
    let grace = tokio::select! {
        reason = worker.gone() => return SlotOutcome::Exited(reason),
        grace = stop => grace.unwrap_or_default(),
    };
    drain(worker, grace, target).await
}

/// Drains a worker. A later stop of all workers with a shorter grace kills it sooner.
async fn drain(
    worker: Box<dyn Launched>,
    grace: Duration,
    mut target: watch::Receiver<Target>,
) -> SlotOutcome {
    let is_stopping = target.borrow().stop.is_some();
    let cut_short = async {
        match target.wait_for(|target| target.stop.is_some()).await.map(|target| target.stop) {
            Ok(Some(grace)) if !is_stopping => sleep(grace).await,
            _ => std::future::pending().await,
        }
    };
    let ended = if is_stopping { worker.stop(grace) } else { worker.release(grace) };
    tokio::select! {
        () = ended => {}
        () = cut_short => {}
    }
    SlotOutcome::Stopped
}

/// Updates the published value, and returns whether it changed.
fn update<T: Clone + PartialEq>(published: &mut T, new: &T) -> bool {
    let changed = published != new;
    if changed {
        published.clone_from(new);
    }
    changed
}
