use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Cause, Launch};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::task::{Publish, SupervisorTask};
use crate::{Outlook, SlotState, outlook};

/// How the slots of an endpoint are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a worker that is no longer wanted may take to answer the jobs that it has, before
    /// it is ended by force. Default: 30 s.
    pub grace: Duration,
    /// Whether a slot stays [`SlotState::Failed`] when its first launch fails and no worker of
    /// the endpoint was ever ready, so that the caller can end the program. Otherwise it backs off
    /// and tries again, as it does after every other failure. Default: true.
    pub give_up: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), give_up: true }
    }
}

/// What has been measured of an endpoint's workers so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// How long a worker takes from its launch until it is ready: a mean in which the last start
    /// weighs half. `None` until one was ready.
    pub start_time: Option<Duration>,
    /// How often each slot's worker was launched again because the one before was gone or did not
    /// become ready. Counts stay when a slot goes.
    pub restarts: Vec<u64>,
    /// How often that was for what cause, over all slots.
    pub causes: BTreeMap<Cause, u64>,
}

/// The slots of one endpoint. Dropped, it ends their workers by force.
#[derive(Debug)]
pub struct Supervisor {
    wish: watch::Sender<Wish>,
    view: View,
    task: JoinSet<()>,
}

/// A view of an endpoint's slots that may outlive its supervisor.
#[derive(Debug, Clone)]
pub struct View {
    wish: watch::Receiver<Wish>,
    states: watch::Receiver<Vec<SlotState>>,
    record: watch::Receiver<Record>,
}

/// Sets how many slots of an endpoint should have a worker. Of no effect once its supervisor is
/// gone.
#[derive(Debug, Clone)]
pub struct Wanted(watch::Sender<Wish>);

impl Wanted {
    /// Sets the number; none is allowed.
    ///
    /// More: a worker is launched at once in each of the lowest slots that have none. Fewer: the
    /// highest slots' workers finish within [`Settings::grace`], and those that are not ready are
    /// ended at once. A slot that is wanted again before its worker is gone gets a new one after.
    pub fn set(&self, workers: usize) {
        // Nothing is started once all is to end.
        self.0.send_if_modified(|wish| {
            wish.stop.is_none() && std::mem::replace(&mut wish.workers, workers) != workers
        });
    }
}

/// What the owner of the slots asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// How many slots should have a worker.
    pub(crate) workers: usize,
    /// Set once all is to end, within this time.
    pub(crate) stop: Option<Duration>,
}

/// Keeps a worker in each of `wanted` slots, from now on. Must be called within a runtime.
///
/// A worker that is gone is replaced at once; one that lives briefly time after time, or does
/// not become ready, after ever longer delays of up to 30 s.
pub fn supervise(launch: Arc<dyn Launch>, wanted: usize, settings: Settings) -> Supervisor {
    let (wish, wished) = watch::channel(Wish { workers: wanted, stop: None });
    let (publish_states, states) = watch::channel(Vec::new());
    let (publish_record, record) = watch::channel(Record::default());
    let publish = Publish { states: publish_states, record: publish_record };
    // Endpoints that lose their workers to one cause must not retry in step.
    let seed = RandomState::new().hash_one(wanted);
    let slots = SupervisorTask::new(launch, settings, seed, wished.clone(), publish);
    let mut task = JoinSet::new();
    task.spawn(slots.run());
    Supervisor { wish, view: View { wish: wished, states, record }, task }
}

impl Supervisor {
    /// Returns a view of what every slot is doing, in the order of the slots. It grows at once
    /// when more are wanted, and shrinks when the last ones are gone.
    pub fn states(&self) -> watch::Receiver<Vec<SlotState>> {
        self.view.states.clone()
    }

    /// Returns a view of what has been measured.
    pub fn record(&self) -> watch::Receiver<Record> {
        self.view.record.clone()
    }

    /// Returns a view of all there is to see.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Returns how many slots should have a worker.
    pub fn wanted(&self) -> usize {
        self.view.wanted()
    }

    /// Returns what sets how many slots should have a worker.
    pub fn wanted_setter(&self) -> Wanted {
        Wanted(self.wish.clone())
    }

    /// Asks every worker to finish and returns when all are gone; those that are still there
    /// after `grace` are ended by force, and those that have not become ready at once.
    pub async fn stop(mut self, grace: Duration) {
        self.wish.send_replace(Wish { workers: 0, stop: Some(grace) });
        while self.task.join_next().await.is_some() {}
    }
}

impl View {
    /// Returns what every slot is doing, in the order of the slots.
    pub fn states(&self) -> Vec<SlotState> {
        self.states.borrow().clone()
    }

    /// Returns what has been measured.
    pub fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// Returns how many slots should have a worker.
    pub fn wanted(&self) -> usize {
        self.wish.borrow().workers
    }

    /// Returns whether the slots have been asked to stop, or are gone.
    pub fn is_over(&self) -> bool {
        self.wish.borrow().stop.is_some() || self.states.has_changed().is_err()
    }

    /// Returns whether a job can expect a worker.
    pub fn outlook(&self) -> Outlook {
        let start_time = self.record.borrow().start_time;
        outlook(&self.states.borrow(), self.wanted(), start_time)
    }

    /// Resolves when a slot does something else or another number of workers is wanted, since the
    /// last call. Returns false when the supervisor is gone.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.states.changed() => changed.is_ok(),
            changed = self.wish.changed() => changed.is_ok(),
        }
    }
}
