use tokio::time::Instant;

use crate::{JobTrace, Reply, Request};

/// One request on its way: what to compute, until when, and whom to answer.
#[derive(Debug)]
pub struct Job {
    /// What the client sent.
    pub request: Request,
    /// When the request arrived.
    pub arrived: Instant,
    /// Since when it waits for a worker; as `arrived` before it is let in.
    pub queued: Instant,
    /// When its time budget runs out.
    pub deadline: Instant,
    /// What it costs beside others in a batch, in a unit that the endpoint chose; 1 where it
    /// chose none, infinity where it is not known.
    pub cost: f64,
    /// Workers that were lost while they may have been computing it.
    pub losses: u32,
    /// The way back.
    pub reply: Reply,
}

impl Job {
    /// Makes a job of cost 1 that no worker has seen.
    pub fn new(request: Request, arrived: Instant, deadline: Instant, reply: Reply) -> Self {
        Self { request, arrived, queued: arrived, deadline, cost: 1.0, losses: 0, reply }
    }

    /// Returns what follows it, where its request is traced.
    pub fn trace(&mut self) -> Option<&mut JobTrace> {
        self.reply.trace_mut()
    }

    /// Notes that its worker was lost and it waits again.
    pub fn note_requeued(&mut self, now: Instant) {
        if let Some(trace) = self.trace() {
            trace.requeued(now);
        }
    }

    /// Tells whether its request is traced.
    pub fn is_traced(&self) -> bool {
        self.reply.trace().is_some()
    }

    /// Tells whether computing it would be in vain: its caller left or its time is over.
    pub fn is_void(&self, now: Instant) -> bool {
        now >= self.deadline || self.reply.is_abandoned()
    }
}
