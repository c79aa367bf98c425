//! The handle of an endpoint's queue, through which requests and workers reach its task.

use std::sync::Arc;

use litplex_core::{
    Attach, Attachment, Done, Job, Mode, ModelInfo, Outcome, Progress, Request, ServeError,
    Unanswered,
};
use litplex_metrics::Queue;
use tokio::sync::{SetOnce, mpsc, oneshot};

use crate::event::{Event, WorkerId};
use crate::pace::PublishedPace;
use crate::task::EndpointTask;
use crate::turn::Seats;
use crate::{EndpointLoad, Learned, Outlook, Pace, QueueSettings, Seat};

/// A handle of an endpoint's queue, cheap to clone. The task ends with its last handle.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Unbounded: admission bounds the jobs, and each job causes a bounded number of other events.
    events: mpsc::UnboundedSender<Event>,
    info: Arc<SetOnce<ModelInfo>>,
    pace: Arc<PublishedPace>,
    max_queue: Option<usize>,
}

/// Starts the task of an endpoint, which records into `metrics`. Must be called within a runtime.
pub fn spawn_endpoint(settings: QueueSettings, metrics: Queue) -> Endpoint {
    spawn_seated_endpoint(settings, metrics, Vec::new(), 1)
}

/// Starts the task of an endpoint whose workers compute on devices that it may share: with a seat for the
/// device of each slot. Each worker is meant to use so many CPU `threads`. Must be called within a runtime.
pub fn spawn_seated_endpoint(
    settings: QueueSettings,
    metrics: Queue,
    seats: Vec<Option<Seat>>,
    threads: usize,
) -> Endpoint {
    // Bounded by admission; see `Endpoint::events`.
    let (events, inbox) = mpsc::unbounded_channel();
    let max_queue = settings.max_queue;
    let pace = Arc::<PublishedPace>::default();
    // Weak: the task ends with its last handle.
    let seats = Seats { seats, threads, events: events.downgrade() };
    tokio::spawn(EndpointTask::new(inbox, settings, metrics, pace.clone(), seats).run());
    Endpoint { events, info: Arc::default(), pace, max_queue }
}

impl Endpoint {
    /// Returns the configured limit of waiting jobs.
    pub fn max_queue(&self) -> Option<usize> {
        self.max_queue
    }

    /// Queues a job. A job that would wait in vain is refused at once through its reply.
    pub fn submit(&self, job: Job) {
        // The task outlives its handles. A job that cannot be sent answers itself when dropped.
        let _ = self.events.send(Event::Job(job));
    }

    /// Reports that a caller has left: jobs without a caller are dropped from the queue, and
    /// cancelled in workers.
    pub fn caller_left(&self) {
        let _ = self.events.send(Event::CallersLeft);
    }

    /// Returns the cost of a request, which the model's `cost` hook computes.
    ///
    /// # Errors
    /// The error that the hook raised, or a 503 when no worker is running.
    pub async fn cost(&self, request: Request) -> Outcome<f64> {
        let (answer, answered) = oneshot::channel();
        let _ = self.events.send(Event::CostQuery { request, answer });
        answered.await.unwrap_or_else(|_| Err(ServeError::worker_lost()))
    }

    /// Sets the outlook that holds while no worker is ready.
    pub fn set_outlook(&self, outlook: Outlook) {
        let _ = self.events.send(Event::Outlook(outlook));
    }

    /// Sets what the endpoint does with requests.
    pub fn set_mode(&self, mode: Mode) {
        let _ = self.events.send(Event::Mode(mode));
    }

    /// Changes the settings of the queue, and returns a handle that knows them. Whether jobs are batched by
    /// their costs changes with the next worker.
    #[must_use]
    pub fn with_settings(&self, settings: QueueSettings) -> Self {
        let max_queue = settings.max_queue;
        let _ = self.events.send(Event::Settings(settings));
        Self { max_queue, ..self.clone() }
    }

    /// Returns the load of the endpoint, and makes its metrics up to now visible.
    pub async fn load(&self) -> EndpointLoad {
        let (answer, answered) = oneshot::channel();
        let _ = self.events.send(Event::Inspect(answer));
        answered.await.unwrap_or_default()
    }

    /// Returns the properties of the model; `None` until a worker was ready.
    pub fn model_info(&self) -> Option<&ModelInfo> {
        self.info.get()
    }

    /// Returns what it has learned of its batches; `None` while that is unknown, or if it does not batch.
    pub fn learned(&self) -> Option<Learned> {
        self.pace.learned()
    }

    /// Returns the pace of its workers; `None` while it is unknown.
    pub fn pace(&self) -> Option<Pace> {
        self.pace.pace()
    }

    /// Returns whether its model calls other endpoints, as far as that is known.
    pub fn makes_calls(&self) -> bool {
        self.pace.makes_calls()
    }

    /// Waits until a worker was ready, as a job waits in the queue: it wakes an endpoint that is asleep.
    ///
    /// # Errors
    /// A counted 503, if none is expected, or too many wait.
    pub async fn first_worker(&self) -> Outcome<&ModelInfo> {
        if let Some(info) = self.info.get() {
            return Ok(info);
        }
        let (request, answered) = oneshot::channel();
        let _ = self.events.send(Event::FirstWorker(request));
        answered.await.unwrap_or_else(|_| Err(ServeError::worker_lost()))?;
        // The task learns of the worker before the properties of its model are set.
        Ok(self.info.wait().await)
    }
}

impl Attach for Endpoint {
    fn attach(&self, slot: usize, info: ModelInfo) -> Attachment {
        let id = WorkerId::next();
        let progress = Arc::new(ProgressEvents { id, events: self.events.clone() });
        let (events, known) = (self.events.clone(), self.info.clone());
        Attachment::new(progress, move |worker| {
            let attached = Event::Attached { id, slot, info: info.clone(), worker };
            let _ = events.send(attached);
            // Requests are accepted once this is set; the task has the worker before any of them.
            let _ = known.set(info);
        })
    }
}

/// Forwards the progress of one worker to the endpoint's task.
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

    fn calls(&self) {
        let _ = self.events.send(Event::Calls);
    }

    fn retiring(&self) {
        let _ = self.events.send(Event::Retiring { id: self.id });
    }

    fn gone(&self, unanswered: Vec<Unanswered>) {
        let _ = self.events.send(Event::Gone { id: self.id, unanswered });
    }
}
