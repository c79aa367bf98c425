//! The launch of Rust models: a thread for each worker, and the task that answers its jobs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use litplex_core::{
    Attach, BoxFuture, Cause, Device, DialectId, Done, Job, Launch, LaunchError, Launched, LitApi,
    LitStream, Loading, ModelInfo, Outcome, Progress, Reply, Response, Worker, WorkerExit,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::Error;
use crate::span::{worker_name, worker_span};

use super::calls::{Callees, Calling};
use super::model::{Batches, Deliver, Model, Streams};

/// The settings of one Rust endpoint.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The endpoint's path, for names of threads.
    pub endpoint: String,
    /// The devices of the slots, in turn.
    pub devices: Vec<Device>,
    /// The most items in a batch.
    pub max_batch_size: usize,
    /// The time that a batch may wait to fill.
    pub batch_timeout: Duration,
    /// Whether the items of a batch that failed as a whole are computed again one by one.
    pub retry_batch_singly: bool,
    /// The dialect of its clients; `None` if it is plain.
    pub dialect: Option<DialectId>,
    /// The endpoints that the model may call.
    pub callees: Callees,
}

type Load = dyn Fn(Device) -> litplex_core::Result<Box<dyn Model>> + Send + Sync;

/// The launch of one Rust model's workers, each on a thread of its own.
pub struct InprocLaunch {
    settings: Settings,
    stream: bool,
    /// The endpoints that the model declares to call; `None` if it calls none.
    calls: Option<Vec<String>>,
    load: Arc<Load>,
    attach: Arc<dyn Attach>,
}

impl std::fmt::Debug for InprocLaunch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InprocLaunch").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Launches a [`LitApi`]; `load` is called on each thread.
pub fn batches<A: LitApi>(
    settings: Settings,
    load: impl Fn(Device) -> litplex_core::Result<A> + Send + Sync + 'static,
    attach: Arc<dyn Attach>,
) -> InprocLaunch {
    let Settings { max_batch_size, retry_batch_singly, .. } = settings;
    let load: Arc<Load> = Arc::new(move |device| {
        Ok(Box::new(Batches { api: load(device)?, max_batch_size, retry_batch_singly }))
    });
    InprocLaunch { settings, stream: false, calls: None, load, attach }
}

/// Launches a [`LitStream`]; `load` is called on each thread.
pub fn streams<S: LitStream>(
    settings: Settings,
    load: impl Fn(Device) -> litplex_core::Result<S> + Send + Sync + 'static,
    attach: Arc<dyn Attach>,
) -> InprocLaunch {
    let load: Arc<Load> = Arc::new(move |device| Ok(Box::new(Streams(load(device)?))));
    InprocLaunch { settings, stream: true, calls: None, load, attach }
}

impl InprocLaunch {
    /// Notes that the model calls other endpoints, and which of them it declares.
    #[must_use]
    pub fn calling(self, endpoints: Vec<String>) -> Self {
        Self { calls: Some(endpoints), ..self }
    }
}

impl Launch for InprocLaunch {
    fn launch(
        &self,
        slot: usize,
        _: Loading,
    ) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let (ready, loaded) = oneshot::channel();
        // Bounded by the worker's window: the scheduler dispatches no more jobs than it has room for.
        let (jobs, inbox) = std_mpsc::channel();
        let (alive, gone) = watch::channel(());
        let info = ModelInfo {
            max_batch_size: self.settings.max_batch_size,
            batch_timeout: self.settings.batch_timeout,
            concurrency: 1,
            stream: self.stream,
            context: false,
            watches_callers: self.calls.is_some(),
            has_cost: false,
            dialect: self.settings.dialect.clone(),
            schema: Default::default(),
            tool: None,
            base64: Default::default(),
            places: 1,
            calls: self.calls.clone().unwrap_or_default(),
        };
        let callees = self.calls.is_some().then(|| self.settings.callees.clone());
        let endpoint = self.settings.endpoint.clone();
        let thread =
            ModelThread { load: self.load.clone(), callees, endpoint, slot, inbox, _alive: alive };
        let device = self.settings.devices[slot % self.settings.devices.len()].clone();
        let name = worker_name(&self.settings.endpoint, slot);
        let span = worker_span(Some(&self.settings.endpoint), &name);
        // The thread enters the span once, so that requests do not pay for it.
        let worker = name.clone();
        let run = move || span.in_scope(|| thread.run(device, &worker, ready));
        let spawned = thread::Builder::new().name(name).spawn(run);
        let (attach, makes_calls) = (self.attach.clone(), self.calls.is_some());
        Box::pin(async move {
            let lost = |_| Error::Load("the model's thread ended while it loaded".into());
            spawned.map_err(Error::Thread)?;
            let deliverer = loaded.await.map_err(lost)??;
            let attachment = attach.attach(slot, info);
            let progress = attachment.progress();
            if makes_calls {
                progress.calls();
            }
            attachment.complete(Box::new(Inproc(jobs)));
            report_to(deliverer, progress.clone());
            Ok(Box::new(InprocLaunched { progress, gone }) as _)
        })
    }
}

/// The channel on which the thread gets the receiver of its reports, once it has loaded its model.
type Deliverer = oneshot::Sender<ToCallers>;

struct ModelThread {
    load: Arc<Load>,
    /// Present if the model calls other endpoints.
    callees: Option<Callees>,
    endpoint: String,
    slot: usize,
    inbox: std_mpsc::Receiver<Vec<Job>>,
    /// Dropped with the thread: the end of the watch shows that the thread is gone.
    _alive: watch::Sender<()>,
}

impl ModelThread {
    fn run(self, device: Device, name: &str, ready: oneshot::Sender<Result<Deliverer, Error>>) {
        let mut model = match load_guarded(&*self.load, device) {
            Ok(model) => model,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let (deliverer, to_callers) = oneshot::channel();
        if ready.send(Ok(deliverer)).is_err() {
            return;
        }
        let Ok(to_callers) = to_callers.blocking_recv() else { return };
        let calling = |callees| Calling::attach(callees, &self.endpoint, self.slot, name);
        let calling = self.callees.as_ref().map(calling);
        while let Ok(jobs) = self.inbox.recv() {
            model.run(jobs, calling.as_ref(), &to_callers);
        }
    }
}

fn load_guarded(load: &Load, device: Device) -> Result<Box<dyn Model>, Error> {
    match catch_unwind(AssertUnwindSafe(|| load(device))) {
        Ok(Ok(model)) => Ok(model),
        Ok(Err(error)) => Err(Error::Load(format!("load failed: {error}"))),
        Err(_) => Err(Error::Load("load panicked".into())),
    }
}

/// The scheduler's end of a model thread.
struct Inproc(std_mpsc::Sender<Vec<Job>>);

/// Connects a model thread to its callers and to this progress.
fn report_to(deliverer: Deliverer, progress: Arc<dyn Progress>) {
    // Bounded by the worker's window: one entry at most for each job that the thread holds.
    let (answers, outbox) = mpsc::unbounded_channel();
    let _ = deliverer.send(ToCallers { answers, progress: progress.clone() });
    tokio::spawn(deliver(outbox, progress));
}

impl Worker for Inproc {
    fn dispatch(&mut self, jobs: Vec<Job>) {
        // A thread that is gone drops the jobs, which answers them.
        let _ = self.0.send(jobs);
    }
}

type Answered = Vec<(Reply, Outcome<Response>)>;

struct ToCallers {
    answers: mpsc::UnboundedSender<Answered>,
    progress: Arc<dyn Progress>,
}

impl Deliver for ToCallers {
    fn deliver(&self, answers: Answered) {
        let _ = self.answers.send(answers);
    }

    fn finished(&self, done: Done) {
        self.progress.finished(done);
    }
}

async fn deliver(mut outbox: mpsc::UnboundedReceiver<Answered>, progress: Arc<dyn Progress>) {
    let mut answered = Vec::new();
    while outbox.recv_many(&mut answered, usize::MAX).await > 0 {
        let mut done = Done::default();
        for (reply, outcome) in answered.drain(..).flatten() {
            done.jobs += 1;
            done.cut_short += usize::from(reply.is_abandoned());
            reply.send(outcome);
        }
        progress.finished(done);
    }
    // The thread drops jobs only if it panics outside of the model.
    progress.gone(Vec::new());
}

struct InprocLaunched {
    progress: Arc<dyn Progress>,
    gone: watch::Receiver<()>,
}

impl Launched for InprocLaunched {
    fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
        Box::pin(async {
            while self.gone.changed().await.is_ok() {}
            WorkerExit::new(Cause::Exit, "its thread ended")
        })
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.progress.retiring();
            // A thread cannot be killed; the process ends without it.
            let _ = timeout(grace, self.gone()).await;
        })
    }
}
