//! The events of an endpoint's queue, and the ids of its workers.

use std::fmt;

use litplex_core::{Done, Job, Mode, ModelInfo, Outcome, Request, Unanswered, Worker};
use tokio::sync::oneshot;

use crate::share::Change;
use crate::{EndpointLoad, Outlook, QueueSettings};

/// An event that the endpoint's task handles.
pub(crate) enum Event {
    Job(Job),
    CallersLeft,
    Attached {
        id: WorkerId,
        slot: usize,
        info: ModelInfo,
        worker: Box<dyn Worker>,
    },
    Finished {
        id: WorkerId,
        done: Done,
    },
    Abandoned {
        id: WorkerId,
        jobs: usize,
    },
    /// A worker calls other endpoints.
    Calls,
    Retiring {
        id: WorkerId,
    },
    Gone {
        id: WorkerId,
        unanswered: Vec<Unanswered>,
    },
    /// The turn of a worker on a shared device has changed.
    Turn(WorkerId, Change),
    Outlook(Outlook),
    Mode(Mode),
    Settings(QueueSettings),
    CostQuery {
        request: Request,
        answer: oneshot::Sender<Outcome<f64>>,
    },
    /// A request waits for the first worker, before its body is read.
    FirstWorker(oneshot::Sender<Outcome<()>>),
    Inspect(oneshot::Sender<EndpointLoad>),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Job(_) => "Job",
            Self::CallersLeft => "CallersLeft",
            Self::Attached { .. } => "Attached",
            Self::Finished { .. } => "Finished",
            Self::Abandoned { .. } => "Abandoned",
            Self::Calls => "Calls",
            Self::Retiring { .. } => "Retiring",
            Self::Gone { .. } => "Gone",
            Self::Turn(..) => "Turn",
            Self::Outlook(_) => "Outlook",
            Self::Mode(_) => "Mode",
            Self::Settings(_) => "Settings",
            Self::CostQuery { .. } => "CostQuery",
            Self::FirstWorker(_) => "FirstWorker",
            Self::Inspect(_) => "Inspect",
        })
    }
}

/// The id of an attached worker, unique within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WorkerId(u64);

impl WorkerId {
    pub(crate) fn next() -> Self {
        Self(next_id())
    }
}

/// Returns a number that is unique within this process.
pub(crate) fn next_id() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}
