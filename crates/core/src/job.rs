use tokio::time::Instant;

use crate::{Reply, Request};

/// One request on its way: what to compute, until when, and whom to answer.
#[derive(Debug)]
pub struct Job {
    /// What the client sent.
    pub request: Request,
    /// When the request arrived.
    pub arrived: Instant,
    /// When its time budget runs out.
    pub deadline: Instant,
    /// The way back.
    pub reply: Reply,
}

impl Job {
    /// Tells whether computing it would be in vain: its caller left or its time is over.
    pub fn is_void(&self, now: Instant) -> bool {
        now >= self.deadline || self.reply.is_abandoned()
    }
}
