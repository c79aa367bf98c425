//! Endpoints with mock workers on one device, in paused time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litplex_core::{
    Answers, Attach, Done, Job, ModelInfo, Pausing, Progress, Request, Worker, reply,
};
use litplex_metrics::Metrics;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::{Capacity, DeviceShares, SharedDevice};
use crate::{Endpoint, QueueSettings, spawn_seated_endpoint};

#[derive(Debug, Default)]
struct Signals {
    pauses: AtomicUsize,
    is_paused: Mutex<bool>,
}

impl Pausing for Signals {
    fn pause(&self) {
        self.pauses.fetch_add(1, Relaxed);
        *self.is_paused.lock().unwrap() = true;
    }

    fn resume(&self) {
        *self.is_paused.lock().unwrap() = false;
    }

    fn cpu_time(&self) -> Option<Duration> {
        None
    }
}

struct MockWorker {
    jobs: mpsc::UnboundedSender<Vec<Job>>,
    signals: Option<Arc<Signals>>,
}

impl Worker for MockWorker {
    fn dispatch(&mut self, jobs: Vec<Job>) {
        let _ = self.jobs.send(jobs);
    }

    fn pausing(&self) -> Option<Arc<dyn Pausing>> {
        self.signals.clone().map(|signals| signals as _)
    }
}

struct Seated {
    endpoint: Endpoint,
    progress: Arc<dyn Progress>,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    signals: Option<Arc<Signals>>,
}

fn endpoint(shares: &DeviceShares, name: &str, can_pause: bool) -> Seated {
    let device = SharedDevice { name: "gpu".into(), capacity: Capacity::Workers(1) };
    let seat = shares.seat(device, name, 1.0);
    let metrics = Metrics::new();
    let queue = metrics.queue(name);
    let endpoint = spawn_seated_endpoint(QueueSettings::default(), queue, vec![Some(seat)], 1);
    let (sender, jobs) = mpsc::unbounded_channel();
    let attachment = endpoint.attach(0, info());
    let progress = attachment.progress();
    let signals = can_pause.then(Arc::<Signals>::default);
    attachment.complete(Box::new(MockWorker { jobs: sender, signals: signals.clone() }));
    Seated { endpoint, progress, jobs, signals }
}

fn info() -> ModelInfo {
    ModelInfo {
        max_batch_size: 1,
        batch_timeout: Duration::ZERO,
        concurrency: 1,
        places: 1,
        stream: false,
        watches_callers: false,
        context: false,
        has_cost: false,
        dialect: None,
        schema: Arc::default(),
        tool: None,
        calls: Vec::new(),
        base64: Arc::default(),
    }
}

impl Seated {
    fn submit(&self) -> Answers {
        let (reply, answers) = reply();
        let now = Instant::now();
        let deadline = now + Duration::from_secs(100);
        self.endpoint.submit(Job::new(Request::json("1"), now, deadline, reply));
        answers
    }

    async fn begun(&mut self) -> Vec<Job> {
        self.jobs.recv().await.unwrap()
    }

    async fn has_begun(&mut self) -> bool {
        settle().await;
        self.jobs.try_recv().is_ok()
    }

    fn finish(&self) {
        self.progress.finished(Done { jobs: 1, cut_short: 0 });
    }

    fn is_paused(&self) -> bool {
        *self.signals.as_ref().unwrap().is_paused.lock().unwrap()
    }
}

/// Lets all tasks run that are ready.
async fn settle() {
    for _ in 0..20 {
        yield_now().await;
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_worker_is_paused_for_the_turn_of_another_and_then_continues() {
    let shares = DeviceShares::spawn();
    let (mut slow, mut fast) = (endpoint(&shares, "/slow", true), endpoint(&shares, "/fast", true));
    settle().await;
    let _slow = slow.submit();
    let _held = slow.begun().await;
    sleep(SECOND).await;
    let _fast = fast.submit();
    let asked = Instant::now();
    let _held_too = fast.begun().await;
    assert_eq!((slow.is_paused(), asked.elapsed()), (true, Duration::ZERO));
    sleep(Duration::from_millis(4)).await;
    fast.finish();
    settle().await;
    assert!(!slow.is_paused());
    let load = slow.endpoint.load().await;
    assert_eq!(load.paused, [Duration::from_millis(4)]);
    assert!(load.busy[0] > SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_be_paused_ends_its_turn_with_its_job() {
    let shares = DeviceShares::spawn();
    let (mut slow, mut fast) =
        (endpoint(&shares, "/slow", false), endpoint(&shares, "/fast", true));
    settle().await;
    let _slow = [slow.submit(), slow.submit()];
    let _held = slow.begun().await;
    sleep(SECOND).await;
    let _fast = fast.submit();
    assert!(!fast.has_begun().await);
    sleep(SECOND).await;
    slow.finish();
    assert!(fast.has_begun().await, "its turn comes before the next job of the other");
    assert!(!slow.has_begun().await);
    fast.finish();
    assert!(slow.has_begun().await);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_lost_gives_its_turn_back() {
    let shares = DeviceShares::spawn();
    let (mut slow, mut fast) =
        (endpoint(&shares, "/slow", false), endpoint(&shares, "/fast", true));
    settle().await;
    let _slow = slow.submit();
    let _held = slow.begun().await;
    let _fast = fast.submit();
    assert!(!fast.has_begun().await);
    slow.progress.gone(Vec::new());
    assert!(fast.has_begun().await);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_retires_is_not_left_paused() {
    let shares = DeviceShares::spawn();
    let (mut slow, mut fast) = (endpoint(&shares, "/slow", true), endpoint(&shares, "/fast", true));
    settle().await;
    let _slow = slow.submit();
    let _held = slow.begun().await;
    let _fast = fast.submit();
    let _held_too = fast.begun().await;
    assert!(slow.is_paused());
    slow.progress.retiring();
    settle().await;
    assert!(!slow.is_paused());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_alone_takes_no_turns() {
    let shares = DeviceShares::spawn();
    let (mut slow, mut fast) = (endpoint(&shares, "/slow", true), endpoint(&shares, "/fast", true));
    settle().await;
    drop(fast.endpoint);
    drop(fast.progress);
    while fast.jobs.recv().await.is_some() {}
    settle().await;
    drop(shares);
    let _slow = slow.submit();
    assert!(slow.has_begun().await);
    assert_eq!(slow.signals.as_ref().unwrap().pauses.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_caller_leaves_before_its_turn_leaves_the_device_free() {
    let shares = DeviceShares::spawn();
    let (mut slow, mut fast) =
        (endpoint(&shares, "/slow", false), endpoint(&shares, "/fast", false));
    settle().await;
    let _slow = slow.submit();
    let _held = slow.begun().await;
    drop(fast.submit());
    fast.endpoint.caller_left();
    settle().await;
    slow.finish();
    settle().await;
    let _again = slow.submit();
    assert!(slow.has_begun().await);
    assert!(!fast.has_begun().await);
}
