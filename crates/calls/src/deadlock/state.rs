//! The state of all calls between endpoints: which call waits for what. Events change it.
//!
//! A worker has *places*: the number of hooks that it runs at the same time. A place is *blocked* while
//! its hook waits for a call. The state keeps blocked places only, so that a worker whose hooks
//! compute costs nothing here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use litplex_core::{CallId, ServeError, WorkerKey};
use slab::Slab;
use tokio::sync::oneshot;

/// A queue that [`Deadlocks`](super::Deadlocks) watches. It is never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueKey(u64);

/// The side that makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent<'a> {
    /// A request of a client, for which no worker waits: the first stage of a pipeline.
    Client,
    /// A hook of this worker, for these items: all items that are in the hook's place, so all of a batch.
    Hook(WorkerKey, &'a [u64]),
    /// Another call, which the server computes: a pipeline, or a call that needs several jobs. From
    /// then on that call waits for its own calls, and is in no queue.
    Call(CallId),
}

/// The way in which the caller of a call reads its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// As a whole: it waits for the end, also of a stream.
    Whole,
    /// Part by part, if it is a stream: each part ends its wait.
    Parts,
}

/// The refusal of a call that waits for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The hooks that wait for each other, and the endpoint that the refused call is for:
    /// `/a#0 → /b#0 → /a`.
    pub chain: String,
}

impl From<Refusal> for ServeError {
    fn from(refusal: Refusal) -> Self {
        Self::deadlock(&refusal.chain)
    }
}

/// All queues, their workers and the calls between them.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) queues: BTreeMap<QueueKey, Queue>,
    pub(super) workers: HashMap<WorkerKey, Worker>,
    pub(super) calls: HashMap<CallId, Call>,
    last_queue: u64,
    last_call: u64,
    last_worker: u64,
}

/// The queue of a generation of an endpoint, or a pipeline, which has no workers.
#[derive(Debug)]
pub(super) struct Queue {
    /// The name of the endpoint.
    pub(super) name: Arc<str>,
    /// The most workers that it may have.
    most_workers: usize,
    /// The queue whose workers must be gone before workers of this one start.
    after: Option<QueueKey>,
    /// The workers that take jobs from it.
    pub(super) workers: Vec<WorkerKey>,
    /// The number of these workers with a place that is not blocked.
    open_workers: usize,
}

/// A worker with its blocked places.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) queue: QueueKey,
    pub(super) slot: usize,
    places: usize,
    /// Whether it takes no further jobs.
    is_retiring: bool,
    blocked: Slab<BlockedPlace>,
    /// The blocked place of each item; of a worker with one place, the item is always 0.
    place_of: BTreeMap<u64, usize>,
}

/// A place whose hook waits.
#[derive(Debug, Default)]
pub(super) struct BlockedPlace {
    items: Vec<u64>,
    /// The calls that it waits for.
    pub(super) waits: Vec<CallId>,
}

/// A call that has no result yet.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) callee: QueueKey,
    pub(super) caller: Caller,
    /// Whether its caller waits for it.
    pub(super) waits: bool,
    /// The number of parts of its stream that have come, if its caller reads them one by one; otherwise it
    /// waits for the end.
    parts: Option<u64>,
    pub(super) progress: Progress,
    /// The calls of its own that it waits for, if the server computes it.
    pub(super) stages: Vec<CallId>,
    /// Tells the caller that the call is refused.
    refusal: Option<oneshot::Sender<Refusal>>,
}

/// The side that made a call.
#[derive(Debug, PartialEq)]
pub(super) enum Caller {
    /// A client's request to a pipeline: no place waits.
    Client,
    /// A hook of a worker, for these items.
    Hook(WorkerKey, Vec<u64>),
    /// The server, for another call.
    Call(CallId),
}

/// The progress of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The call is in the queue of its callee.
    Queued,
    /// A worker holds it as this item.
    Held(WorkerKey, u64),
    /// The server computes it with calls of its own.
    InServer,
}

/// The calls that an event may have left without a way on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// None.
    None,
    /// This call.
    Call(CallId),
    /// All calls in this queue.
    Queue(QueueKey),
}

impl State {
    pub(super) fn add_queue(&mut self, name: Arc<str>, most_workers: usize) -> QueueKey {
        self.last_queue += 1;
        let key = QueueKey(self.last_queue);
        let (after, workers, open_workers) = (None, Vec::new(), 0);
        self.queues.insert(key, Queue { name, most_workers, after, workers, open_workers });
        key
    }

    /// Removes a queue. What refers to it still is taken to end.
    pub(super) fn remove_queue(&mut self, key: QueueKey) {
        self.queues.remove(&key);
    }

    pub(super) fn set_most_workers(&mut self, key: QueueKey, most: usize) -> Doubt {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.most_workers = most;
        }
        Doubt::Queue(key)
    }

    pub(super) fn start_after(&mut self, key: QueueKey, after: QueueKey) -> Doubt {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.after = Some(after);
        }
        Doubt::Queue(key)
    }

    pub(super) fn attach(&mut self, queue: QueueKey, slot: usize, places: usize) -> WorkerKey {
        self.last_worker += 1;
        let key = WorkerKey(self.last_worker);
        let worker = Worker {
            queue,
            slot,
            places: places.max(1),
            is_retiring: false,
            blocked: Slab::new(),
            place_of: BTreeMap::new(),
        };
        self.workers.insert(key, worker);
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.workers.push(key);
            queue.open_workers += 1;
        }
        key
    }

    pub(super) fn retire(&mut self, key: WorkerKey) -> Doubt {
        let Some(worker) = self.workers.get_mut(&key) else { return Doubt::None };
        let was_open = worker.is_open();
        if std::mem::replace(&mut worker.is_retiring, true) {
            return Doubt::None;
        }
        if let Some(queue) = self.queues.get_mut(&worker.queue) {
            queue.workers.retain(|other| *other != key);
            queue.open_workers -= usize::from(was_open);
        }
        Doubt::Queue(worker.queue)
    }

    pub(super) fn gone(&mut self, key: WorkerKey) -> Doubt {
        let doubt = self.retire(key);
        self.workers.remove(&key);
        doubt
    }

    pub(super) fn begin(
        &mut self,
        callee: QueueKey,
        parent: Parent<'_>,
        reads: Reads,
        waits: bool,
        refusal: oneshot::Sender<Refusal>,
    ) -> (CallId, Doubt) {
        self.last_call += 1;
        let id = CallId(self.last_call);
        let caller = match parent {
            Parent::Client => Caller::Client,
            Parent::Hook(worker, items) => Caller::Hook(worker, items.to_vec()),
            Parent::Call(parent) => Caller::Call(parent),
        };
        if let Caller::Call(parent) = caller
            && let Some(parent) = self.calls.get_mut(&parent)
        {
            parent.progress = Progress::InServer;
        }
        let (progress, refusal) = (Progress::Queued, Some(refusal));
        let (waits_now, stages) = (false, Vec::new());
        let parts = (reads == Reads::Parts).then_some(0);
        let call = Call { callee, caller, waits: waits_now, parts, progress, stages, refusal };
        self.calls.insert(id, call);
        (id, if waits { self.wait(id, 0) } else { Doubt::None })
    }

    pub(super) fn wait(&mut self, id: CallId, taken: u64) -> Doubt {
        let has_taken_all = |call: &Call| call.parts.is_none_or(|parts| parts <= taken);
        let call = self.calls.get_mut(&id).filter(|call| !call.waits && has_taken_all(call));
        let Some(call) = call else { return Doubt::None };
        call.waits = true;
        match &call.caller {
            Caller::Client => {}
            Caller::Call(parent) => {
                let parent = *parent;
                if let Some(parent) = self.calls.get_mut(&parent) {
                    parent.stages.push(id);
                }
            }
            Caller::Hook(worker, items) => {
                let queues = &mut self.queues;
                if let Some(worker) = self.workers.get_mut(worker) {
                    change(queues, worker, |worker| worker.block(items, id));
                }
            }
        }
        Doubt::Call(id)
    }

    /// Notes a part of a stream that has come.
    pub(super) fn add_part(&mut self, id: CallId) {
        if let Some(parts) = self.calls.get_mut(&id).and_then(|call| call.parts.as_mut()) {
            *parts += 1;
            self.resume(id);
        }
    }

    /// Notes a part of a stream that the server passes on, if it computes the call. Those of a worker
    /// are noted where they come.
    pub(super) fn pass_part_on(&mut self, id: CallId) {
        let is_in_server = |call: &Call| call.progress == Progress::InServer;
        if self.calls.get(&id).is_some_and(is_in_server) {
            self.add_part(id);
        }
    }

    /// Ends the wait for a call.
    fn resume(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.waits) else { return };
        call.waits = false;
        match &call.caller {
            Caller::Client => {}
            Caller::Call(parent) => {
                let parent = *parent;
                if let Some(parent) = self.calls.get_mut(&parent) {
                    parent.stages.retain(|stage| *stage != id);
                }
            }
            Caller::Hook(worker, items) => {
                let queues = &mut self.queues;
                if let Some(worker) = self.workers.get_mut(worker) {
                    change(queues, worker, |worker| worker.unblock(items, id));
                }
            }
        }
    }

    pub(super) fn held(&mut self, id: CallId, worker: WorkerKey, item: u64) -> Doubt {
        self.set_progress(id, Progress::Held(worker, item))
    }

    pub(super) fn requeued(&mut self, id: CallId) -> Doubt {
        self.set_progress(id, Progress::Queued)
    }

    /// Puts a call into another queue.
    pub(super) fn move_to(&mut self, id: CallId, queue: QueueKey) -> Doubt {
        if let Some(call) = self.calls.get_mut(&id) {
            call.callee = queue;
        }
        self.requeued(id)
    }

    fn set_progress(&mut self, id: CallId, progress: Progress) -> Doubt {
        let Some(call) = self.calls.get_mut(&id) else { return Doubt::None };
        call.progress = progress;
        Doubt::Call(id)
    }

    /// Removes a call, and returns the way to tell its caller that it is refused.
    pub(super) fn end(&mut self, id: CallId) -> Option<oneshot::Sender<Refusal>> {
        self.resume(id);
        self.calls.remove(&id)?.refusal
    }

    /// Returns the calls that an event may have left without a way on.
    pub(super) fn doubted(&self, doubt: Doubt) -> Vec<CallId> {
        match doubt {
            Doubt::None => Vec::new(),
            Doubt::Call(id) if self.calls.get(&id).is_none_or(|call| self.is_on_its_way(call)) => {
                Vec::new()
            }
            Doubt::Call(id) => vec![id],
            Doubt::Queue(queue) if self.can_take_jobs(queue) => Vec::new(),
            Doubt::Queue(queue) => self.queued(queue),
        }
    }

    /// Returns the calls in a queue.
    pub(super) fn queued(&self, queue: QueueKey) -> Vec<CallId> {
        let is_queued = |call: &Call| call.callee == queue && call.progress == Progress::Queued;
        let queued = self.calls.iter().filter(|(_, call)| is_queued(call));
        queued.map(|(id, _)| *id).collect()
    }

    /// Returns the workers that must be gone before workers of this queue start.
    pub(super) fn workers_before(&self, queue: &Queue) -> impl Iterator<Item = &Worker> {
        let after = queue.after;
        let before = after.into_iter().flat_map(|_| self.workers.values());
        before.filter(move |worker| Some(worker.queue) == after)
    }

    /// Returns whether a job in a queue surely reaches a worker: one has a place that is not blocked, or
    /// another worker can start.
    fn can_take_jobs(&self, queue: QueueKey) -> bool {
        let Some(queue) = self.queues.get(&queue) else { return true };
        let has_blocked = |worker: &Worker| worker.blocked_places().next().is_some();
        queue.has_open_worker()
            || (queue.may_start_workers() && !self.workers_before(queue).any(has_blocked))
    }

    /// Returns whether a call surely ends, whatever other calls do. Nearly all calls do.
    fn is_on_its_way(&self, call: &Call) -> bool {
        match call.progress {
            Progress::Queued => self.can_take_jobs(call.callee),
            Progress::InServer => call.stages.is_empty(),
            Progress::Held(worker, item) => self.workers.get(&worker).is_none_or(|worker| {
                worker.has_free_place() && worker.blocked_place(item).is_none()
            }),
        }
    }
}

/// Changes the blocked places of a worker, and keeps the count of its queue in step.
fn change(
    queues: &mut BTreeMap<QueueKey, Queue>,
    worker: &mut Worker,
    change: impl FnOnce(&mut Worker),
) {
    let was_open = worker.is_open();
    change(worker);
    if let Some(queue) = queues.get_mut(&worker.queue) {
        queue.open_workers += usize::from(worker.is_open());
        queue.open_workers -= usize::from(was_open);
    }
}

impl Queue {
    /// Returns whether another worker can start, once those before this queue are gone. Without any worker,
    /// calls are not what a job waits for.
    pub(super) fn may_start_workers(&self) -> bool {
        self.workers.len() < self.most_workers || self.workers.is_empty()
    }

    /// Returns whether a worker that takes jobs has a place that is not blocked.
    pub(super) fn has_open_worker(&self) -> bool {
        self.open_workers > 0
    }
}

impl Worker {
    /// Returns whether it takes jobs and has a place that is not blocked.
    fn is_open(&self) -> bool {
        !self.is_retiring && self.has_free_place()
    }

    /// Returns whether it has a place that is not blocked.
    pub(super) fn has_free_place(&self) -> bool {
        self.blocked.len() < self.places
    }

    /// Returns the blocked places.
    pub(super) fn blocked_places(&self) -> impl Iterator<Item = &BlockedPlace> {
        self.blocked.iter().map(|(_, place)| place)
    }

    /// Returns the place of an item, if the place is blocked.
    pub(super) fn blocked_place(&self, item: u64) -> Option<&BlockedPlace> {
        self.place_of.get(&self.place_item(item)).map(|at| &self.blocked[*at])
    }

    fn place_item(&self, item: u64) -> u64 {
        if self.places == 1 { 0 } else { item }
    }

    fn block(&mut self, items: &[u64], id: CallId) {
        let place_items: &[u64] = if self.places == 1 { &[0] } else { items };
        let mut taken: Vec<usize> =
            place_items.iter().filter_map(|item| self.place_of.get(item).copied()).collect();
        taken.dedup();
        let at = match taken.first() {
            Some(at) => *at,
            None => self.blocked.insert(BlockedPlace::default()),
        };
        // Items that wait together are in one place, whether or not that was known before.
        for other in taken.into_iter().skip(1).filter(|other| *other != at) {
            if let Some(BlockedPlace { items, waits }) = self.blocked.try_remove(other) {
                self.blocked[at].waits.extend(waits);
                self.add_items(at, &items);
            }
        }
        self.add_items(at, place_items);
        self.blocked[at].waits.push(id);
    }

    fn add_items(&mut self, at: usize, items: &[u64]) {
        for item in items {
            if self.place_of.insert(*item, at) != Some(at) || !self.blocked[at].items.contains(item)
            {
                self.blocked[at].items.push(*item);
            }
        }
    }

    fn unblock(&mut self, items: &[u64], id: CallId) {
        let item = items.first().map(|item| self.place_item(*item));
        let Some(at) = item.and_then(|item| self.place_of.get(&item).copied()) else { return };
        let place = &mut self.blocked[at];
        place.waits.retain(|wait| *wait != id);
        if place.waits.is_empty() {
            let place = self.blocked.remove(at);
            for item in place.items {
                self.place_of.remove(&item);
            }
        }
    }
}
