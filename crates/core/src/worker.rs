use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::{Job, Outcome, Request};

/// One running copy of a model, as the scheduler drives it. Dropped, it is given no more jobs and
/// answers those that it has.
///
/// What it has done it reports through the [`Progress`] that it was given when it was made.
pub trait Worker: Send {
    /// Takes jobs: one batch where the endpoint batches, else that many single jobs. Returns at
    /// once; the scheduler never gives a worker more than its window allows.
    fn dispatch(&mut self, jobs: Vec<Job>);

    /// Callers of jobs that the worker may hold have left: what can be stopped should stop.
    fn cancel_abandoned(&mut self) {}

    /// Asks the model what a request costs, as its author counts it
    /// ([`ModelInfo::has_cost`](ModelInfo)). Returns at once.
    fn cost(&mut self, request: Request, answer: oneshot::Sender<Outcome<f64>>) {
        drop(request);
        // Nobody who waits is an error: the caller may have left.
        let _ = answer.send(Ok(1.0));
    }
}

/// What a worker tells the scheduler, from any thread.
pub trait Progress: Send + Sync {
    /// Jobs are answered, or ended without an answer, and leave the worker's window.
    fn finished(&self, done: Done);
    /// The callers of this many more of the jobs that the worker holds have left.
    fn abandoned(&self, jobs: usize) {
        let _ = jobs;
    }
    /// The worker wants no more jobs; it goes on with those that it has.
    fn retiring(&self);
    /// The worker is gone, and these are the jobs that it held, in the order in which they came.
    fn gone(&self, unanswered: Vec<Unanswered>);
}

/// Jobs that a worker is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// How many.
    pub jobs: usize,
    /// Those among them whose callers had left. They may have ended early: how long they took says
    /// only that the model takes no less.
    pub cut_short: usize,
}

/// A job that its worker did not answer.
#[derive(Debug)]
pub struct Unanswered {
    /// The job; nothing of its answer has reached its caller.
    pub job: Job,
    /// Whether the worker may have begun to compute it.
    pub started: bool,
}

impl Unanswered {
    /// Gives back a job that never reached its worker.
    pub fn unstarted(job: Job) -> Self {
        Self { job, started: false }
    }
}

/// The queue of an endpoint, as the launch of a worker sees it.
pub trait Attach: Send + Sync {
    /// Begins to attach the worker of this slot, which has become ready. The returned attachment has
    /// the progress that the worker reports to; the worker is given jobs once it is complete.
    fn attach(&self, slot: usize, info: ModelInfo) -> Attachment;
}

/// A worker's place in the queue of its endpoint, before the worker is there.
///
/// The progress comes first and the worker second, because a worker needs its progress to be made.
#[must_use = "the worker is given jobs once the attachment is complete"]
pub struct Attachment {
    progress: Arc<dyn Progress>,
    complete: Box<dyn FnOnce(Box<dyn Worker>) + Send>,
}

impl Attachment {
    /// Creates an attachment; `complete` adds the worker to those that are given jobs.
    pub fn new(
        progress: Arc<dyn Progress>,
        complete: impl FnOnce(Box<dyn Worker>) + Send + 'static,
    ) -> Self {
        Self { progress, complete: Box::new(complete) }
    }

    /// Returns the progress that the worker reports to. It must report nothing before the
    /// attachment is complete.
    pub fn progress(&self) -> Arc<dyn Progress> {
        self.progress.clone()
    }

    /// Adds the worker to those that are given jobs.
    pub fn complete(self, worker: Box<dyn Worker>) {
        (self.complete)(worker);
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}

/// What a worker knows of its model once it is ready; the program or the model's author set it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The most items in a batch; 1 where the endpoint does not batch.
    pub max_batch_size: usize,
    /// How long a batch may wait to fill, from the arrival of its first job.
    pub batch_timeout: Duration,
    /// Batches that the worker computes at the same time (single jobs where it does not batch);
    /// 1 where it takes one after the other, in the order in which they came.
    pub concurrency: usize,
    /// Whether answers are streams.
    pub stream: bool,
    /// Whether hooks ask for the [`Meta`](crate::Meta) of a request.
    pub context: bool,
    /// Whether the model says itself what a request costs ([`Worker::cost`]).
    pub has_cost: bool,
    /// The dialect that its clients speak; `None` where they send any body, as the model takes it.
    pub dialect: Option<DialectId>,
    /// What clients call the model, where they name one.
    pub model: String,
    /// The schemas of its requests and responses; null where they are not known.
    pub schema: Arc<Value>,
    /// The description of it as a tool, if it is one.
    pub tool: Option<Arc<Value>>,
}

/// The id of a dialect, as a worker names it when it is ready. It is opaque here: the HTTP edge has
/// the dialects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialectId(String);

impl DialectId {
    /// Returns the id of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
