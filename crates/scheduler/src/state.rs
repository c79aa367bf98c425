use std::collections::VecDeque;
use std::time::Duration;

use litplex_core::{Done, Job, ServeError, Traits, Unanswered, trace_dispatch};
use litplex_metrics::Queue;
use tokio::time::Instant;

use crate::admission::{Backlog, Refusal, admit, largest_queue};
use crate::busy::BusyTimes;
use crate::handle::{Event, Settings, WorkerId};
use crate::member::{Member, units};
use crate::{Decision, EndpointLoad, Load, Outlook, Rules, Speed, Waiting, decide, fill};

/// A job that was on its way in this many workers when they were lost is not tried again.
const POISON: u32 = 2;

/// Bytes of a body that travels while the one before is computed.
const LARGE_BODY: usize = 64 * 1024;

/// Seconds after which a refused client may try again, where nothing better is known.
const RETRY_AFTER: u64 = 1;

/// How quickly the mean cost follows a change.
const WEIGHT_OF_NEW: f64 = 0.05;

/// An endpoint's queue and its view of the workers. It changes by events alone, and knows the time
/// only as it is told: [`EndpointTask`](crate::task::EndpointTask) is its clock and its inbox.
pub(crate) struct EndpointState {
    settings: Settings,
    metrics: Queue,
    rules: Rules,
    /// Whether jobs that cost about the same go together.
    by_cost: bool,
    stream: bool,
    queue: VecDeque<Job>,
    /// Jobs that a lost worker may have been computing.
    suspects: VecDeque<Job>,
    workers: Vec<Member>,
    busy: BusyTimes,
    outlook: Outlook,
    /// Since when the outlook has been what it is.
    outlook_since: Instant,
    speed: Speed,
    mean_cost: f64,
    arrived: u64,
    refused: u64,
    callers_left: bool,
}

impl EndpointState {
    pub(crate) fn new(settings: Settings, metrics: Queue, now: Instant) -> Self {
        Self {
            settings,
            metrics,
            rules: Rules { max_batch_size: 1, batch_timeout: Duration::ZERO },
            by_cost: false,
            stream: false,
            queue: VecDeque::new(),
            suspects: VecDeque::new(),
            workers: Vec::new(),
            busy: BusyTimes::default(),
            outlook: Outlook::default(),
            outlook_since: now,
            speed: Speed::default(),
            mean_cost: 1.0,
            arrived: 0,
            refused: 0,
            callers_left: false,
        }
    }

    /// Notes what happened; [`act`](Self::act) must follow before time passes.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Job(job) => self.admit(job, now),
            Event::CallersLeft => self.callers_left = true,
            Event::Attached { id, slot, traits, worker } => {
                self.learn(&traits);
                self.workers.push(Member::new(id, slot, &traits, worker, now));
                self.busy.note(slot, false, now);
            }
            Event::Finished { id, done } => self.free(id, done, now),
            Event::Abandoned { id, jobs } => self.note_abandoned(id, jobs),
            Event::Retiring { id } => self.remove(id, now),
            Event::Gone { id, unanswered } => {
                self.remove(id, now);
                self.take_back(unanswered, now);
            }
            Event::Outlook(outlook) => self.expect(outlook, now),
            Event::Measure { request, answer } => self.measure(request, answer),
            // Nobody who asks and leaves is an error.
            Event::Inspect(answer) => drop(answer.send(self.inspect(now))),
        }
    }

    /// Does what may be done now, and returns when to look again if nothing happens until then.
    pub(crate) fn act(&mut self, now: Instant) -> Option<Instant> {
        if std::mem::take(&mut self.callers_left) {
            self.forget_callers_that_left(now);
        }
        let due = loop {
            self.drop_void_jobs(now);
            match decide(&self.rules, self.waiting(), &self.loads(), now) {
                Decision::Dispatch { worker, jobs } => self.dispatch(worker, jobs, now),
                Decision::DispatchSuspect { worker } => self.dispatch_suspect(worker, now),
                Decision::WaitUntil(due) => break Some(due),
                Decision::Wait => break None,
            }
        };
        self.workers.iter_mut().for_each(Member::flush);
        [due, self.first_expiry()].into_iter().flatten().min()
    }

    /// When the first job will have waited for too long, if that may be before its deadline, at
    /// which its caller speaks up.
    fn first_expiry(&self) -> Option<Instant> {
        let limit = self.settings.queue_timeout?;
        self.queue.front().map(|job| job.queued + limit)
    }

    fn admit(&mut self, mut job: Job, now: Instant) {
        self.arrived += 1;
        self.metrics.arrived(job.request.body_len());
        job.queued = now;
        job.cost = self.bounded(job.cost);
        self.mean_cost += WEIGHT_OF_NEW * (job.cost - self.mean_cost);
        let deadline = self.deadline_of(&job);
        let admitted = self
            .hope()
            .and_then(|()| admit(&self.backlog(now), self.settings.max_queue, now, deadline));
        match admitted {
            Ok(()) => self.queue.push_back(job),
            Err(Refusal { reason, error }) => {
                self.refused += 1;
                self.metrics.shed(reason);
                job.reply.send(Err(error));
            }
        }
    }

    /// Returns a cost as the batches can count with it. One that is not finite is the most that a
    /// batch may cost: its job is computed alone.
    fn bounded(&self, cost: f64) -> f64 {
        let most = self.settings.max_batch_cost.unwrap_or(self.mean_cost);
        if cost.is_finite() { cost.max(0.0) } else { most }
    }

    /// When a job must be answered at the latest if it is begun in time.
    fn deadline_of(&self, job: &Job) -> Instant {
        self.settings.queue_timeout.map_or(job.deadline, |limit| {
            job.deadline.min(job.queued + limit + self.batch_time().unwrap_or_default())
        })
    }

    /// Tells why there is no use in waiting, where there is none.
    fn hope(&self) -> Result<(), Refusal> {
        match &self.outlook {
            Outlook::Down { reason, retry_after } if self.workers.is_empty() => {
                Err(Refusal::no_worker(reason, *retry_after))
            }
            _ => Ok(()),
        }
    }

    fn backlog(&self, now: Instant) -> Backlog {
        let until_ready = match self.outlook {
            Outlook::Coming { within: Some(within), .. } if self.workers.is_empty() => {
                (self.outlook_since + within).saturating_duration_since(now)
            }
            _ => Duration::ZERO,
        };
        Backlog {
            queued: self.queue.len() + self.suspects.len(),
            in_flight: self.in_flight(),
            room: self.workers.iter().map(|member| member.room(&self.rules)).sum(),
            at_a_time: self.workers.iter().map(|member| member.capacity(&self.rules)).sum(),
            time: self.batch_time(),
            until_ready,
            abandoned: self.workers.iter().map(|member| member.abandoned).sum(),
            is_asleep: matches!(self.outlook, Outlook::Coming { is_asleep: true, .. }),
        }
    }

    fn in_flight(&self) -> usize {
        self.workers.iter().map(Member::in_flight).sum()
    }

    /// How long a full batch takes.
    fn batch_time(&self) -> Option<Duration> {
        let unit = if self.rules.max_batch_size == 1 { 1.0 } else { self.mean_cost };
        self.speed.time_of(self.rules.max_batch_size as f64 * unit)
    }

    /// Learns from a worker what its model is like.
    fn learn(&mut self, traits: &Traits) {
        let Traits { max_batch_size, batch_timeout, .. } = *traits;
        self.rules = Rules { max_batch_size, batch_timeout };
        self.by_cost = max_batch_size > 1 && (self.settings.by_cost || traits.measures);
        self.stream = traits.stream;
    }

    fn note_abandoned(&mut self, id: WorkerId, jobs: usize) {
        if let Some(member) = self.workers.iter_mut().find(|member| member.id == id) {
            member.abandoned += jobs;
        }
    }

    fn free(&mut self, id: WorkerId, done: Done, now: Instant) {
        let Some(member) = self.workers.iter_mut().find(|member| member.id == id) else { return };
        let (speed, metrics) = (&mut self.speed, &self.metrics);
        member.finished(done, &self.rules, now, |units, took, is_whole| {
            // What ended early says how long work takes at least: a client that leaves must not have
            // the model taken for a fast one.
            if is_whole || speed.time_of(units).is_some_and(|known| took > known) {
                speed.observe(units, took);
            }
            metrics.computed(took);
        });
        self.busy.note(member.slot, member.in_flight() > 0, now);
    }

    fn remove(&mut self, id: WorkerId, now: Instant) {
        if let Some(member) = self.workers.iter().find(|member| member.id == id) {
            self.busy.note(member.slot, false, now);
        }
        self.workers.retain(|member| member.id != id);
    }

    /// Puts the jobs of a lost worker where they belong. What it cannot have begun goes back to
    /// where it was in the queue.
    fn take_back(&mut self, unanswered: Vec<Unanswered>, now: Instant) {
        let (idempotent, limit) = (self.is_idempotent(), self.settings.queue_timeout);
        for Unanswered { mut job, started } in unanswered.into_iter().rev() {
            if job.is_void(now) || (!started && waited_too_long(&job, limit, now)) {
                answer_void(job);
            } else if !started {
                self.metrics.retried(false);
                job.note_requeued(now);
                let place = self.queue.partition_point(|other| other.queued < job.queued);
                self.queue.insert(place, job);
            } else if !idempotent {
                job.reply.send(Err(ServeError::worker_lost()));
            } else {
                job.losses += 1;
                if job.losses < POISON {
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

    fn expect(&mut self, outlook: Outlook, now: Instant) {
        self.outlook = outlook;
        self.outlook_since = now;
        if let Err(Refusal { reason, error }) = self.hope() {
            for job in self.queue.drain(..).chain(self.suspects.drain(..)) {
                self.metrics.shed(reason);
                job.reply.send(Err(error.clone()));
            }
        }
    }

    fn measure(
        &mut self,
        request: litplex_core::Request,
        answer: tokio::sync::oneshot::Sender<litplex_core::Outcome<f64>>,
    ) {
        match self.workers.iter_mut().min_by_key(|member| member.in_flight()) {
            Some(member) => member.worker.measure(request, answer),
            None => {
                let error = self.hope().err().map(|refusal| refusal.error).unwrap_or_else(|| {
                    let detail = "no worker of this endpoint is running yet";
                    ServeError::unavailable(detail, RETRY_AFTER)
                });
                let _ = answer.send(Err(error));
            }
        }
    }

    fn inspect(&self, now: Instant) -> EndpointLoad {
        self.metrics.flush();
        let time = self.batch_time().filter(|time| !time.is_zero());
        let at_a_time = self.workers.first().map(|member| member.capacity(&self.rules));
        EndpointLoad {
            arrived: self.arrived,
            refused: self.refused,
            queued: self.queue.len() + self.suspects.len(),
            queue_limit: largest_queue(self.settings.max_queue, self.speed.time_of(1.0).is_some()),
            in_flight: self.in_flight(),
            worker_rate: time
                .zip(at_a_time)
                .map(|(time, at_a_time)| at_a_time as f64 / time.as_secs_f64()),
            workers: self.workers.iter().map(Member::report).collect(),
            busy: self.busy.until(now),
        }
    }

    fn forget_callers_that_left(&mut self, now: Instant) {
        for queue in [&mut self.queue, &mut self.suspects] {
            for job in std::mem::take(queue) {
                // One whose time has just run out may still have its caller: it is told so.
                if job.is_void(now) { answer_void(job) } else { queue.push_back(job) }
            }
        }
        self.workers.iter_mut().for_each(|member| member.worker.cancel_abandoned());
    }

    fn drop_void_jobs(&mut self, now: Instant) {
        let limit = self.settings.queue_timeout;
        for (queue, limit) in [(&mut self.queue, limit), (&mut self.suspects, None)] {
            let is_over = |job: &Job| job.is_void(now) || waited_too_long(job, limit, now);
            while queue.front().is_some_and(is_over) {
                queue.pop_front().into_iter().for_each(answer_void);
            }
        }
    }

    fn waiting(&self) -> Waiting {
        Waiting {
            queued: self.queue.len(),
            oldest: self.queue.front().map(|job| job.queued),
            suspects: self.suspects.len(),
        }
    }

    fn loads(&self) -> Vec<Load> {
        let least = if self.sends_ahead() { 2 } else { 1 };
        // Of single answers a fast worker may hold some back while it computes the next.
        let exact = !self.is_idempotent() && !self.stream && self.rules.max_batch_size == 1;
        let load = |member: &Member| {
            let load = member.load(&self.rules, self.workers.len(), self.by_cost, exact);
            Load { window: load.window.max(least), ..load }
        };
        self.workers.iter().map(load).collect()
    }

    /// Tells whether the next job travels while the one before is computed: a large body takes
    /// its time, and with one worker nobody else could begin with it sooner. Not where jobs must
    /// not be computed twice: should that worker be lost, it is not known which of both it had
    /// begun.
    fn sends_ahead(&self) -> bool {
        let is_large = |job: &Job| job.request.body_len() >= LARGE_BODY;
        self.workers.len() == 1
            && self.rules.max_batch_size == 1
            && self.is_idempotent()
            && self.queue.front().is_some_and(is_large)
    }

    fn is_idempotent(&self) -> bool {
        self.settings.idempotent.unwrap_or(!self.stream)
    }

    fn dispatch(&mut self, worker: usize, jobs: usize, now: Instant) {
        let chosen =
            if self.by_cost { self.take_alike() } else { self.queue.drain(..jobs).collect() };
        let (void, mut batch): (Vec<_>, Vec<_>) =
            chosen.into_iter().partition(|job| job.is_void(now));
        void.into_iter().for_each(answer_void);
        if !batch.is_empty() {
            self.measure_batch(&batch, now);
            let is_batch = self.rules.max_batch_size > 1;
            trace_dispatch(&mut batch, self.workers[worker].slot, is_batch, now);
            self.workers[worker].take(batch, &self.rules, now);
            self.busy.note(self.workers[worker].slot, true, now);
        }
    }

    /// Takes a batch of jobs that cost about the same out of the queue.
    fn take_alike(&mut self) -> Vec<Job> {
        let costs: Vec<_> = self.queue.iter().map(|job| job.cost).collect();
        let max_cost = self.settings.max_batch_cost.unwrap_or(f64::INFINITY);
        let overhead = self.speed.overhead_in_units();
        let places = fill(&costs, self.rules.max_batch_size, max_cost, overhead);
        // From the back, so that the places before stay true.
        let mut batch: Vec<_> =
            places.iter().rev().filter_map(|place| self.queue.remove(*place)).collect();
        batch.reverse();
        batch
    }

    fn dispatch_suspect(&mut self, worker: usize, now: Instant) {
        if let Some(mut job) = self.suspects.pop_front() {
            trace_dispatch(std::slice::from_mut(&mut job), self.workers[worker].slot, false, now);
            self.workers[worker].take_alone(job, &self.rules, now);
            self.busy.note(self.workers[worker].slot, true, now);
        }
    }

    fn measure_batch(&self, batch: &[Job], now: Instant) {
        batch.iter().for_each(|job| self.metrics.waited(now - job.queued));
        self.metrics.batched(batch.len());
        if self.by_cost {
            self.metrics.batch_cost(units(batch));
        }
    }
}

/// Tells whether a job that no worker has begun has waited for longer than it may.
fn waited_too_long(job: &Job, limit: Option<Duration>, now: Instant) -> bool {
    limit.is_some_and(|limit| now >= job.queued + limit)
}

/// Its caller left, or waits no longer: nobody else may say that a worker died.
fn answer_void(job: Job) {
    job.reply.send(Err(ServeError::deadline()));
}
