use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{
    Attach, Done, Job, MakeWorker, Outcome, Progress, Request, ServeError, Traits, Unanswered,
    Worker,
};
use litplex_metrics::Queue;
use tokio::sync::{SetOnce, mpsc, oneshot};
use tokio::time::Instant;

use crate::task::EndpointTask;

/// What an endpoint's queue is set to.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How many jobs may wait. Where it is not set: as many as can be answered in their time.
    pub max_queue: Option<usize>,
    /// How long a job may wait for a worker. Where it is not set: until its deadline.
    pub queue_timeout: Option<Duration>,
    /// Whether a job whose worker died while it may have been computing it is given to another.
    /// Where it is not set: if its answer is no stream.
    pub idempotent: Option<bool>,
    /// Whether jobs that cost about the same go together ([`fill`](crate::fill)).
    pub by_cost: bool,
    /// The most that a batch may cost, padded.
    pub max_batch_cost: Option<f64>,
}

/// What an endpoint that has no worker may hope for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// A worker will be ready, after about this time where that is known: jobs wait for it.
    Coming {
        /// From when the queue is told.
        within: Option<Duration>,
        /// Whether the endpoint sleeps: a request has a worker started.
        is_asleep: bool,
    },
    /// None will be ready soon: jobs are refused.
    Down {
        /// Why, in words.
        reason: String,
        /// After which time it makes sense to try again.
        retry_after: Duration,
    },
}

impl Default for Outlook {
    fn default() -> Self {
        Self::Coming { within: None, is_asleep: false }
    }
}

/// How busy an endpoint is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EndpointLoad {
    /// Jobs that have come so far, those that were refused among them.
    pub arrived: u64,
    /// Jobs that were refused so far.
    pub refused: u64,
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that may wait at most.
    pub queue_limit: usize,
    /// Jobs that workers hold.
    pub in_flight: usize,
    /// Jobs that one busy worker answers in a second, once that is known.
    pub worker_rate: Option<f64>,
    /// The workers that take jobs.
    pub workers: Vec<WorkerLoad>,
    /// For how long the workers of each slot have had something to compute.
    pub busy: Vec<Duration>,
}

/// How busy a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLoad {
    /// The place that it fills.
    pub slot: usize,
    /// Its process id, where it is a process.
    pub pid: Option<u32>,
    /// Since when it has taken jobs.
    pub since: Instant,
    /// Jobs that it holds.
    pub in_flight: usize,
}

/// A handle of an endpoint's queue, cheap to clone. The task behind it ends with the last one.
#[derive(Debug, Clone)]
pub struct Endpoint {
    events: mpsc::UnboundedSender<Event>,
    traits: Arc<SetOnce<Traits>>,
    max_queue: Option<usize>,
}

/// Starts the task of an endpoint, which is measured by `metrics`.
pub fn spawn_endpoint(settings: Settings, metrics: Queue) -> Endpoint {
    let (events, inbox) = mpsc::unbounded_channel();
    let max_queue = settings.max_queue;
    tokio::spawn(EndpointTask::new(inbox, settings, metrics).run());
    Endpoint { events, traits: Arc::default(), max_queue }
}

impl Endpoint {
    /// Returns how many jobs may wait, where that is set.
    pub fn max_queue(&self) -> Option<usize> {
        self.max_queue
    }

    /// Queues a job, or answers it at once when it would wait in vain.
    pub fn submit(&self, job: Job) {
        // The task outlives its handles; a job that it cannot take any more answers itself.
        let _ = self.events.send(Event::Job(job));
    }

    /// Says that somebody who waited for an answer has left: jobs that nobody waits for are
    /// dropped, or cancelled where they run.
    pub fn caller_left(&self) {
        let _ = self.events.send(Event::CallersLeft);
    }

    /// Asks the model what a request costs.
    ///
    /// # Errors
    /// What the model's hook raised, or a 503 where there is no worker to ask.
    pub async fn measure(&self, request: Request) -> Outcome<f64> {
        let (answer, answered) = oneshot::channel();
        let _ = self.events.send(Event::Measure { request, answer });
        answered.await.unwrap_or_else(|_| Err(ServeError::worker_lost()))
    }

    /// Says what may be hoped for while no worker is there.
    pub fn expect(&self, outlook: Outlook) {
        let _ = self.events.send(Event::Outlook(outlook));
    }

    /// Returns how busy the endpoint is. What was measured up to now can then be seen.
    pub async fn load(&self) -> EndpointLoad {
        let (answer, answered) = oneshot::channel();
        let _ = self.events.send(Event::Inspect(answer));
        answered.await.unwrap_or_default()
    }

    /// Returns what the model's author chose, once a worker was ready.
    pub fn traits(&self) -> Option<&Traits> {
        self.traits.get()
    }

    /// Resolves once a worker was ready.
    pub async fn ready(&self) {
        self.traits.wait().await;
    }
}

impl Attach for Endpoint {
    fn attach(&self, slot: usize, traits: Traits, make: MakeWorker<'_>) {
        let id = WorkerId::next();
        let progress = Arc::new(ProgressEvents { id, events: self.events.clone() });
        let worker = make(progress);
        let known = traits.clone();
        let _ = self.events.send(Event::Attached { id, slot, traits, worker });
        // Requests are let in from here on; the task learns of the worker before any of them.
        let _ = self.traits.set(known);
    }
}

/// All that can happen to an endpoint.
pub(crate) enum Event {
    Job(Job),
    CallersLeft,
    Attached { id: WorkerId, slot: usize, traits: Traits, worker: Box<dyn Worker> },
    Finished { id: WorkerId, done: Done },
    Abandoned { id: WorkerId, jobs: usize },
    Retiring { id: WorkerId },
    Gone { id: WorkerId, unanswered: Vec<Unanswered> },
    Outlook(Outlook),
    Measure { request: Request, answer: oneshot::Sender<Outcome<f64>> },
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
            Self::Retiring { .. } => "Retiring",
            Self::Gone { .. } => "Gone",
            Self::Outlook(_) => "Outlook",
            Self::Measure { .. } => "Measure",
            Self::Inspect(_) => "Inspect",
        })
    }
}

/// Names one attached worker for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerId(u64);

impl WorkerId {
    pub(crate) fn next() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

struct ProgressEvents {
    id: WorkerId,
    events: mpsc::UnboundedSender<Event>,
}

impl Progress for ProgressEvents {
    fn finished(&self, done: Done) {
        let _ = self.events.send(Event::Finished { id: self.id, done });
    }

    fn abandoned(&self, jobs: usize) {
        let _ = self.events.send(Event::Abandoned { id: self.id, jobs });
    }

    fn retiring(&self) {
        let _ = self.events.send(Event::Retiring { id: self.id });
    }

    fn gone(&self, unanswered: Vec<Unanswered>) {
        let _ = self.events.send(Event::Gone { id: self.id, unanswered });
    }
}
