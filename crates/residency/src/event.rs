//! The events that the state machine takes, and the actions that it returns.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::Memory;

/// An endpoint, as the caller numbers them. Generations of an endpoint that run side by side have a number each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub usize);

/// A worker: a slot of an endpoint. The next worker of a slot has the same id, and is granted only after the
/// memory of the last one is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The number of its slot.
    pub slot: usize,
}

/// A worker's ask for memory, before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The worker that is to start.
    pub worker: WorkerId,
    /// The GPU that the worker gets, if it gets one: the memory that workers had on others counts there.
    pub gpu: Option<usize>,
    /// The requests that wait for it. With none it gets memory that is free, and no other worker leaves for it,
    /// unless it is required.
    pub queued: usize,
    /// Whether the worker is wanted without a request: by an operator, or because its endpoint must have it.
    pub is_required: bool,
    /// The endpoints whose hooks are blocked in calls that wait for this worker. Their memory is not available.
    pub chain: Vec<EndpointId>,
    /// The instant at which the ask is given up. Every ask has one, so none waits forever.
    pub deadline: Instant,
}

/// The use of an endpoint's resident workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// No worker has a job, and none is queued.
    Idle,
    /// Jobs are queued or computed; a worker that gets no more of them finishes those that it has.
    Busy,
}

/// An event, as the caller reports it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A worker is to start. A second ask of the same worker takes the place of the first, and has waited as long.
    Ask(Ask),
    /// No request wants that start any more. A worker that was granted already is reported as gone.
    Withdraw(WorkerId),
    /// A worker that was granted is ready, and has so much memory.
    Started(WorkerId, Memory),
    /// A worker was measured again.
    Measured(WorkerId, Memory),
    /// A worker that was granted is loaded: if it was to wake, it cannot.
    Loads(WorkerId),
    /// A worker hibernates: its process is stopped and has still so much memory. The next grant of its slot wakes it.
    Hibernated(WorkerId, Memory),
    /// A worker's process is gone, whether it was asked to leave or not, and also before it was ready.
    Gone(WorkerId),
    /// The memory of a worker that is gone is really back. Ignored before `Gone`.
    MemoryBack(WorkerId),
    /// So many requests for an endpoint have come.
    Arrivals(EndpointId, u64),
    /// The number of requests that wait for an endpoint without a resident worker.
    Queued(EndpointId, usize),
    /// The use of an endpoint's workers has changed.
    Usage(EndpointId, Usage),
    /// The budget has changed.
    Budget(Memory),
    /// Time has passed.
    Tick,
}

/// An action that the caller carries out.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start this worker: the memory is its own.
    Grant(WorkerId),
    /// Stop this worker: it gets no more jobs, finishes those that it has, and is gone. It is *leaving* already.
    Evict {
        /// The victim.
        worker: WorkerId,
        /// The cause.
        cause: EvictionCause,
    },
    /// End this worker, which hibernates: others need the memory that it still has. It is *leaving* already.
    End(WorkerId),
    /// Do not start this worker, and answer the requests that wait for it.
    Refuse(Refusal),
}

/// The cause of an eviction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EvictionCause {
    /// The memory is for this worker.
    For {
        /// The newcomer.
        newcomer: WorkerId,
        /// The reload seconds per second that the victim saved.
        value: f64,
    },
    /// The workers have more memory than the budget: one was measured beyond its prediction, or the budget fell.
    OverBudget,
    /// The endpoint was removed.
    Removed,
}

/// A refused ask.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The worker that does not start.
    pub worker: WorkerId,
    /// The reason.
    pub reason: RefusalReason,
    /// The memory that the worker needs.
    pub need: Memory,
    /// The memory that is not available to it.
    pub taken: Memory,
    /// The budget.
    pub budget: Memory,
    /// The time after which the client may try again, from measured times. `None`: it is in vain.
    pub retry_after: Option<Duration>,
}

/// The reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The worker and what must stay beside it, such as its callers, can never be in memory at once.
    TooLarge,
    /// Asks wait for memory that the callers of each other hold; this one is the newest of them.
    Knot,
    /// The memory was not there by the deadline.
    Deadline,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { need, taken, budget, .. } = self;
        let sum = format!("it needs {need} beside {taken}, of {budget}");
        match self.reason {
            RefusalReason::TooLarge => {
                write!(
                    f,
                    "the model does not fit into memory: {sum}; raise `memory_budget`, or let other models leave \
                     (`min_workers = 0`, not `pinned`)"
                )
            }
            RefusalReason::Knot => {
                write!(
                    f,
                    "calls wait for memory that their callers hold: {sum}; raise `memory_budget`"
                )
            }
            RefusalReason::Deadline => write!(f, "no memory was free in time: {sum}"),
        }
    }
}
