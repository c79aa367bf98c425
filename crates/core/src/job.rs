//! The job, which carries everything that its endpoint must know; the queue is in `scheduler`.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::{BatchTrace, Dispatch, JobTrace, Origin, Priority, Reply, Request};

/// A request in an endpoint's queue or in a worker, with its deadline and its reply.
#[derive(Debug)]
pub struct Job {
    /// The request of the client.
    pub request: Request,
    /// The time at which the request arrived.
    pub arrived: Instant,
    /// The time since which it waits for a worker; `arrived` before it is admitted.
    pub queued: Instant,
    /// The end of its time budget.
    pub deadline: Instant,
    /// The cost of the job in a batch, in a unit that the endpoint chooses; 1 by default, infinity
    /// if it is unknown.
    pub cost: f64,
    /// The class by which it is before or behind others.
    pub priority: Priority,
    /// Whether its request has further jobs, all of which must be computed.
    pub is_part: bool,
    /// The number of workers that were lost while they may have computed it.
    pub losses: u32,
    /// The call that it belongs to, and the client's request behind it; `None` if nothing is known.
    pub origin: Option<Arc<Origin>>,
    /// Closes when its caller has the whole response or has left; `None` unless the model watches callers
    /// ([`ModelInfo::watches_callers`](crate::ModelInfo)).
    pub live: Option<watch::Receiver<()>>,
    /// The channel for its response.
    pub reply: Reply,
}

impl Job {
    /// Returns a new job of cost 1.
    pub fn new(request: Request, arrived: Instant, deadline: Instant, reply: Reply) -> Self {
        let (queued, origin, live) = (arrived, None, None);
        let (cost, priority, is_part, losses) = (1.0, Priority::default(), false, 0);
        Self {
            request,
            arrived,
            queued,
            deadline,
            cost,
            priority,
            is_part,
            losses,
            origin,
            live,
            reply,
        }
    }

    /// Returns the number of calls between the client's request and this job: 0 for a client's own.
    pub fn depth(&self) -> u32 {
        self.origin.as_ref().map_or(0, |origin| origin.depth)
    }

    /// Takes a retry of its root; returns whether there was one.
    pub fn take_retry(&self) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.root.take_retry())
    }

    /// Returns the trace of the job, if its request is traced.
    pub fn trace(&mut self) -> Option<&mut JobTrace> {
        self.reply.trace_mut()
    }

    /// Notes that its worker was lost and that it waits again.
    pub fn note_requeued(&mut self, now: Instant) {
        if let Some(trace) = self.trace() {
            trace.requeued(now);
        }
    }

    /// Returns whether its request is traced.
    pub fn is_traced(&self) -> bool {
        self.reply.trace().is_some()
    }

    /// Returns whether the job is void: its caller left or its deadline has passed.
    pub fn is_void(&self, now: Instant) -> bool {
        now >= self.deadline || self.reply.is_abandoned()
    }
}

/// Notes in the traces of jobs that they are dispatched, as one batch where `is_batch`.
pub fn trace_dispatch(jobs: &mut [Job], is_batch: bool, to: Dispatch) {
    let Some(first) = jobs.iter().find_map(|job| job.reply.trace()) else { return };
    let batch = is_batch.then(|| {
        let members = jobs.iter().filter_map(|job| job.reply.trace()).map(JobTrace::member);
        let (endpoint, members) = (first.endpoint().clone(), members.collect());
        Arc::new(BatchTrace::new(jobs.len(), to.slot, endpoint, members, to.now))
    });
    for trace in jobs.iter_mut().filter_map(Job::trace) {
        trace.dispatched(to, batch.clone());
    }
}
