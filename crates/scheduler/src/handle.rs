use std::sync::{Arc, OnceLock};

use litmux_core::{Attach, Job, MakeWorker, Progress, Traits};
use tokio::sync::mpsc;

use crate::task::{EndpointTask, Event};

/// A handle of an endpoint's queue, cheap to clone. The task behind it ends with the last one.
#[derive(Debug, Clone)]
pub struct Endpoint {
    events: mpsc::UnboundedSender<Event>,
    traits: Arc<OnceLock<Traits>>,
}

/// Starts the task of an endpoint that queues at most `max_queue` jobs.
pub fn spawn_endpoint(max_queue: usize) -> Endpoint {
    let (events, inbox) = mpsc::unbounded_channel();
    tokio::spawn(EndpointTask::new(inbox, max_queue).run());
    Endpoint { events, traits: Arc::default() }
}

impl Endpoint {
    /// Queues a job, or answers it at once when the queue is full or there is no worker.
    pub fn submit(&self, job: Job) {
        // The task outlives its handles; a job that it cannot take any more answers itself.
        let _ = self.events.send(Event::Job(job));
    }

    /// Returns what the model's author chose, once a worker was ready.
    pub fn traits(&self) -> Option<&Traits> {
        self.traits.get()
    }
}

impl Attach for Endpoint {
    fn attach(&self, traits: Traits, make: MakeWorker<'_>) {
        let id = WorkerId::next();
        let progress = Arc::new(ProgressEvents { id, events: self.events.clone() });
        let worker = make(progress);
        let known = traits.clone();
        let _ = self.events.send(Event::Attached { id, traits, worker });
        // Requests are let in from here on; the task learns of the worker before any of them.
        let _ = self.traits.set(known);
    }
}

/// Names one attached worker for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerId(u64);

impl WorkerId {
    fn next() -> Self {
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
    fn finished(&self, jobs: usize) {
        let _ = self.events.send(Event::Finished { id: self.id, jobs });
    }

    fn gone(&self) {
        let _ = self.events.send(Event::Gone { id: self.id });
    }
}
