//! The handles of a supervisor: its owner's, views of its slots, and the setter of its target.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Launch, Monitor};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::target::{Record, Target};
use crate::task::{Monitors, Publish, SupervisorTask};
use crate::{Readiness, SlotState, SupervisorSettings, readiness};

/// The supervisor of one endpoint's slots. It kills their workers when dropped.
#[derive(Debug)]
pub struct Supervisor {
    target: watch::Sender<Target>,
    view: View,
    task: JoinSet<()>,
}

/// A view of an endpoint's slots that may outlive its supervisor.
#[derive(Debug, Clone)]
pub struct View {
    target: watch::Receiver<Target>,
    states: watch::Receiver<Vec<SlotState>>,
    record: watch::Receiver<Record>,
    monitors: watch::Receiver<Monitors>,
}

/// The setter of the number of slots that should have a worker. It has no effect once the
/// supervisor is gone.
#[derive(Debug, Clone)]
pub struct Wanted(watch::Sender<Target>);

impl Wanted {
    /// Sets the number; 0 is allowed.
    ///
    /// A higher number launches a worker at once in each of the lowest empty slots. A lower number
    /// drains the workers of the highest slots within [`SupervisorSettings::grace`], and kills
    /// those that are not ready. A slot that is wanted again while it drains gets a new worker
    /// afterwards.
    pub fn set(&self, workers: usize) {
        // No worker is launched after `stop`.
        self.0.send_if_modified(|target| {
            target.stop.is_none() && std::mem::replace(&mut target.workers, workers) != workers
        });
    }
}

/// Keeps a worker in each of `wanted` slots from now on. Must be called within a runtime.
///
/// A lost worker is replaced at once. A slot whose workers repeatedly live briefly or do not become
/// ready backs off, for longer each time, up to 30 s.
pub fn supervise(
    launch: Arc<dyn Launch>,
    wanted: usize,
    settings: SupervisorSettings,
) -> Supervisor {
    let (target, target_view) = watch::channel(Target { workers: wanted, stop: None });
    let (publish_states, states) = watch::channel(Vec::new());
    let (publish_record, record) = watch::channel(Record::default());
    let (publish_monitors, monitors) = watch::channel(Monitors::new());
    let publish =
        Publish { states: publish_states, record: publish_record, monitors: publish_monitors };
    // Endpoints that lose their workers to the same cause must not retry at the same time.
    let seed = RandomState::new().hash_one(wanted);
    let slots = SupervisorTask::new(launch, settings, seed, target_view.clone(), publish);
    let mut task = JoinSet::new();
    task.spawn(slots.run());
    Supervisor { target, view: View { target: target_view, states, record, monitors }, task }
}

impl Supervisor {
    /// Returns a watch of the state of every slot, in the order of the slots. The list grows as
    /// soon as more slots are wanted, and shrinks when the last slots are empty.
    pub fn states(&self) -> watch::Receiver<Vec<SlotState>> {
        self.view.states.clone()
    }

    /// Returns a watch of the measurements.
    pub fn record(&self) -> watch::Receiver<Record> {
        self.view.record.clone()
    }

    /// Returns a view of the slots, the target and the measurements.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Returns the number of slots that should have a worker.
    pub fn wanted(&self) -> usize {
        self.view.wanted()
    }

    /// Returns a setter of the number of slots that should have a worker.
    pub fn wanted_setter(&self) -> Wanted {
        Wanted(self.target.clone())
    }

    /// Stops every worker and returns when all are gone. Ready workers may finish within `grace`
    /// and are killed after it; those that are not ready are killed at once.
    pub async fn stop(mut self, grace: Duration) {
        self.target.send_replace(Target { workers: 0, stop: Some(grace) });
        while self.task.join_next().await.is_some() {}
    }
}

impl View {
    /// Returns the state of every slot, in the order of the slots.
    pub fn states(&self) -> Vec<SlotState> {
        self.states.borrow().clone()
    }

    /// Returns the measurements so far.
    pub fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// Returns the monitor of the worker that serves or starts in a slot; `None` if no worker does, if its
    /// process is not there yet, or if its launch cannot measure it.
    pub fn monitor(&self, slot: usize) -> Option<Arc<dyn Monitor>> {
        self.monitors.borrow().get(slot)?.borrow().clone()
    }

    /// Returns the number of slots that should have a worker.
    pub fn wanted(&self) -> usize {
        self.target.borrow().workers
    }

    /// Returns whether the supervisor is stopping or gone.
    pub fn is_over(&self) -> bool {
        self.target.borrow().stop.is_some() || self.states.has_changed().is_err()
    }

    /// Returns what jobs can expect of the endpoint.
    pub fn readiness(&self) -> Readiness {
        let start_time = self.record.borrow().start_time;
        readiness(&self.states.borrow(), self.wanted(), start_time)
    }

    /// Resolves when the state of a slot or the target has changed since the last call. Returns
    /// false when the supervisor is gone.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.states.changed() => changed.is_ok(),
            changed = self.target.changed() => changed.is_ok(),
        }
    }
}
