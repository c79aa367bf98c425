//! The owner of the state of all calls, which decides at each event.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use litplex_core::{CallId, WorkerKey};
use tokio::sync::oneshot;

use super::find::{blocked_callers, find, stuck_workers};
use super::state::{Doubt, Parent, QueueKey, Reads, Refusal, State};

/// The detector of deadlocks of a server. Clones share their state.
///
/// The order of events matters. Each must be reported before the side that it concerns can cause
/// another one:
///
/// - [`held`](Self::held) before the job is written to the worker;
/// - [`ended`](Self::ended) where the last frame of the response is *read* from the callee's worker (not
///   where the caller wakes: meanwhile the worker may have begun another job), and before the response
///   is written to the caller's worker;
/// - [`add_part`](Self::add_part) in the same way for each part of a stream;
/// - `ended` for all calls of a hook at once when its items are answered, or it gives them up;
/// - [`gone`](Self::gone) before `requeued` or `ended` for the jobs of that worker.
///
/// Events of calls and workers that are not known, or not any longer, are ignored.
#[derive(Debug, Clone, Default)]
pub struct Deadlocks(Arc<Mutex<State>>);

/// A queue that [`Deadlocks`] watches, until the last clone of this is dropped: that of a generation of an
/// endpoint, or a pipeline, which has no workers.
#[derive(Debug, Clone)]
pub struct WatchedQueue(Arc<QueueGuard>);

#[derive(Debug)]
struct QueueGuard {
    deadlocks: Deadlocks,
    key: QueueKey,
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.deadlocks.state().remove_queue(self.key);
    }
}

/// A call that [`Deadlocks`] watches until this is dropped.
#[derive(Debug)]
#[must_use = "the call is watched until this is dropped"]
pub struct WatchedCall {
    id: CallId,
    deadlocks: Deadlocks,
    /// `None` once the call is refused or has ended.
    refusal: Option<oneshot::Receiver<Refusal>>,
}

impl WatchedCall {
    /// Returns the number of the call.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Waits until the call is refused, forever if that does not happen. It may be dropped and called again.
    pub async fn refused(&mut self) -> Refusal {
        poll_fn(|cx| self.poll_refused(cx)).await
    }

    /// Polls for the refusal of the call, which is returned once.
    pub fn poll_refused(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let Some(refusal) = &mut self.refusal else { return Poll::Pending };
        let refused = ready!(Pin::new(refusal).poll(cx));
        self.refusal = None;
        // Without one, the call has ended.
        refused.map_or(Poll::Pending, Poll::Ready)
    }

    /// Notes that the caller waits for the call, of whose stream it has taken this many parts.
    pub fn wait(&self, taken: u64) {
        self.deadlocks.wait(self.id, taken);
    }

    /// Notes a part of the stream of a call that the server computes, before it is passed on.
    pub fn pass_part_on(&self) {
        self.deadlocks.state().pass_part_on(self.id);
    }

    /// Returns the refusal, if the call is refused. It is returned once.
    #[cfg(test)]
    pub(super) fn try_refused(&mut self) -> Option<Refusal> {
        self.refusal.as_mut()?.try_recv().ok()
    }
}

impl Drop for WatchedCall {
    fn drop(&mut self) {
        self.deadlocks.ended(self.id);
    }
}

impl Deadlocks {
    /// Returns a detector without queues.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a queue of the endpoint with this name, which may have this many workers at the same time; 0
    /// for a pipeline.
    pub fn watch(&self, name: &str, most_workers: usize) -> WatchedQueue {
        let key = self.state().add_queue(name.into(), most_workers);
        WatchedQueue(Arc::new(QueueGuard { deadlocks: self.clone(), key }))
    }

    /// Notes that a worker takes no more jobs and finishes those that it has.
    pub fn retiring(&self, worker: WorkerKey) {
        self.decide(|state| state.retire(worker));
    }

    /// Notes that a worker was lost or has finished.
    pub fn gone(&self, worker: WorkerKey) {
        self.decide(|state| state.gone(worker));
    }

    /// Notes that the caller of a call waits for it from now on, and has taken this many parts of its
    /// stream. If more have come, one is on the way to the caller, which does not wait.
    pub fn wait(&self, call: CallId, taken: u64) {
        self.decide(|state| state.wait(call, taken));
    }

    /// Notes that a part of a stream has come. A caller that reads parts does not wait any longer, until
    /// the next [`wait`](Self::wait).
    pub fn add_part(&self, call: CallId) {
        self.state().add_part(call);
    }

    /// Notes that a worker holds a call as this item: the one that the worker's own calls have among their
    /// parents.
    pub fn held(&self, call: CallId, worker: WorkerKey, item: u64) {
        self.decide(|state| state.held(call, worker, item));
    }

    /// Notes that a call is in the queue again, because its worker was lost.
    pub fn requeued(&self, call: CallId) {
        self.decide(|state| state.requeued(call));
    }

    /// Notes that a call has its result, or has no caller any longer.
    pub fn ended(&self, call: CallId) {
        drop(self.state().end(call));
    }

    /// Returns the number of queues.
    #[cfg(test)]
    pub(super) fn queues(&self) -> usize {
        self.state().queues.len()
    }

    /// Returns the number of calls that have not ended.
    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        self.state().calls.len()
    }

    /// Applies an event, and refuses calls until none is stuck.
    fn decide<T: Event>(&self, event: impl FnOnce(&mut State) -> T) -> T::Output {
        let mut state = self.state();
        let (doubt, output) = event(&mut state).split();
        loop {
            let concerned = state.doubted(doubt);
            let Some(deadlock) = find(&state, &concerned) else { return output };
            if let Some(caller) = state.end(deadlock.newest) {
                // The caller may have left.
                let _ = caller.send(Refusal { chain: deadlock.chain });
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchedQueue {
    /// Changes the most workers that the queue may have.
    pub fn set_most_workers(&self, most: usize) {
        self.deadlocks().decide(|state| state.set_most_workers(self.key(), most));
    }

    /// Notes that workers of this queue start when those of another one are gone, and these when they have
    /// finished their jobs.
    pub fn start_after(&self, other: &Self) {
        self.deadlocks().decide(|state| state.start_after(self.key(), other.key()));
    }

    /// Returns the number of workers of the queue, if a call in it waits for them and they, over other
    /// calls, for that call: then only the start of another worker brings it on. Otherwise 0.
    pub fn stuck_workers(&self) -> usize {
        stuck_workers(&self.deadlocks().state(), self.key())
    }

    /// Returns the endpoints whose hooks are blocked in calls that wait in this queue, and in calls of those, by
    /// name.
    pub fn blocked_callers(&self) -> Vec<Arc<str>> {
        blocked_callers(&self.deadlocks().state(), self.key())
    }

    /// Adds a worker that takes jobs of the queue and runs this many hooks at the same time: 1 if it
    /// computes one job or batch after the other, also if its hooks share one thread.
    pub fn attached(&self, slot: usize, places: usize) -> WorkerKey {
        self.deadlocks().state().attach(self.key(), slot, places)
    }

    /// Adds a call, which is now in the queue. `waits` says that the hook waits for it from now on. The
    /// call may be refused at once.
    pub fn begin(&self, parent: Parent<'_>, reads: Reads, waits: bool) -> WatchedCall {
        let (sender, refusal) = oneshot::channel();
        let begin = |state: &mut State| state.begin(self.key(), parent, reads, waits, sender);
        let id = self.deadlocks().decide(begin);
        WatchedCall { id, deadlocks: self.deadlocks().clone(), refusal: Some(refusal) }
    }

    /// Notes that a call of another queue is now in this one: another generation computes it again.
    pub fn take_over(&self, call: CallId) {
        self.deadlocks().decide(|state| state.move_to(call, self.key()));
    }

    fn deadlocks(&self) -> &Deadlocks {
        &self.0.deadlocks
    }

    fn key(&self) -> QueueKey {
        self.0.key
    }
}

/// The result of an event: what it leaves in doubt, and what is returned to its reporter.
trait Event {
    type Output;
    fn split(self) -> (Doubt, Self::Output);
}

impl Event for Doubt {
    type Output = ();
    fn split(self) -> (Doubt, ()) {
        (self, ())
    }
}

impl Event for (CallId, Doubt) {
    type Output = CallId;
    fn split(self) -> (Doubt, CallId) {
        (self.1, self.0)
    }
}
