//! The state of an endpoint: its queue and its view of the workers, changed by events alone.

use std::collections::VecDeque;
use std::time::Duration;

use litplex_core::{
    Dispatch, Done, Job, Mode, ModelInfo, Outcome, Request, ServeError, Unanswered, trace_dispatch,
};
use litplex_metrics::{BatchLimit, Queue, Shed};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::admission::{Backlog, Refusal, admit, largest_queue};
use crate::attached::{AttachedWorker, work};
use crate::busy::BusyTimes;
use crate::event::{Event, WorkerId};
use crate::fill::CANDIDATE_BATCHES;
use crate::pace::PublishedPace;
use crate::queue::JobQueue;
use crate::share::Change;
use crate::size::size;
use crate::standing::StandingQueue;
use crate::turn::{Seats, WorkerTurn};
use crate::{
    Basis, BatchModel, BatchWork, Decision, EndpointLoad, Load, Outlook, QueueSettings, Rules,
    Waiting, decide,
};

/// A job is not retried after this many workers were lost while they may have computed it.
const MAX_LOSSES: u32 = 2;

/// The size in bytes from which a body is sent to the worker while the job before it is computed.
const LARGE_BODY: usize = 64 * 1024;

/// The default `Retry-After` of a refusal, in seconds.
const RETRY_AFTER: u64 = 1;

/// The number of jobs over which the mean cost is, roughly.
const MEAN_OF: u32 = 20;

/// The multiple of the mean that a single job counts as at most.
const FAR_ABOVE: f64 = 10.0;

/// An endpoint's queue and its view of the workers. It changes by events alone and takes the time
/// as an argument: `EndpointTask` is its clock and its inbox.
pub(crate) struct EndpointState {
    settings: QueueSettings,
    metrics: Queue,
    rules: Rules,
    /// Whether jobs of similar cost are batched together.
    by_cost: bool,
    stream: bool,
    /// Whether the model calls other endpoints.
    makes_calls: bool,
    queue: JobQueue,
    /// The jobs that a lost worker may have been computing.
    suspects: VecDeque<Job>,
    workers: Vec<AttachedWorker>,
    /// The seats on devices that it may share.
    seats: Option<Seats>,
    busy: BusyTimes,
    /// The time in which workers with jobs were paused.
    paused: BusyTimes,
    mode: Mode,
    outlook: Outlook,
    /// The time at which the outlook was set.
    outlook_since: Instant,
    /// The model of the time of batches.
    model: BatchModel,
    /// The mean of the costs of jobs, or of their sizes where they have no cost.
    mean_cost: f64,
    /// The number of jobs in the mean, up to those that weigh in it.
    mean_of: u32,
    standing: StandingQueue,
    /// The requests that wait for the first worker, before their bodies are read.
    for_first: Vec<oneshot::Sender<Outcome<()>>>,
    arrived: u64,
    refused: u64,
    callers_left: bool,
}

impl EndpointState {
    pub(crate) fn new(settings: QueueSettings, metrics: Queue, now: Instant) -> Self {
        metrics.set_muted(settings.is_shadow);
        Self {
            settings,
            metrics,
            rules: Rules { max_batch_size: 1, batch_timeout: Duration::ZERO },
            by_cost: false,
            stream: false,
            makes_calls: false,
            queue: JobQueue::default(),
            suspects: VecDeque::new(),
            workers: Vec::new(),
            seats: None,
            busy: BusyTimes::default(),
            paused: BusyTimes::default(),
            mode: Mode::default(),
            outlook: Outlook::default(),
            outlook_since: now,
            model: BatchModel::default(),
            mean_cost: 1.0,
            mean_of: 0,
            standing: StandingQueue::default(),
            for_first: Vec::new(),
            arrived: 0,
            refused: 0,
            callers_left: false,
        }
    }

    /// Returns the state with seats on devices that it may share.
    pub(crate) fn seated(self, seats: Seats) -> Self {
        Self { seats: Some(seats), ..self }
    }

    /// Applies an event; [`act`](Self::act) must follow at the same time.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Job(job) => self.admit(job, now),
            Event::CallersLeft => self.callers_left = true,
            Event::Attached { id, slot, info, worker } => {
                self.apply_model_info(&info);
                let turn = match &self.seats {
                    Some(seats) => seats.turn(slot, id, worker.pausing()),
                    None => WorkerTurn::unshared(id),
                };
                self.workers.push(AttachedWorker::new(id, slot, &info, worker, turn, now));
                self.busy.set(slot, false, now);
                self.for_first.drain(..).for_each(|request| _ = request.send(Ok(())));
            }
            Event::Finished { id, done } => self.on_finished(id, done, now),
            Event::Abandoned { id, jobs } => self.count_abandoned(id, jobs),
            Event::Calls => self.makes_calls = true,
            Event::Retiring { id } => self.remove(id, now),
            Event::Gone { id, unanswered } => {
                self.remove(id, now);
                self.take_back(unanswered, now);
            }
            Event::Turn(id, change) => self.on_turn(id, change, now),
            Event::Outlook(outlook) => self.set_outlook(outlook, now),
            Event::Mode(mode) => self.mode = mode,
            Event::Settings(settings) => {
                self.metrics.set_muted(settings.is_shadow);
                if let (Some(seats), Some(weight)) = (&self.seats, settings.device_weight) {
                    seats.weigh(weight);
                }
                self.settings = settings;
            }
            Event::CostQuery { request, answer } => self.cost(request, answer),
            Event::FirstWorker(request) => self.await_first(request),
            // The receiver may have left, which is no error.
            Event::Inspect(answer) => drop(answer.send(self.inspect(now))),
        }
    }

    /// Dispatches and refuses jobs as far as possible now. Returns the time of the next action,
    /// unless an event comes before it.
    pub(crate) fn act(&mut self, now: Instant) -> Option<Instant> {
        if std::mem::take(&mut self.callers_left) {
            self.drop_abandoned_jobs(now);
        }
        self.end_turns(true);
        self.queue.promote(now);
        let due = loop {
            self.drop_void_jobs(now);
            match self.decide(now) {
                Decision::Dispatch { worker, .. } if self.needs_turn(worker) => self.ask(worker),
                Decision::DispatchSuspect { worker } if self.workers[worker].turn.is_closed() => {
                    break None;
                }
                Decision::DispatchSuspect { worker } if self.needs_turn(worker) => self.ask(worker),
                Decision::Dispatch { worker, jobs } => self.dispatch(worker, jobs, now),
                Decision::DispatchSuspect { worker } => self.dispatch_suspect(worker, now),
                Decision::WaitUntil(due) => break Some(due),
                Decision::Wait => break None,
            }
        };
        if self.queue.is_empty() {
            self.standing.drained();
        }
        self.workers.iter_mut().for_each(AttachedWorker::flush);
        self.end_turns(false);
        [due, self.first_expiry()].into_iter().flatten().min()
    }

    fn needs_turn(&self, worker: usize) -> bool {
        let worker = &self.workers[worker];
        worker.in_flight() == 0 && worker.turn.is_needed(self.makes_calls)
    }

    /// Asks for a turn of a worker, for the first job.
    fn ask(&mut self, worker: usize) {
        let first = self.suspects.front().or(self.queue.front());
        let class = first.map(|job| job.priority).unwrap_or_default();
        self.workers[worker].turn.ask(class);
    }

    /// Ends the turns of workers without jobs; `yields`: only of those that must yield.
    fn end_turns(&mut self, yields: bool) {
        let idle = self.workers.iter_mut().filter(|worker| worker.in_flight() == 0);
        idle.for_each(|worker| worker.turn.end(yields));
    }

    fn on_turn(&mut self, id: WorkerId, change: Change, now: Instant) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        worker.turn.change(change);
        match change {
            Change::Paused => self.paused.set(worker.slot, worker.in_flight() > 0, now),
            Change::Granted | Change::Resumed => self.paused.set(worker.slot, false, now),
            Change::Yield => {}
        }
    }

    fn decide(&self, now: Instant) -> Decision {
        match self.mode {
            Mode::Paused => Decision::Wait,
            Mode::Serving | Mode::Draining => {
                decide(&self.rules_now(), self.waiting(), &self.loads(), now)
            }
        }
    }

    /// Returns the time at which the first job will have waited for `queue_timeout`. Deadlines need
    /// no timer here: the caller reports them.
    fn first_expiry(&self) -> Option<Instant> {
        Some(self.queue.oldest()? + self.settings.queue_timeout?)
    }

    fn admit(&mut self, mut job: Job, now: Instant) {
        self.arrived += 1;
        if !job.is_part {
            self.standing.arrived();
        }
        self.metrics.arrived(job.request.body_len());
        job.queued = now;
        job.cost = if self.by_cost || self.settings.by_cost {
            self.bounded(job.cost)
        } else if self.rules.max_batch_size > 1 {
            size(&job.request)
        } else {
            1.0
        };
        self.mean_of = (self.mean_of + 1).min(MEAN_OF);
        self.mean_cost = mean_with(self.mean_cost, self.mean_of, job.cost);
        let deadline = self.effective_deadline(&job);
        let admitted = self
            .check_mode(&job)
            .and_then(|()| self.check_outlook())
            .and_then(|()| admit(&self.backlog(&job, now), self.max_queue(&job), now, deadline));
        match admitted {
            Ok(()) => self.queue.insert(job),
            Err(refusal) if self.makes_room(&job, &refusal) => {
                if let Some(oldest) = self.queue.take_least_request(job.priority) {
                    self.refuse(oldest, refusal);
                }
                self.queue.insert(job);
            }
            Err(refusal) => {
                if refusal.reason == Shed::Deadline && !job.is_part {
                    self.standing.refused();
                }
                self.refuse(job, refusal);
            }
        }
    }

    fn refuse(&mut self, job: Job, Refusal { reason, error }: Refusal) {
        self.refused += 1;
        self.metrics.shed(reason);
        job.reply.send(Err(error));
    }

    /// Returns whether the oldest request is refused in place of this job: while newer ones go first, it
    /// has the least hope.
    fn makes_room(&self, job: &Job, refusal: &Refusal) -> bool {
        self.newest_first()
            && job.depth() == 0
            && matches!(refusal.reason, Shed::QueueFull)
            && self.queue.has_request(job.priority)
    }

    /// Returns whether requests of clients are computed in the reverse order of their arrival. One of several jobs
    /// waits for the others of its request: it is not passed over.
    fn newest_first(&self) -> bool {
        self.settings.adaptive_order
            && self.is_idempotent()
            && !self.stream
            && !self.queue.has_parts()
            && self.standing.newest_first()
    }

    /// Notes whether the queue stands, and refuses the requests of which most callers have given up.
    fn observe_queue(&mut self, now: Instant) {
        let Some(oldest) = self.queue.oldest_request() else {
            self.standing.drained();
            return;
        };
        let Some(batch_time) = self.batch_time() else { return };
        self.standing.observe(now - oldest.queued, batch_time, now);
        let Some(patience) = self.standing.patience().filter(|_| self.newest_first()) else {
            return;
        };
        let is_over = |job: &Job| now - job.queued > patience;
        while self.queue.oldest_request().is_some_and(is_over)
            && let Some(job) = self.queue.take_oldest_request()
        {
            let refusal = Refusal::given_up(now - job.queued);
            self.refuse(job, refusal);
        }
    }

    /// Returns the limit of waiting jobs. A call is not refused for it: the work of its caller would be
    /// lost.
    fn max_queue(&self, job: &Job) -> Option<usize> {
        self.settings.max_queue.filter(|_| job.depth() == 0)
    }

    /// Returns a finite, non-negative cost. An infinite cost counts as the most that a batch may
    /// cost, so that its job is computed alone.
    fn bounded(&self, cost: f64) -> f64 {
        let most = self.settings.max_batch_cost.unwrap_or(self.mean_cost);
        if cost.is_finite() { cost.max(0.0) } else { most }
    }

    /// Returns the time by which a job that starts within `queue_timeout` must be answered.
    fn effective_deadline(&self, job: &Job) -> Instant {
        self.settings.queue_timeout.map_or(job.deadline, |limit| {
            job.deadline.min(job.queued + limit + self.batch_time().unwrap_or_default())
        })
    }

    /// Returns the refusal of new requests while the endpoint is drained.
    fn check_mode(&self, job: &Job) -> Result<(), Refusal> {
        match self.mode {
            Mode::Draining if job.depth() == 0 => Err(Refusal::draining()),
            Mode::Serving | Mode::Paused | Mode::Draining => Ok(()),
        }
    }

    /// Returns the refusal of jobs that would wait in vain, because no worker will be ready soon.
    fn check_outlook(&self) -> Result<(), Refusal> {
        match &self.outlook {
            Outlook::Down { reason, retry_after } if self.workers.is_empty() => {
                Err(Refusal::no_worker(reason, *retry_after))
            }
            _ => Ok(()),
        }
    }

    /// Returns the time until a worker is ready; `None` if one is, or that is not known.
    fn expected(&self, now: Instant) -> Option<Duration> {
        match self.outlook {
            Outlook::Coming { within: Some(within), .. } if self.workers.is_empty() => {
                Some((self.outlook_since + within).saturating_duration_since(now))
            }
            _ => None,
        }
    }

    /// Returns the backlog for this job: shallower ones do not delay it.
    fn backlog(&self, job: &Job, now: Instant) -> Backlog {
        let until_ready = self.expected(now).unwrap_or_default();
        let rules = self.rules_now();
        let newest_first = self.newest_first() && self.standing.callers_leave();
        let waiting = self.queue.position(job);
        let before = if job.depth() == 0 && newest_first { self.queue.calls() } else { waiting };
        Backlog {
            waiting: waiting + self.suspects.len(),
            queued: before + self.suspects.len(),
            in_flight: self.in_flight(),
            free_capacity: self.workers.iter().map(|worker| worker.free_capacity(&rules)).sum(),
            capacity: self.capacity(),
            batch_time: self.batch_time(),
            until_ready,
            abandoned: self.workers.iter().map(|worker| worker.abandoned).sum(),
            is_asleep: matches!(self.outlook, Outlook::Coming { is_asleep: true, .. }),
            is_for_call: job.depth() > 0,
        }
    }

    /// Returns the number of jobs that all workers compute at the same time.
    fn capacity(&self) -> usize {
        let rules = self.rules_now();
        self.workers.iter().map(|worker| worker.capacity(&rules)).sum()
    }

    /// Publishes what admission elsewhere needs to know.
    pub(crate) fn publish(&self, pace: &PublishedPace) {
        pace.publish(self.capacity(), self.batch_time(), self.makes_calls);
        if self.rules.max_batch_size > 1 {
            pace.publish_learned(self.model.learned(self.rules.max_batch_size));
        }
    }

    fn in_flight(&self) -> usize {
        self.workers.iter().map(AttachedWorker::in_flight).sum()
    }

    /// Returns the expected duration of a full batch.
    fn batch_time(&self) -> Option<Duration> {
        let jobs = self.rules_now().max_batch_size;
        let largest = if self.rules.max_batch_size == 1 { 1.0 } else { self.mean_cost };
        self.model.time_of(&BatchWork { jobs, largest, sum: jobs as f64 * largest })
    }

    /// Applies the properties of the model that a worker reports.
    fn apply_model_info(&mut self, info: &ModelInfo) {
        let ModelInfo { max_batch_size, batch_timeout, .. } = *info;
        self.rules = Rules { max_batch_size, batch_timeout };
        self.by_cost = max_batch_size > 1 && (self.settings.by_cost || info.has_cost);
        self.stream = info.stream;
        if self.workers.is_empty() && !self.model.is_learned() {
            self.model = self.new_model();
        }
        self.makes_calls |= !info.calls.is_empty();
    }

    /// Returns a model that fits the endpoint. The time of a stream is that of its reader, too.
    fn new_model(&self) -> BatchModel {
        if self.by_cost {
            BatchModel::fixed(Basis::Padded)
        } else if self.rules.max_batch_size == 1 || self.stream || self.settings.fixed_batches {
            BatchModel::fixed(Basis::Jobs)
        } else {
            BatchModel::adaptive()
        }
    }

    /// Returns the rules, with the size of batches that is best for all that is known.
    fn rules_now(&self) -> Rules {
        let max_batch_size = self.model.most_jobs(self.rules.max_batch_size);
        Rules { max_batch_size, ..self.rules }
    }

    fn count_abandoned(&mut self, id: WorkerId, jobs: usize) {
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) {
            worker.abandoned += jobs;
        }
    }

    fn on_finished(&mut self, id: WorkerId, done: Done, now: Instant) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) else { return };
        let (model, metrics) = (&mut self.model, &self.metrics);
        let max_jobs = self.rules.max_batch_size;
        worker.finished(done, &self.rules, now, |work, took, is_whole| {
            // Jobs that were cut short give only a lower bound: a client that leaves must not make
            // the model look fast.
            if is_whole || model.time_of(&work).is_some_and(|known| took > known) {
                model.observe(&work, max_jobs, took);
            }
            metrics.computed(took);
        });
        self.busy.set(worker.slot, worker.in_flight() > 0, now);
        if worker.in_flight() == 0 {
            self.paused.set(worker.slot, false, now);
        }
    }

    fn remove(&mut self, id: WorkerId, now: Instant) {
        if let Some(worker) = self.workers.iter().find(|worker| worker.id == id) {
            self.busy.set(worker.slot, false, now);
            self.paused.set(worker.slot, false, now);
        }
        self.workers.retain(|worker| worker.id != id);
    }

    /// Requeues, retries or fails the jobs of a lost worker. A job that it cannot have started
    /// returns to its place in the queue.
    fn take_back(&mut self, unanswered: Vec<Unanswered>, now: Instant) {
        let (idempotent, limit) = (self.is_idempotent(), self.settings.queue_timeout);
        for Unanswered { mut job, started } in unanswered.into_iter().rev() {
            if job.is_void(now) || (!started && waited_too_long(&job, limit, now)) {
                answer_void(job);
            } else if !started {
                self.metrics.retried(false);
                job.note_requeued(now);
                self.queue.requeue(job);
            } else if !idempotent {
                job.reply.send(Err(ServeError::worker_lost()));
            } else {
                job.losses += 1;
                let may_retry = job.losses < MAX_LOSSES;
                if may_retry && !job.take_retry() {
                    job.reply.send(Err(ServeError::worker_lost()));
                } else if may_retry {
                    self.metrics.retried(true);
                    job.note_requeued(now);
                    self.suspects.push_front(job);
                } else {
                    let error = ServeError::poison(job.losses);
                    job.reply.send(Err(error));
                }
            }
        }
    }

    /// Lets a request wait for the first worker, as a job would: its body is not read before.
    fn await_first(&mut self, request: oneshot::Sender<Outcome<()>>) {
        self.for_first.retain(|request| !request.is_closed());
        let waiting = self.queue.len() + self.for_first.len();
        let is_full = waiting >= largest_queue(self.settings.max_queue, false);
        let admitted = match &self.mode {
            Mode::Draining => Err(Refusal::draining()),
            _ if is_full => Err(Refusal::queue_full(waiting, Duration::ZERO)),
            _ => self.check_outlook(),
        };
        match admitted {
            Err(Refusal { reason, error }) => {
                self.metrics.shed(reason);
                let _ = request.send(Err(error));
            }
            Ok(()) if self.workers.is_empty() => self.for_first.push(request),
            Ok(()) => _ = request.send(Ok(())),
        }
    }

    fn set_outlook(&mut self, outlook: Outlook, now: Instant) {
        self.outlook = outlook;
        self.outlook_since = now;
        if let Err(Refusal { reason, error }) = self.check_outlook() {
            for request in self.for_first.drain(..) {
                self.metrics.shed(reason);
                let _ = request.send(Err(error.clone()));
            }
            for job in self.queue.take_all().chain(self.suspects.drain(..)) {
                self.metrics.shed(reason);
                job.reply.send(Err(error.clone()));
            }
        }
    }

    fn cost(&mut self, request: Request, answer: oneshot::Sender<Outcome<f64>>) {
        match self.workers.iter_mut().min_by_key(|worker| worker.in_flight()) {
            Some(worker) => worker.link.cost(request, answer),
            None => {
                let error =
                    self.check_outlook().err().map(|refusal| refusal.error).unwrap_or_else(|| {
                        let detail = "no worker of this endpoint is running yet";
                        ServeError::not_ready(detail, RETRY_AFTER)
                    });
                let _ = answer.send(Err(error));
            }
        }
    }

    fn inspect(&self, now: Instant) -> EndpointLoad {
        self.metrics.flush();
        let time = self.batch_time().filter(|time| !time.is_zero());
        let rules = self.rules_now();
        let first = self.for_first.iter().filter(|request| !request.is_closed()).count();
        let capacity = self.workers.first().map(|worker| worker.capacity(&rules));
        EndpointLoad {
            arrived: self.arrived,
            refused: self.refused,
            queued: self.queue.len() + self.suspects.len() + first,
            queue_limit: largest_queue(self.settings.max_queue, self.model.is_learned()),
            in_flight: self.in_flight(),
            worker_rate: time
                .zip(capacity)
                .map(|(time, capacity)| capacity as f64 / time.as_secs_f64()),
            workers: self.workers.iter().map(AttachedWorker::report).collect(),
            busy: self.busy.totals(now),
            paused: self.paused.totals(now),
            mode: self.mode,
            expected: self.expected(now),
        }
    }

    fn drop_abandoned_jobs(&mut self, now: Instant) {
        let is_void = |job: &Job| job.is_void(now);
        let suspects = std::mem::take(&mut self.suspects).into_iter();
        let (suspects, kept): (VecDeque<_>, _) = suspects.partition(is_void);
        self.suspects = kept;
        for job in self.queue.take_each(is_void).into_iter().chain(suspects) {
            // A hook that ends its calls is no client that gave up.
            if now < job.deadline && job.depth() == 0 && !job.is_part {
                self.standing.gave_up(now - job.queued);
            }
            // A job whose deadline has just passed may still have its caller, which gets a 504.
            answer_void(job);
        }
        self.workers.iter_mut().for_each(|worker| worker.link.cancel_abandoned());
    }

    fn drop_void_jobs(&mut self, now: Instant) {
        let limit = self.settings.queue_timeout;
        while self.suspects.front().is_some_and(|job| job.is_void(now)) {
            self.suspects.pop_front().into_iter().for_each(answer_void);
        }
        let is_over = |job: &Job| job.is_void(now) || waited_too_long(job, limit, now);
        while let Some(job) = self.queue.take_front(is_over) {
            answer_void(job);
        }
    }

    fn waiting(&self) -> Waiting {
        // Jobs for workers that wait for their turn need no other.
        let asked = self.workers.iter().filter(|worker| worker.turn.is_asked()).count();
        let expected = asked * self.rules_now().max_batch_size;
        Waiting {
            queued: self.queue.len().saturating_sub(expected),
            oldest: self.queue.front().map(|job| job.queued),
            suspects: self.suspects.len(),
        }
    }

    fn loads(&self) -> Vec<Load> {
        let least = if self.sends_ahead() { 2 } else { 1 };
        // A fast worker may hold back finished single responses while it computes the next.
        // A job that waits behind a hook's call may be what that call waits for.
        let exact = self.makes_calls
            || (!self.is_idempotent() && !self.stream && self.rules.max_batch_size == 1);
        let rules = self.rules_now();
        let load = |worker: &AttachedWorker| {
            let load = worker.load(&rules, self.workers.len(), self.model.chooses(), exact);
            let window = if worker.turn.is_closed() { 0 } else { load.window.max(least) };
            Load { window, ..load }
        };
        self.workers.iter().map(load).collect()
    }

    /// Returns whether the next job is sent while the one before is computed: a large body takes
    /// time to send, and with one worker no other could start the job sooner. Jobs that must not be
    /// computed twice are not sent ahead: if the worker is lost, it is unknown which of both it had
    /// started.
    fn sends_ahead(&self) -> bool {
        let is_large = |job: &Job| job.request.body_len() >= LARGE_BODY;
        self.workers.len() == 1
            && !self.makes_calls
            && self.rules.max_batch_size == 1
            && self.is_idempotent()
            && self.queue.front().is_some_and(is_large)
    }

    fn is_idempotent(&self) -> bool {
        self.settings.idempotent.unwrap_or(!self.stream)
    }

    fn dispatch(&mut self, worker: usize, jobs: usize, now: Instant) {
        self.observe_queue(now);
        let chosen = if self.model.chooses() || self.newest_first() {
            self.choose_batch(jobs)
        } else {
            self.queue.take_first(jobs)
        };
        let (void, mut batch): (Vec<_>, Vec<_>) =
            chosen.into_iter().partition(|job| job.is_void(now));
        void.into_iter().for_each(answer_void);
        if !batch.is_empty() {
            self.record_batch(&batch, now);
            batch.iter().filter(|job| !job.is_part).for_each(|_| self.standing.dispatched());
            let is_batch = self.rules.max_batch_size > 1;
            trace_dispatch(&mut batch, is_batch, self.to(worker, now));
            self.workers[worker].assign(batch, &self.rules, now);
            self.busy.set(self.workers[worker].slot, true, now);
        }
    }

    /// Returns a dispatch to this worker, for recordings.
    fn to(&self, worker: usize, now: Instant) -> Dispatch {
        let ready = self.workers.iter().map(AttachedWorker::since).min();
        let (slot, generation) = (self.workers[worker].slot, self.settings.generation);
        Dispatch { slot, generation, ready, now }
    }

    /// Takes a batch out of the queue: of this many jobs, or of jobs of similar cost or size.
    fn choose_batch(&mut self, jobs: usize) -> Vec<Job> {
        let max_jobs = self.rules.max_batch_size;
        let candidates = Vec::from_iter(
            self.queue.order(self.newest_first()).take(CANDIDATE_BATCHES * max_jobs),
        );
        let chosen = if self.model.chooses() {
            let costs = Vec::from_iter(candidates.iter().map(|at| self.queue.job(*at).cost));
            let max_cost = self.settings.max_batch_cost.unwrap_or(f64::INFINITY);
            self.model.choose(&costs, max_jobs, max_cost)
        } else {
            (0..jobs.min(candidates.len())).collect()
        };
        self.queue.take(chosen.into_iter().map(|position| candidates[position]).collect())
    }

    fn dispatch_suspect(&mut self, worker: usize, now: Instant) {
        if let Some(mut job) = self.suspects.pop_front() {
            trace_dispatch(std::slice::from_mut(&mut job), false, self.to(worker, now));
            self.workers[worker].assign_alone(job, &self.rules, now);
            self.busy.set(self.workers[worker].slot, true, now);
        }
    }

    /// Returns what limits a batch, which is no longer in the queue, to its number of jobs.
    fn limit(&self, batch: &[Job]) -> BatchLimit {
        if batch.len() >= self.rules.max_batch_size {
            BatchLimit::Full
        } else if self.queue.is_empty() {
            BatchLimit::Queue
        } else {
            self.model.limit(&work(batch), self.settings.max_batch_cost)
        }
    }

    fn record_batch(&self, batch: &[Job], now: Instant) {
        batch.iter().for_each(|job| self.metrics.waited(now - job.queued));
        self.metrics.batched(batch.len());
        if self.rules.max_batch_size > 1 {
            self.metrics.batch_limit(self.limit(batch));
        }
        if self.by_cost {
            self.metrics.batch_cost(work(batch).padded());
        }
    }
}

/// Returns whether a job has waited in the queue for longer than `queue_timeout`.
fn waited_too_long(job: &Job, limit: Option<Duration>, now: Instant) -> bool {
    limit.is_some_and(|limit| now >= job.queued + limit)
}

/// Answers a void job with a 504. It must not become a 502: no worker was lost.
fn answer_void(job: Job) {
    job.reply.send(Err(ServeError::deadline()));
}

/// Returns a mean with one more cost, which is one of so many. A cost that is far above the mean, as a client may
/// claim, counts as a few; one of 1 always counts, as no multiple would lead back from a mean of nothing.
fn mean_with(mean: f64, of: u32, cost: f64) -> f64 {
    let most = if of == 1 { cost } else { (FAR_ABOVE * mean).max(1.0) };
    mean + (cost.min(most) - mean) / f64::from(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_cost_moves_the_mean_a_little_and_a_mean_of_nothing_recovers() {
        assert_eq!(mean_with(0.0, 1, 5_000.0), 5_000.0);
        assert_eq!(mean_with(100.0, MEAN_OF, 1e18), 145.0);
        let recovered = (0..60).fold(0.0, |mean, _| mean_with(mean, MEAN_OF, 100.0));
        assert!((80.0..=100.0).contains(&recovered), "{recovered}");
    }
}
