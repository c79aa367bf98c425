use std::mem::replace;
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Cause, Gone, Launch, LaunchError, Launched};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::restart::{delay, failures_after};
use crate::slot::{Step, next_step};
use crate::supervisor::Wish;
use crate::{Record, Settings, SlotState};

/// Owns the slots of one endpoint.
pub(crate) struct SupervisorTask {
    launch: Arc<dyn Launch>,
    settings: Settings,
    seed: u64,
    wish: watch::Receiver<Wish>,
    slots: Vec<Slot>,
    /// What the slots wait for: at most one for each.
    pending: JoinSet<Outcome>,
    record: Record,
    publish: Publish,
}

/// Where others see what the slots do.
pub(crate) struct Publish {
    pub(crate) states: watch::Sender<Vec<SlotState>>,
    pub(crate) record: watch::Sender<Record>,
}

/// All that can happen to the slots.
enum Event {
    /// Another number of workers is wanted, or none any more.
    Wished,
    /// What a slot waited for has come.
    Came(Result<(Id, Outcome), JoinError>),
    /// A slot has backed off long enough.
    Due,
}

/// What a slot waits for.
enum Outcome {
    /// Its worker is ready.
    Launched(Box<dyn Launched>),
    /// Its worker did not become ready.
    Failed(LaunchError),
    /// Its worker is gone without having been asked, for this reason.
    Gone(Gone),
    /// Its worker finished because it was asked to.
    Stopped,
}

/// One slot: what it is doing, and its past.
struct Slot {
    doing: Doing,
    /// Lives in a row that were short.
    failures: u32,
}

/// A [`SlotState`] with what it takes to leave it.
enum Doing {
    Starting { task: AbortHandle, since: Instant, after: Option<Gone> },
    Serving { task: AbortHandle, since: Instant, start_time: Duration, stop: StopWorker },
    Draining { task: AbortHandle },
    BackingOff { gone: Gone, traceback: Option<String>, until: Instant },
    Failed(LaunchError),
    Nothing,
}

/// Asks a worker to finish within a time.
type StopWorker = oneshot::Sender<Duration>;

impl SupervisorTask {
    pub(crate) fn new(
        launch: Arc<dyn Launch>,
        settings: Settings,
        seed: u64,
        wish: watch::Receiver<Wish>,
        publish: Publish,
    ) -> Self {
        let (slots, pending, record) = (Vec::new(), JoinSet::new(), Record::default());
        let mut task = Self { launch, settings, seed, wish, slots, pending, record, publish };
        task.settle(Instant::now());
        task.publish();
        task
    }

    pub(crate) async fn run(mut self) {
        while let Some(event) = self.next_event().await {
            self.handle_event(event, Instant::now());
            self.publish();
        }
    }

    /// Waits for an event. Returns `None` when all has stopped, or nobody can ask for it any more.
    async fn next_event(&mut self) -> Option<Event> {
        if self.slots.is_empty() && self.wish.borrow().stop.is_some() {
            return None;
        }
        let due = self.slots.iter().filter_map(Slot::due).min();
        tokio::select! {
            wished = self.wish.changed() => wished.ok().map(|()| Event::Wished),
            Some(came) = self.pending.join_next_with_id() => Some(Event::Came(came)),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Some(Event::Due),
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Came(Ok((task, outcome))) => self.advance(task, outcome, now),
            Event::Came(Err(error)) => self.lose(&error, now),
            Event::Wished | Event::Due => {}
        }
        self.settle(now);
    }

    /// Moves on the slot that waited for this.
    fn advance(&mut self, task: Id, outcome: Outcome, now: Instant) {
        let Some(index) = self.waiting_for(task) else { return };
        let doing = replace(&mut self.slots[index].doing, Doing::Nothing);
        match (outcome, doing) {
            (Outcome::Launched(worker), Doing::Starting { since, .. }) => {
                self.watch_over(index, worker, now - since, now);
            }
            // It became ready as it was given up, and may have jobs.
            (Outcome::Launched(worker), _) => self.drain(index, worker),
            (Outcome::Failed(error), Doing::Starting { .. }) => {
                self.launch_failed(index, error, now);
            }
            (Outcome::Gone(gone), Doing::Serving { since, .. }) => {
                self.back_off(index, gone, None, Some(now - since), now);
            }
            (Outcome::Failed(_) | Outcome::Gone(_) | Outcome::Stopped, _) => {}
        }
    }

    /// Treats a panic like the end of the worker; a slot that was given up is simply empty.
    fn lose(&mut self, error: &JoinError, now: Instant) {
        let Some(index) = self.waiting_for(error.id()) else { return };
        let reason = format!("looking after the worker failed: {error}");
        match replace(&mut self.slots[index].doing, Doing::Nothing) {
            Doing::Starting { .. } => {
                self.launch_failed(index, LaunchError { reason, traceback: None }, now);
            }
            Doing::Serving { since, .. } => {
                self.back_off(index, Gone::new(Cause::Exit, reason), None, Some(now - since), now);
            }
            _ => {}
        }
    }

    fn waiting_for(&self, task: Id) -> Option<usize> {
        self.slots.iter().position(|slot| slot.task() == Some(task))
    }

    fn watch_over(
        &mut self,
        index: usize,
        worker: Box<dyn Launched>,
        start_time: Duration,
        now: Instant,
    ) {
        let mean = self.record.start_time.map_or(start_time, |mean| (mean + start_time) / 2);
        self.record.start_time = Some(mean);
        let (stop, stopped) = oneshot::channel();
        let task = self.pending.spawn(serve(worker, stopped, self.wish.clone()));
        self.slots[index].doing = Doing::Serving { task, since: now, start_time, stop };
    }

    fn drain(&mut self, index: usize, worker: Box<dyn Launched>) {
        let drained = drain(worker, self.grace(), self.wish.clone());
        self.slots[index].doing = Doing::Draining { task: self.pending.spawn(drained) };
    }

    fn launch_failed(&mut self, index: usize, error: LaunchError, now: Instant) {
        let never_ready = self.record.start_time.is_none();
        if self.settings.give_up && never_ready {
            self.slots[index].doing = Doing::Failed(error);
        } else {
            let gone = Gone::new(Cause::Start, error.reason);
            self.back_off(index, gone, error.traceback, None, now);
        }
    }

    fn back_off(
        &mut self,
        index: usize,
        gone: Gone,
        traceback: Option<String>,
        ready_for: Option<Duration>,
        now: Instant,
    ) {
        let slot = &mut self.slots[index];
        slot.failures = failures_after(slot.failures, ready_for);
        let until = now + delay(slot.failures, self.seed.wrapping_add(index as u64));
        slot.doing = Doing::BackingOff { gone, traceback, until };
    }

    /// Lets every slot do what follows from the number of workers that are wanted.
    fn settle(&mut self, now: Instant) {
        let wanted = self.wish.borrow_and_update().workers;
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
        let doing = replace(&mut self.slots[index].doing, Doing::Nothing);
        self.slots[index].doing = match (step, doing) {
            (Step::Launch, doing) => self.launch(index, doing, now),
            (_, Doing::Starting { task, .. }) => {
                task.abort();
                Doing::Draining { task }
            }
            (_, Doing::Serving { task, stop, .. }) => {
                // One that is gone already says so next.
                let _ = stop.send(self.grace());
                Doing::Draining { task }
            }
            _ => Doing::Nothing,
        };
    }

    fn launch(&mut self, index: usize, before: Doing, now: Instant) -> Doing {
        let launched = self.launch.launch(index);
        let task = self
            .pending
            .spawn(async { launched.await.map_or_else(Outcome::Failed, Outcome::Launched) });
        let after = match before {
            Doing::BackingOff { gone, .. } => {
                self.record.restarts[index] += 1;
                *self.record.causes.entry(gone.cause).or_default() += 1;
                Some(gone)
            }
            _ => None,
        };
        Doing::Starting { task, since: now, after }
    }

    fn grace(&self) -> Duration {
        self.wish.borrow().stop.unwrap_or(self.settings.grace)
    }

    fn publish(&self) {
        // First what is read beside the states.
        self.publish.record.send_if_modified(|published| update(published, &self.record));
        let states: Vec<_> = self.slots.iter().map(Slot::state).collect();
        self.publish.states.send_if_modified(|published| update(published, &states));
    }
}

impl Slot {
    fn new() -> Self {
        Self { doing: Doing::Nothing, failures: 0 }
    }

    fn state(&self) -> SlotState {
        match &self.doing {
            Doing::Starting { since, after, .. } => {
                SlotState::Starting { since: *since, after: after.clone() }
            }
            Doing::Serving { start_time, .. } => SlotState::Ready(*start_time),
            Doing::Draining { .. } => SlotState::Draining,
            Doing::BackingOff { gone, traceback, until } => {
                let (gone, traceback) = (gone.clone(), traceback.clone());
                SlotState::BackingOff { gone, traceback, until: *until }
            }
            Doing::Failed(error) => SlotState::Failed(error.clone()),
            Doing::Nothing => SlotState::Stopped,
        }
    }

    fn task(&self) -> Option<Id> {
        match &self.doing {
            Doing::Starting { task, .. }
            | Doing::Serving { task, .. }
            | Doing::Draining { task } => Some(task.id()),
            Doing::BackingOff { .. } | Doing::Failed(_) | Doing::Nothing => None,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self.doing {
            Doing::BackingOff { until, .. } => Some(until),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.doing, Doing::Nothing)
    }
}

/// Waits until a worker is gone or is asked to finish, and then until it has.
async fn serve(
    mut worker: Box<dyn Launched>,
    stop: oneshot::Receiver<Duration>,
    wish: watch::Receiver<Wish>,
) -> Outcome {
    let grace = tokio::select! {
        reason = worker.gone() => return Outcome::Gone(reason),
        grace = stop => grace.unwrap_or_default(),
    };
    drain(worker, grace, wish).await
}

/// Lets a worker finish, and ends it by force where all is to end sooner than it was told.
async fn drain(
    worker: Box<dyn Launched>,
    grace: Duration,
    mut wish: watch::Receiver<Wish>,
) -> Outcome {
    let told_last = wish.borrow().stop.is_some();
    let hurry = async {
        match wish.wait_for(|wish| wish.stop.is_some()).await.map(|wish| wish.stop) {
            Ok(Some(sooner)) if !told_last => sleep(sooner).await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = worker.stop(grace) => {}
        () = hurry => {}
    }
    Outcome::Stopped
}

/// Returns whether that changed anything.
fn update<T: Clone + PartialEq>(published: &mut T, new: &T) -> bool {
    let changed = published != new;
    if changed {
        published.clone_from(new);
    }
    changed
}
