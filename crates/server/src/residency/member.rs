//! The handles of the task: the server's, that of a generation, and the claim of a worker that starts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use litplex_admin::{MemoryPlan, MemoryStatus, PlannedMemory, ResidencyStatus};
use litplex_config::Program;
use litplex_core::Monitor;
use litplex_devices::Gpus;
use litplex_residency::{EndpointId, Memory, Refusal, ResidencySettings, Usage, WorkerId};
use litplex_workers::Templates;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::budget;
use super::hibernation::{HibernatedWorkers, OnEnd};
use super::measure::Measured;
use super::report::MemoryReport;
use super::starts::Starts;
use super::task::ResidencyTask;

/// A handle of the task, cheap to clone. The task ends with its last handle.
#[derive(Debug, Clone)]
pub(crate) struct ResidencyHandle {
    /// Unbounded: each worker and each poll of a load causes a bounded number of messages.
    messages: mpsc::UnboundedSender<Message>,
    next: Arc<AtomicUsize>,
    report: watch::Receiver<MemoryReport>,
    /// The reader of the figures of the GPUs; `None` without GPUs.
    driver: Option<Arc<Gpus>>,
    /// One permit, for a worker that moves memory of a GPU to the host.
    leaves_gpu: Arc<Semaphore>,
}

/// A message to the task.
pub(super) enum Message {
    /// A generation of an endpoint begins.
    Join(EndpointId, Membership, ResidencySettings, mpsc::UnboundedSender<usize>),
    /// The settings of a generation have changed.
    Set(EndpointId, ResidencySettings),
    /// The generation ends.
    Leave(EndpointId),
    /// A worker is to start.
    Ask(WorkerId, AskedFor, oneshot::Sender<Result<(), Refusal>>),
    /// A worker that was granted has a process, which can be measured.
    Loading(WorkerId, Measured),
    /// A worker is ready. One that is a part of this process cannot be measured.
    Ready(WorkerId, Option<Measured>),
    /// A worker has no process any more, or its start was given up.
    Ended(WorkerId),
    /// A worker begins to move its memory to swap.
    MovesOut(WorkerId),
    /// A worker hibernates, and has still so much memory.
    Hibernated(WorkerId, Memory),
    /// A worker that was granted is loaded, also if it was to wake.
    Loads(WorkerId),
    /// A worker that hibernated, or was to end, has no process any more.
    HibernationEnded(WorkerId),
    /// The load of an endpoint.
    Load(EndpointId, Load),
    /// An operator asks what a request for each endpoint would lead to.
    Plan(oneshot::Sender<Vec<PlannedMemory>>),
}

/// The demand for which a worker asks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AskedFor {
    /// The requests that wait.
    pub(super) queued: usize,
    /// Whether the worker is wanted without a request.
    pub(super) is_required: bool,
    /// The endpoints that are blocked in calls for it, by label.
    pub(super) chain: Vec<Arc<str>>,
    /// The instant at which the ask is given up.
    pub(super) deadline: Instant,
}

/// The load of an endpoint since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// The requests that have come.
    pub(crate) arrivals: u64,
    /// The requests that wait.
    pub(crate) queued: usize,
    /// Whether workers have jobs.
    pub(crate) usage: Usage,
}

/// A generation, as the task knows it.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// The label of its endpoint.
    pub(crate) label: Arc<str>,
    /// The name under which its starts are remembered.
    pub(crate) memory_of: String,
    /// The GPU of each slot, by the index that the endpoint's devices have; slots repeat them.
    pub(crate) gpus: Vec<Option<usize>>,
    /// Whether its workers are processes, whose memory can be measured.
    pub(crate) is_measured: bool,
    /// The workers of it that hibernate. Its launch owns them.
    pub(crate) hibernated: Weak<HibernatedWorkers>,
}

/// Returns the GPU of a slot, given those of the first slots.
pub(super) fn gpu_of(gpus: &[Option<usize>], slot: usize) -> Option<usize> {
    gpus.get(slot % gpus.len().max(1)).copied().flatten()
}

impl ResidencyHandle {
    /// Starts the task, with the budget that a program asks for, of which the templates take a part. Needs a runtime.
    pub(crate) fn spawn(config: &Program, templates: Templates) -> Self {
        let (messages, inbox) = mpsc::unbounded_channel();
        let (publish, report) = watch::channel(MemoryReport::default());
        let starts = Starts::locate(config);
        let devices = budget::Devices::of(config);
        let budget = budget::on_host(config.memory_budget);
        let is_strict = config.memory_budget.is_some() || config.gpu_memory_budget.is_some();
        let driver = devices.driver();
        let task = ResidencyTask::new(budget, is_strict, devices, (starts, templates), publish);
        tokio::spawn(task.run(inbox));
        let leaves_gpu = Arc::new(Semaphore::new(1));
        Self { messages, next: Arc::default(), report, driver, leaves_gpu }
    }

    /// Adds a generation. Returns it, and the slots from which on its workers must leave.
    pub(crate) fn join(
        &self,
        membership: Membership,
        settings: ResidencySettings,
    ) -> (Arc<Member>, mpsc::UnboundedReceiver<usize>) {
        let id = EndpointId(self.next.fetch_add(1, Ordering::Relaxed));
        // Bounded by the workers: each leaves once.
        let (leave, leaving) = mpsc::unbounded_channel();
        let gpus = membership.gpus.clone();
        self.send(Message::Join(id, membership, settings, leave));
        (Arc::new(Member { id, gpus, handle: self.clone() }), leaving)
    }

    fn send(&self, message: Message) {
        // The task outlives its handles.
        let _ = self.messages.send(message);
    }
}

/// A generation of an endpoint, until it is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    id: EndpointId,
    gpus: Vec<Option<usize>>,
    handle: ResidencyHandle,
}

impl Member {
    /// Returns the GPU of each slot; slots repeat them.
    pub(crate) fn gpus(&self) -> &[Option<usize>] {
        &self.gpus
    }

    /// Changes the settings.
    pub(crate) fn set(&self, settings: ResidencySettings) {
        self.handle.send(Message::Set(self.id, settings));
    }

    /// Reports the load.
    pub(crate) fn load(&self, load: Load) {
        self.handle.send(Message::Load(self.id, load));
    }

    /// Returns the memory of all workers for operators.
    pub(crate) fn memory_status(&self) -> MemoryStatus {
        self.handle.report.borrow().status()
    }

    /// Returns what a request for each endpoint would lead to.
    pub(crate) async fn plan(&self) -> MemoryPlan {
        let (reply, answer) = oneshot::channel();
        self.handle.send(Message::Plan(reply));
        MemoryPlan { memory: self.memory_status(), endpoints: answer.await.unwrap_or_default() }
    }

    /// Resolves once it is known from a worker what one needs.
    pub(crate) async fn measured(&self) {
        let mut report = self.handle.report.clone();
        let is_measured =
            |it: &MemoryReport| it.endpoints.get(&self.id).is_some_and(|it| it.is_measured);
        // The task outlives its handles.
        drop(report.wait_for(is_measured).await);
    }

    /// Returns the memory of its workers for operators, as the task last saw it.
    pub(crate) fn status(&self) -> Option<ResidencyStatus> {
        self.handle.report.borrow().endpoints.get(&self.id).cloned()
    }

    /// Returns the claim of a worker, for which no memory was asked yet.
    pub(super) fn claim(self: &Arc<Self>, slot: usize) -> Claim {
        let worker = WorkerId { endpoint: self.id, slot };
        Claim { worker, member: self.clone(), has_ended: AtomicBool::new(false) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.handle.send(Message::Leave(self.id));
    }
}

/// The claim of a worker on memory, from its ask until its process is gone. The task learns of its drop.
#[derive(Debug)]
pub(crate) struct Claim {
    worker: WorkerId,
    member: Arc<Member>,
    has_ended: AtomicBool,
}

impl Claim {
    /// Asks for memory. The answer comes when there is room, or never will be.
    pub(super) fn ask(&self, demand: AskedFor) -> oneshot::Receiver<Result<(), Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.member.handle.send(Message::Ask(self.worker, demand, reply));
        answer
    }

    /// Returns the parts of the measurement of its worker.
    pub(super) fn measured(&self, monitor: Arc<dyn Monitor>) -> Measured {
        let gpu = gpu_of(&self.member.gpus, self.worker.slot);
        Measured { monitor, gpu, driver: self.member.handle.driver.clone() }
    }

    pub(super) fn loading(&self, monitor: Arc<dyn Monitor>) {
        self.member.handle.send(Message::Loading(self.worker, self.measured(monitor)));
    }

    pub(super) fn ready(&self, monitor: Option<Arc<dyn Monitor>>) {
        let measured = monitor.map(|monitor| self.measured(monitor));
        self.member.handle.send(Message::Ready(self.worker, measured));
    }

    /// Notes that the worker is loaded, and that none is woken.
    pub(super) fn loads(&self) {
        self.member.handle.send(Message::Loads(self.worker));
    }

    /// Notes that the worker begins to move its memory to swap. Until it is there nothing is measured that lasts: what
    /// was on a GPU is on the host for a while.
    pub(super) fn moves_out(&self) {
        self.member.handle.send(Message::MovesOut(self.worker));
    }

    /// Resolves when no other worker moves memory of a GPU to the host. Each needs room there for a while.
    pub(super) async fn turn_to_leave_gpu(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.member.handle.leaves_gpu.clone().acquire_owned().await.ok()
    }

    /// Gives the claim of a worker that hibernates to its keeper, which notes its end.
    pub(super) fn hand_over(&self) -> OnEnd {
        self.has_ended.store(true, Ordering::Relaxed);
        let (worker, member) = (self.worker, self.member.clone());
        OnEnd::new(move || member.handle.send(Message::HibernationEnded(worker)))
    }

    /// Notes that the worker hibernates and has still so much memory, once its keeper can be told to end it.
    pub(super) fn hibernates(&self, memory: Memory) {
        self.member.handle.send(Message::Hibernated(self.worker, memory));
    }

    /// Notes that the process is gone. Once: the next worker of the slot has the same id.
    pub(super) fn ended(&self) {
        if !self.has_ended.swap(true, Ordering::Relaxed) {
            self.member.handle.send(Message::Ended(self.worker));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.ended();
    }
}
