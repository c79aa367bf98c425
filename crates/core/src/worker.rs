use std::sync::Arc;
use std::time::Duration;

use crate::Job;

/// One running copy of a model, as the scheduler drives it.
///
/// What it has done it reports through the [`Progress`] that it was given when it was made.
/// When it is gone, it drops the jobs that it held, which answers them.
pub trait Worker: Send {
    /// Takes jobs: one batch where the endpoint batches, else that many single jobs. Returns at
    /// once; the scheduler never gives a worker more than its window allows.
    fn dispatch(&mut self, jobs: Vec<Job>);
}

/// What a worker tells the scheduler, from any thread.
pub trait Progress: Send + Sync {
    /// This many jobs are answered (or their callers are gone) and leave the worker's window.
    fn finished(&self, jobs: usize);
    /// The worker is gone and takes no more jobs.
    fn gone(&self);
}

/// Makes a worker that reports to this [`Progress`].
pub type MakeWorker<'a> = Box<dyn FnOnce(Arc<dyn Progress>) -> Box<dyn Worker> + 'a>;

/// Where a launch hands in a worker that became ready: the queue of its endpoint.
pub trait Attach: Send + Sync {
    /// Adds a worker to those that are given jobs.
    fn attach(&self, traits: Traits, make: MakeWorker<'_>);
}

/// What a worker knows of its model once it is ready; the program or the model's author set it.
#[derive(Debug, Clone, PartialEq)]
pub struct Traits {
    /// The most items in a batch; 1 where the endpoint does not batch.
    pub max_batch_size: usize,
    /// How long a batch may wait to fill, from the arrival of its first job.
    pub batch_timeout: Duration,
    /// Whether answers are streams.
    pub stream: bool,
    /// Whether hooks ask for the [`Meta`](crate::Meta) of a request.
    pub context: bool,
}
