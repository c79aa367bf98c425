//! Workers as the scheduler sees them: the traits to drive one, and its reports.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::{Base64Fields, Job, Outcome, Request};

/// A running instance of a model, as the scheduler drives it. A dropped worker gets no more jobs and
/// answers those that it has.
///
/// It reports through the [`Progress`] that it was given at its creation.
pub trait Worker: Send {
    /// Takes jobs: one batch if the endpoint batches, otherwise single jobs. Returns at once; the
    /// scheduler does not exceed the worker's window.
    fn dispatch(&mut self, jobs: Vec<Job>);

    /// Cancels jobs whose callers have left, as far as the model can stop them.
    fn cancel_abandoned(&mut self) {}

    /// Asks the model for the cost of a request ([`ModelInfo::has_cost`](ModelInfo)). Returns at
    /// once.
    fn cost(&mut self, request: Request, answer: oneshot::Sender<Outcome<f64>>) {
        drop(request);
        // The caller may have left, which is no error.
        let _ = answer.send(Ok(1.0));
    }

    /// Returns the means to interrupt the worker while it computes; `None` if that is not possible.
    fn pausing(&self) -> Option<Arc<dyn Pausing>> {
        None
    }
}

/// The means to interrupt a worker while it computes, so that others can use its device. All of it
/// returns at once, and does nothing for a worker that is gone.
pub trait Pausing: fmt::Debug + Send + Sync {
    /// Stops the worker where it is, with all that it started.
    fn pause(&self);
    /// Lets the worker continue.
    fn resume(&self);
    /// Returns the CPU time that the worker has used so far; `None` if it cannot be measured.
    fn cpu_time(&self) -> Option<Duration>;
}

/// The reports of a worker to the scheduler, from any thread.
pub trait Progress: Send + Sync {
    /// Reports jobs that were answered, or ended without an answer: they leave the window.
    fn finished(&self, done: Done);
    /// Reports that the callers of this many more jobs of the worker have left.
    fn abandoned(&self, jobs: usize) {
        let _ = jobs;
    }
    /// Reports that the worker calls other endpoints: a job that it is given and has not begun may wait
    /// for those calls, although another worker is free.
    fn calls(&self) {}
    /// Reports that the worker takes no more jobs and finishes those that it has.
    fn retiring(&self);
    /// Reports that the worker is gone, with its unanswered jobs in the order of their dispatch.
    fn gone(&self, unanswered: Vec<Unanswered>);
}

/// Jobs that a worker is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// The number of jobs.
    pub jobs: usize,
    /// The number of these jobs whose callers had left. They may have ended early: their duration
    /// is only a lower bound of the model's.
    pub cut_short: usize,
}

/// A job that its worker did not answer.
#[derive(Debug)]
pub struct Unanswered {
    /// The job; its caller has received no part of a response.
    pub job: Job,
    /// Whether the worker may have begun to compute it.
    pub started: bool,
}

impl Unanswered {
    /// Returns an unanswered job that did not reach its worker.
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

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}

/// The description of a model that a ready worker gives; set by the program or the model author.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The maximum number of items in a batch; 1 without batching.
    pub max_batch_size: usize,
    /// The time that a batch may wait to fill, from the arrival of its first job.
    pub batch_timeout: Duration,
    /// The number of batches (without batching: jobs) that the worker computes at the same time;
    /// 1 for one after the other, in the order of their dispatch.
    pub concurrency: usize,
    /// The number of hooks that run at the same time: 1 where the hooks of several jobs share a thread,
    /// so that one that waits blocks all.
    pub places: usize,
    /// Whether responses are streams.
    pub stream: bool,
    /// Whether each job tells its worker when its caller leaves ([`Job::live`]): where the model runs in
    /// this process and calls other endpoints.
    pub watches_callers: bool,
    /// Whether hooks ask for the [`Meta`](crate::Meta) of a request.
    pub context: bool,
    /// Whether the model has a `cost` hook ([`Worker::cost`]).
    pub has_cost: bool,
    /// The dialect of its clients; `None` if they send any body that the model takes.
    pub dialect: Option<DialectId>,
    /// The schemas of its requests and responses; null if they are not known.
    pub schema: Arc<Value>,
    /// The description of it as a tool, if it is one.
    pub tool: Option<Arc<Value>>,
    /// The endpoints that it declares to call, by path or name.
    pub calls: Vec<String>,
    /// The fields of its requests that its hooks take as bytes, and clients send as base64.
    pub base64: Arc<Base64Fields>,
}

/// The id of a dialect, as a ready worker names it. It is opaque here: the HTTP edge has
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
