//! Random schedules of all events of an endpoint, checked against its invariants.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use litplex_core::{
    Answer, Answers, Done, Job, Mode, ModelInfo, Outcome, Request, Response, Unanswered, Worker,
    reply,
};
use litplex_metrics::Metrics;
use tokio::time::Instant;

use crate::event::{Event, WorkerId};
use crate::state::EndpointState;
use crate::{EndpointLoad, Outlook, QueueSettings};

const SCHEDULES: u64 = 100_000;
const STEPS: usize = 30;
const MAX_WORKERS: usize = 3;

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

type Dispatched = Arc<Mutex<VecDeque<Vec<Job>>>>;

struct MockWorker(Dispatched);

impl Worker for MockWorker {
    fn dispatch(&mut self, jobs: Vec<Job>) {
        self.0.lock().unwrap().push_back(jobs);
    }
}

/// A worker in the view of the schedule.
struct ScheduledWorker {
    id: WorkerId,
    batches: Dispatched,
    is_retired: bool,
}

impl ScheduledWorker {
    fn jobs(&self) -> usize {
        self.batches.lock().unwrap().iter().map(Vec::len).sum()
    }
}

struct Caller {
    answers: Option<Answers>,
    answered: Option<u16>,
}

struct Schedule {
    random: Rng,
    state: EndpointState,
    now: Instant,
    max_batch_size: usize,
    concurrency: usize,
    callers: Vec<Caller>,
    workers: Vec<ScheduledWorker>,
    /// The arrival of the fresh job that was dispatched last, while the order must be kept.
    last_dispatched: Option<Instant>,
    by_cost: bool,
    /// Whether jobs are dispatched in the order of their arrival.
    is_in_order: bool,
    mode: Mode,
    /// Whether any worker was lost.
    killed: bool,
}

impl Schedule {
    fn new(seed: u64, start: Instant) -> Self {
        let mut random = Rng::with_seed(seed);
        let by_cost = random.usize(..3) == 0;
        let (fixed_batches, adaptive_order) = (random.bool(), random.bool());
        let settings = QueueSettings {
            max_queue: (random.usize(..2) == 0).then_some(6),
            queue_timeout: (random.usize(..3) == 0).then_some(Duration::from_millis(50)),
            idempotent: [None, Some(true), Some(false)][random.usize(..3)],
            by_cost,
            fixed_batches,
            adaptive_order,
            max_batch_cost: by_cost.then_some(40.0),
            device_weight: None,
            generation: 1,
            is_shadow: false,
        };
        let max_batch_size = [1, 1, 4][random.usize(..3)];
        Self {
            max_batch_size,
            concurrency: [1, 1, 3][random.usize(..3)],
            state: EndpointState::new(settings, METRICS.queue("/test"), start),
            now: start,
            random,
            callers: Vec::new(),
            workers: Vec::new(),
            last_dispatched: None,
            is_in_order: !by_cost && !adaptive_order && (fixed_batches || max_batch_size == 1),
            by_cost,
            mode: Mode::Serving,
            killed: false,
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.act();
        }
        let any_lost = self.callers.iter_mut().any(|caller| {
            caller.settle();
            caller.was_lost()
        });
        assert!(!any_lost || self.killed, "a job was dropped, and no worker was lost");
        self.finish_all();
        assert!(self.callers.iter_mut().all(Caller::is_settled), "a job was lost");
    }

    fn step(&mut self) {
        match self.random.usize(..17) {
            0..=5 => self.submit(),
            6..=8 => self.answer(),
            9 => self.leave(),
            10 => self.attach(),
            11 => self.kill(),
            12 => self.retire(),
            13 => self.outlook(),
            14 => self.set_mode(),
            _ => self.now += Duration::from_millis(self.random.usize(..40) as u64),
        }
    }

    fn submit(&mut self) {
        let (reply, answers) = reply();
        let budget = Duration::from_millis(self.random.usize(..200) as u64);
        let mut job = Job::new(Request::json("1"), self.now, self.now + budget, reply);
        job.cost = self.random.usize(..50) as f64;
        self.callers.push(Caller { answers: Some(answers), answered: None });
        self.handle(Event::Job(job));
    }

    fn answer(&mut self) {
        let Some(worker) = self.random_worker() else { return };
        let Some(batch) = self.workers[worker].batches.lock().unwrap().pop_front() else { return };
        let (id, jobs) = (self.workers[worker].id, batch.len());
        batch.into_iter().for_each(|job| job.reply.send(Ok(Response::json("1"))));
        self.handle(Event::Finished { id, done: Done { jobs, cut_short: 0 } });
    }

    fn leave(&mut self) {
        if !self.callers.is_empty() {
            let caller = self.random.usize(..self.callers.len());
            self.callers[caller].settle();
            self.callers[caller].answers = None;
            self.handle(Event::CallersLeft);
        }
    }

    fn attach(&mut self) {
        if self.workers.len() == MAX_WORKERS {
            return;
        }
        let (id, batches) = (WorkerId::next(), Dispatched::default());
        let info = ModelInfo {
            max_batch_size: self.max_batch_size,
            batch_timeout: Duration::from_millis(5),
            concurrency: self.concurrency,
            stream: false,
            context: false,
            has_cost: false,
            dialect: None,
            schema: Default::default(),
            tool: None,
            base64: Default::default(),
            watches_callers: false,
            places: 1,
            calls: Vec::new(),
        };
        let worker = Box::new(MockWorker(batches.clone()));
        self.workers.push(ScheduledWorker { id, batches, is_retired: false });
        self.handle(Event::Attached { id, slot: self.workers.len() - 1, info, worker });
    }

    fn kill(&mut self) {
        let Some(worker) = self.random_worker() else { return };
        let ScheduledWorker { id, batches, .. } = self.workers.remove(worker);
        self.killed = true;
        let batches: Vec<_> = batches.lock().unwrap().drain(..).collect();
        let unanswered = batches.into_iter().enumerate().flat_map(|(position, batch)| {
            let started = position < self.concurrency;
            batch.into_iter().map(move |job| Unanswered { job, started })
        });
        let unanswered = unanswered.collect();
        self.last_dispatched = None;
        self.handle(Event::Gone { id, unanswered });
    }

    fn retire(&mut self) {
        if let Some(worker) = self.random_worker() {
            self.workers[worker].is_retired = true;
            let id = self.workers[worker].id;
            self.handle(Event::Retiring { id });
        }
    }

    fn outlook(&mut self) {
        let outlook = match self.random.usize(..3) {
            0 => Outlook::Coming { within: None, is_asleep: false },
            1 => Outlook::Coming { within: Some(Duration::from_millis(50)), is_asleep: true },
            _ => Outlook::Down { reason: "no".into(), retry_after: Duration::from_secs(1) },
        };
        self.handle(Event::Outlook(outlook));
    }

    fn set_mode(&mut self) {
        self.mode =
            [Mode::Serving, Mode::Serving, Mode::Paused, Mode::Draining][self.random.usize(..4)];
        self.handle(Event::Mode(self.mode));
    }

    fn random_worker(&mut self) -> Option<usize> {
        let workers = self.workers.len();
        (workers > 0).then(|| self.random.usize(..workers))
    }

    fn handle(&mut self, event: Event) {
        self.state.handle(event, self.now);
    }

    /// Lets the endpoint act, and checks the jobs that it dispatched.
    fn act(&mut self) {
        let before: Vec<_> = self.workers.iter().map(ScheduledWorker::jobs).collect();
        let due = self.state.act(self.now);
        assert!(due.is_none_or(|due| due > self.now), "the task would spin");
        for (worker, before) in before.into_iter().enumerate() {
            self.check_dispatched(worker, before);
        }
        self.check_permits();
    }

    fn check_dispatched(&mut self, worker: usize, before: usize) {
        let ScheduledWorker { batches, is_retired, .. } = &self.workers[worker];
        let batches = batches.lock().unwrap();
        let paused = self.mode == Mode::Paused;
        let suspect = batches.iter().flatten().any(|job| job.losses > 0);
        let jobs: usize = batches.iter().map(Vec::len).sum();
        assert!(!suspect || jobs == 1, "a suspect shares its worker");
        assert!(!is_retired || jobs <= before, "a retired worker got jobs");
        assert!(!paused || jobs <= before, "a paused endpoint dispatched jobs");
        for batch in batches.iter().filter(|_| self.max_batch_size > 1) {
            assert!(batch.len() <= self.max_batch_size);
            let most = batch.iter().map(|job| job.cost).fold(0.0, f64::max);
            assert!(!self.by_cost || batch.len() == 1 || batch.len() as f64 * most <= 40.0);
        }
        for job in batches.iter().flatten().skip(before) {
            assert!(!job.is_void(self.now), "a void job reached a worker");
            if self.workers.len() == 1 && self.is_in_order && !suspect {
                assert!(self.last_dispatched <= Some(job.arrived), "out of order");
                self.last_dispatched = Some(job.arrived);
            }
        }
    }

    /// Checks the endpoint's count of jobs in workers.
    fn check_permits(&mut self) {
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        self.handle(Event::Inspect(answer));
        let load: EndpointLoad = answered.try_recv().unwrap();
        let held =
            self.workers.iter().filter(|worker| !worker.is_retired).map(ScheduledWorker::jobs);
        assert_eq!(load.in_flight, held.sum::<usize>(), "permits are not conserved");
        let arrived = self.callers.len() as u64;
        assert_eq!(load.arrived, arrived);
    }

    /// Lets a fresh worker answer all remaining jobs.
    fn finish_all(&mut self) {
        while !self.workers.is_empty() {
            self.kill();
            self.act();
        }
        self.mode = Mode::Serving;
        self.handle(Event::Mode(self.mode));
        self.attach();
        self.act();
        self.now += Duration::from_millis(5);
        self.act();
        while self.workers[0].jobs() > 0 {
            self.answer();
            self.now += Duration::from_millis(5);
            self.act();
        }
    }
}

impl Caller {
    /// Takes the answer if there is one, and checks that no other came before.
    fn settle(&mut self) {
        let Some(outcome) = self.answers.as_mut().and_then(poll_once) else { return };
        let status = match outcome {
            Outcome::Ok(Answer::Whole(response)) => response.status,
            Outcome::Ok(Answer::Stream(..)) => panic!("not a stream"),
            Outcome::Err(error) => error.status(),
        };
        assert_eq!(self.answered.replace(status), None, "answered twice");
        self.answers = None;
    }

    /// Returns whether the answer is the error of a lost worker.
    fn was_lost(&self) -> bool {
        self.answered == Some(502)
    }

    fn is_settled(&mut self) -> bool {
        self.settle();
        self.answers.is_none()
    }
}

fn poll_once(answers: &mut Answers) -> Option<Outcome<Answer>> {
    let waiting = std::pin::pin!(answers.recv());
    match waiting.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

#[test]
fn every_job_is_answered_exactly_once() {
    let start = Instant::now();
    for seed in 0..SCHEDULES {
        let run = std::panic::AssertUnwindSafe(|| Schedule::new(seed, start).run());
        if std::panic::catch_unwind(run).is_err() {
            panic!("schedule {seed} violated an invariant; see the message above");
        }
    }
}
