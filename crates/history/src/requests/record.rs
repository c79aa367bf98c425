//! The record of one request.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::Identity;
use tokio::time::Instant;

use super::body::KeptBody;

/// A request that has ended, as it is remembered.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// The number of the request in this server.
    pub number: u64,
    /// The id of the request: its own `X-Request-ID`, or one from its number.
    pub id: Box<str>,
    /// The method.
    pub method: &'static str,
    /// The path, without the query.
    pub path: Box<str>,
    /// The status of the response; `None` if the client left before it began.
    pub status: Option<u16>,
    /// The status of the error that broke the response off.
    pub broken: Option<u16>,
    /// Whether the whole response was sent.
    pub is_complete: bool,
    /// The time of its arrival.
    pub began: Instant,
    /// The time from its arrival to the last byte of its response.
    pub duration: Duration,
    /// The bytes of the request's body, as far as they are known.
    pub bytes_in: Option<u64>,
    /// The bytes of the response's body that were sent.
    pub bytes_out: u64,
    /// The id of its trace, if it was exported.
    pub trace_id: Option<u128>,
    /// Whether its stages were recorded.
    pub is_recorded: bool,
    /// The stages, in the order of a walk through their tree.
    pub stages: Vec<Stage>,
    /// The number of stages that were left out, since there were too many.
    pub left_out: usize,
    /// The start of the request's body, if bodies are kept.
    pub request_body: Option<KeptBody>,
    /// The start of the response's body, if bodies are kept.
    pub response_body: Option<KeptBody>,
}

impl RequestRecord {
    /// Returns whether the request failed, or its client left.
    pub fn is_failed(&self) -> bool {
        !self.is_complete || self.broken.is_some() || self.status.is_none_or(|status| status >= 400)
    }

    /// Returns a request that took this time.
    #[cfg(test)]
    pub(crate) fn sample(number: u64, id: &str, milliseconds: u64) -> Self {
        Self {
            number,
            id: id.into(),
            method: "POST",
            path: "/a".into(),
            status: Some(200),
            broken: None,
            is_complete: true,
            began: Instant::now(),
            duration: Duration::from_millis(milliseconds),
            bytes_in: None,
            bytes_out: 0,
            trace_id: None,
            is_recorded: true,
            stages: Vec::new(),
            left_out: 0,
            request_body: None,
            response_body: None,
        }
    }

    /// Returns approximately the memory of the record in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let stages: usize = self.stages.iter().map(Stage::bytes).sum();
        let bodies = self.request_body.iter().chain(&self.response_body);
        let bodies: usize = bodies.map(KeptBody::bytes).sum();
        size_of::<Self>() + self.id.len() + self.path.len() + stages + bodies
    }
}

/// A stage of a request: a period in which it waited, or was worked on.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The kind.
    pub kind: StageKind,
    /// The endpoint of the job; `None` if the stage is no job's.
    pub endpoint: Option<Arc<Identity>>,
    /// The place, in the list, of the stage around this one.
    pub parent: Option<usize>,
    /// The time from the arrival of the request to the start of the stage.
    pub start: Duration,
    /// The length.
    pub duration: Duration,
}

/// The kind of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum StageKind {
    /// The server read the request, and decided whether to admit it.
    Edge,
    /// A job waited in the queue of its endpoint.
    Queue {
        /// Whether it was there again because its worker was lost.
        is_retry: bool,
    },
    /// The part of the wait in which no worker was ready.
    ColdStart,
    /// A worker held a job.
    Worker {
        /// The slot of the worker.
        slot: usize,
        /// The generation of the worker.
        generation: u64,
        /// The number of jobs in the batch, if the endpoint batches.
        batch_size: Option<usize>,
        /// The numbers of the other recorded requests in the batch.
        mates: Box<[u64]>,
    },
    /// The worker made the model's input.
    Decode,
    /// The model computed.
    Predict,
    /// The worker made the response.
    Encode,
    /// A step of a pipeline ran.
    Step {
        /// The name of the step.
        name: Box<str>,
        /// The status of the error with which it failed.
        failed: Option<u16>,
    },
    /// The response was sent.
    Response,
}

impl Stage {
    fn bytes(&self) -> usize {
        let more = match &self.kind {
            StageKind::Worker { mates, .. } => size_of_val(&**mates),
            StageKind::Step { name, .. } => name.len(),
            _ => 0,
        };
        size_of::<Self>() + more
    }
}
