//! The supervisor with workers that start, are lost, and are no longer wanted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{
    BoxFuture, Cause, GpuMemory, Launch, LaunchError, Launched, Loading, Monitor, Usage, WorkerExit,
};
use litplex_supervisor::{
    Health, Readiness, SlotState, Supervisor, SupervisorSettings, health, supervise,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The time in which a worker starts, and in which it finishes its jobs.
const START: Duration = Duration::from_secs(1);

const GRACE: Duration = Duration::from_secs(9);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The behaviour of the next workers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    Serve,
    /// Exit this long after they were ready.
    Die(Duration),
    Fail,
    Panic,
    /// Serve, and do not finish within the grace.
    Linger,
}

/// An event of a worker, sent to the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Launched(usize),
    /// The worker finished or was dropped.
    Gone(usize),
}

struct MockLaunch {
    plan: watch::Receiver<Plan>,
    kill: watch::Receiver<HashMap<usize, u32>>,
    seen: mpsc::UnboundedSender<(Seen, Instant)>,
}

struct MockLaunched {
    slot: usize,
    plan: Plan,
    kill: watch::Receiver<HashMap<usize, u32>>,
    seen: mpsc::UnboundedSender<(Seen, Instant)>,
}

impl Launch for MockLaunch {
    fn launch(
        &self,
        slot: usize,
        loading: Loading,
    ) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let _ = self.seen.send((Seen::Launched(slot), Instant::now()));
        let (plan, kill) = (*self.plan.borrow(), self.kill.clone());
        loading(Arc::new(MockMonitor(slot)));
        let worker = MockLaunched { slot, plan, kill, seen: self.seen.clone() };
        Box::pin(async move {
            sleep(START).await;
            match plan {
                Plan::Fail => Err(no_weights()),
                Plan::Panic => panic!("a launch that panics"),
                _ => Ok(Box::new(worker) as _),
            }
        })
    }
}

#[derive(Debug)]
struct MockMonitor(usize);

impl Monitor for MockMonitor {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn usage(&self, _: Option<&GpuMemory<'_>>) -> Usage {
        Usage { memory: Some(self.0 as u64), gpu_memory: None }
    }

    fn stack(&self) -> std::io::Result<String> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

impl Launched for MockLaunched {
    fn monitor(&self) -> Option<Arc<dyn Monitor>> {
        Some(Arc::new(MockMonitor(self.slot)))
    }

    fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
        Box::pin(async {
            if let Plan::Die(after) = self.plan {
                sleep(after).await;
                return WorkerExit::new(Cause::Exit, "died");
            }
            let kills = self.kill.borrow_and_update().get(&self.slot).copied();
            let killed = |now: &HashMap<usize, u32>| now.get(&self.slot).copied() != kills;
            if self.kill.wait_for(killed).await.is_err() {
                std::future::pending::<()>().await;
            }
            WorkerExit::new(Cause::Signal, "killed")
        })
    }

    fn stop(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            match self.plan {
                Plan::Linger => sleep(grace).await,
                _ => sleep(grace.min(START)).await,
            }
        })
    }
}

impl Drop for MockLaunched {
    fn drop(&mut self) {
        let _ = self.seen.send((Seen::Gone(self.slot), Instant::now()));
    }
}

fn no_weights() -> LaunchError {
    LaunchError { traceback: Some("Traceback".into()), ..LaunchError::new("no weights") }
}

/// An endpoint whose workers follow the plan of the test.
struct Fixture {
    supervisor: Supervisor,
    plan: watch::Sender<Plan>,
    kill: watch::Sender<HashMap<usize, u32>>,
    seen: mpsc::UnboundedReceiver<(Seen, Instant)>,
}

impl Fixture {
    fn start(plan: Plan, wanted: usize) -> Self {
        Self::start_with(plan, wanted, SupervisorSettings { grace: GRACE, give_up: true })
    }

    fn start_with(plan: Plan, wanted: usize, settings: SupervisorSettings) -> Self {
        let (plan, planned) = watch::channel(plan);
        let (kill, killed) = watch::channel(HashMap::new());
        let (see, seen) = mpsc::unbounded_channel();
        let launch = Arc::new(MockLaunch { plan: planned, kill: killed, seen: see });
        Self { supervisor: supervise(launch, wanted, settings), plan, kill, seen }
    }

    fn kill(&self, slot: usize) {
        self.kill.send_modify(|kills| *kills.entry(slot).or_default() += 1);
    }

    /// Waits until the states of the slots match, and returns the time that it took.
    async fn reach(&self, wanted: impl Fn(&[SlotState]) -> bool) -> Duration {
        let begin = Instant::now();
        let mut states = self.supervisor.states();
        let reached = timeout(millis(600_000), states.wait_for(|states| wanted(states))).await;
        assert!(reached.is_ok(), "still {:?}", self.supervisor.view().states());
        begin.elapsed()
    }

    async fn reach_ready(&self, workers: usize) -> Duration {
        self.reach(|states| states.len() == workers && states.iter().all(is_ready)).await
    }

    fn labels(&self) -> Vec<&'static str> {
        self.supervisor.view().states().iter().map(SlotState::label).collect()
    }

    fn seen(&mut self) -> Vec<(Seen, Instant)> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    fn launches(&mut self) -> Vec<Instant> {
        let launched = |(seen, at)| matches!(seen, Seen::Launched(_)).then_some(at);
        self.seen().into_iter().filter_map(launched).collect()
    }
}

fn is_ready(state: &SlotState) -> bool {
    matches!(state, SlotState::Ready(_))
}

/// Lets all due tasks run.
async fn settle() {
    sleep(millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_can_be_measured_while_it_starts_and_serves() {
    let fixture = Fixture::start(Plan::Serve, 2);
    let view = fixture.supervisor.view();
    let memory = |slot| view.monitor(slot).map(|monitor| monitor.usage(None).memory);
    assert_eq!(fixture.labels(), ["starting"; 2]);
    assert_eq!([memory(0), memory(1), memory(2)], [Some(Some(0)), Some(Some(1)), None]);
    fixture.reach(|states| states.iter().all(is_ready)).await;
    assert_eq!([memory(0), memory(1), memory(2)], [Some(Some(0)), Some(Some(1)), None]);
    fixture.supervisor.wanted_setter().set(1);
    fixture.reach(|states| states.get(1) == Some(&SlotState::Draining)).await;
    assert_eq!([memory(0), memory(1)], [Some(Some(0)), None]);
}

#[tokio::test(start_paused = true)]
async fn slots_start_together_and_report_their_start_time() {
    let fixture = Fixture::start(Plan::Serve, 3);
    assert_eq!(fixture.labels(), ["starting"; 3], "before anything could run");
    assert_eq!(fixture.reach_ready(3).await, START);
    assert_eq!(fixture.supervisor.view().states(), vec![SlotState::Ready(START); 3]);
    assert_eq!(fixture.supervisor.record().borrow().start_time, Some(START));
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_is_replaced_at_once_and_the_others_continue() {
    let fixture = Fixture::start(Plan::Serve, 2);
    fixture.reach_ready(2).await;
    fixture.kill(1);
    settle().await;
    let states = fixture.supervisor.view().states();
    assert!(is_ready(&states[0]));
    assert!(
        matches!(&states[1], SlotState::Starting { after: Some(why), .. } if why.reason == "killed")
    );
    assert!(matches!(health(&states), Health::Degraded(why) if why.reason == "killed"));
    assert!(fixture.reach_ready(2).await <= START);
    let record = fixture.supervisor.record().borrow().clone();
    assert_eq!((record.restarts, record.causes), (vec![0, 1], [(Cause::Signal, 1)].into()));
}

#[tokio::test(start_paused = true)]
async fn crashes_of_two_workers_every_two_seconds_cost_one_start_each() {
    let fixture = Fixture::start(Plan::Serve, 2);
    let mut next = Instant::now() + START;
    for _ in 0..5 {
        next += millis(2001);
        sleep_until(next).await;
        fixture.kill(0);
        settle().await;
        fixture.kill(1);
        settle().await;
        assert!(fixture.reach_ready(2).await <= START + millis(200));
    }
    assert_eq!(fixture.supervisor.record().borrow().restarts, [5, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_exits_after_every_start_backs_off_longer_each_time() {
    let mut fixture = Fixture::start(Plan::Die(millis(10)), 1);
    sleep(Duration::from_secs(600)).await;
    let launches = fixture.launches();
    let gaps: Vec<_> = launches.windows(2).map(|pair| pair[1] - pair[0] - START).collect();
    assert!(gaps[0] < millis(20), "{gaps:?}");
    assert!(gaps[1..9].windows(2).all(|pair| pair[1] > pair[0]), "{gaps:?}");
    assert!(gaps[9..].iter().all(|gap| *gap > Duration::from_secs(20)), "{gaps:?}");
    assert!(launches.len() < 40, "{} launches", launches.len());
    let restarts = launches.len() as u64 - 1;
    assert_eq!(fixture.supervisor.record().borrow().restarts, [restarts]);

    fixture.plan.send_replace(Plan::Serve);
    sleep(Duration::from_secs(60)).await;
    fixture.kill(0);
    settle().await;
    assert_eq!(fixture.labels(), ["starting"], "a long life resets the backoff");
}

#[tokio::test(start_paused = true)]
async fn a_failed_restart_reports_its_reason_and_is_repeated_forever() {
    let mut fixture = Fixture::start(Plan::Serve, 1);
    fixture.reach_ready(1).await;
    fixture.plan.send_replace(Plan::Fail);
    fixture.kill(0);
    fixture.reach(|states| states[0].label() == "backing_off").await;
    let SlotState::BackingOff { gone, traceback, .. } =
        fixture.supervisor.view().states()[0].clone()
    else {
        panic!("the slot does not back off");
    };
    assert_eq!((&*gone.reason, traceback.as_deref()), ("no weights", Some("Traceback")));
    let Readiness::Down { gone, until } = fixture.supervisor.view().readiness() else {
        panic!("a worker is ready or coming");
    };
    assert_eq!(gone.reason, "no weights");
    assert!(until.unwrap() > Instant::now() + START);

    sleep(Duration::from_secs(300)).await;
    assert!((10..20).contains(&fixture.launches().len()));
    fixture.plan.send_replace(Plan::Serve);
    assert!(fixture.reach_ready(1).await < Duration::from_secs(33));
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_launch_is_given_up_by_default() {
    let mut fixture = Fixture::start(Plan::Fail, 1);
    fixture.reach(|states| states == [SlotState::Failed(no_weights())]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(fixture.launches().len(), 1);
    assert!(matches!(fixture.supervisor.view().readiness(), Readiness::Down { until: None, .. }));

    let keep_trying = SupervisorSettings { give_up: false, ..SupervisorSettings::default() };
    let mut fixture = Fixture::start_with(Plan::Fail, 1, keep_trying);
    sleep(Duration::from_secs(60)).await;
    assert!(fixture.launches().len() > 3);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_panics_has_failed() {
    let fixture = Fixture::start(Plan::Panic, 1);
    fixture.reach(|states| states[0].label() == "failed").await;
}

#[tokio::test(start_paused = true)]
async fn more_workers_start_at_once_and_fewer_drain_from_the_end() {
    let mut fixture = Fixture::start(Plan::Serve, 1);
    fixture.reach_ready(1).await;
    fixture.supervisor.wanted_setter().set(3);
    assert_eq!(fixture.supervisor.wanted(), 3);
    assert_eq!(fixture.reach_ready(3).await, START);

    fixture.seen();
    fixture.supervisor.wanted_setter().set(1);
    settle().await;
    assert_eq!(fixture.labels(), ["ready", "draining", "draining"]);
    assert_eq!(health(&fixture.supervisor.view().states()), Health::Ready);
    fixture.reach_ready(1).await;
    let gone: Vec<_> = fixture.seen().into_iter().map(|(seen, _)| seen).collect();
    assert!(gone.contains(&Seen::Gone(1)) && gone.contains(&Seen::Gone(2)) && gone.len() == 2);
}

#[tokio::test(start_paused = true)]
async fn a_draining_slot_that_is_wanted_again_starts_a_worker_afterwards() {
    let mut fixture = Fixture::start(Plan::Serve, 1);
    fixture.reach_ready(1).await;
    fixture.seen();
    fixture.supervisor.wanted_setter().set(0);
    settle().await;
    fixture.supervisor.wanted_setter().set(1);
    settle().await;
    assert_eq!(fixture.labels(), ["draining"]);
    assert_eq!(fixture.supervisor.view().readiness(), Readiness::Coming { at: None });
    fixture.reach_ready(1).await;
    let order: Vec<_> = fixture.seen().into_iter().map(|(seen, _)| seen).collect();
    assert_eq!(order, [Seen::Gone(0), Seen::Launched(0)]);
    assert_eq!(fixture.supervisor.record().borrow().restarts, [0], "no worker was lost");
}

#[tokio::test(start_paused = true)]
async fn the_lowest_free_slot_is_filled_while_a_higher_one_still_drains() {
    let fixture = Fixture::start(Plan::Serve, 2);
    fixture.reach_ready(2).await;
    fixture.plan.send_replace(Plan::Linger);
    fixture.supervisor.wanted_setter().set(3);
    fixture.reach_ready(3).await;
    fixture.supervisor.wanted_setter().set(1);
    sleep(START + millis(1)).await;
    assert_eq!(fixture.labels(), ["ready", "stopped", "draining"]);
    fixture.supervisor.wanted_setter().set(2);
    settle().await;
    assert_eq!(fixture.labels(), ["ready", "starting", "draining"]);
    fixture.reach_ready(2).await;
}

#[tokio::test(start_paused = true)]
async fn scaled_to_zero_an_endpoint_sleeps_and_wakes() {
    let fixture = Fixture::start(Plan::Serve, 0);
    assert_eq!(fixture.supervisor.view().readiness(), Readiness::Asleep { start_time: None });
    fixture.supervisor.wanted_setter().set(1);
    assert_eq!(fixture.supervisor.view().readiness(), Readiness::Coming { at: None });
    fixture.reach_ready(1).await;
    fixture.supervisor.wanted_setter().set(0);
    fixture.reach_ready(0).await;
    assert_eq!(
        fixture.supervisor.view().readiness(),
        Readiness::Asleep { start_time: Some(START) }
    );
    fixture.supervisor.wanted_setter().set(1);
    let launched = Instant::now();
    fixture.reach(|states| !states.is_empty()).await;
    assert_eq!(
        fixture.supervisor.view().readiness(),
        Readiness::Coming { at: Some(launched + START) }
    );
    assert_eq!(fixture.reach_ready(1).await, START);
}

#[tokio::test(start_paused = true)]
async fn unwanted_slots_that_start_or_back_off_are_emptied_at_once() {
    let mut fixture = Fixture::start(Plan::Serve, 1);
    settle().await;
    fixture.supervisor.wanted_setter().set(0);
    assert_eq!(fixture.reach_ready(0).await, Duration::ZERO);
    assert!(
        fixture.seen().iter().any(|(seen, _)| *seen == Seen::Gone(0)),
        "the launch was dropped"
    );

    fixture.supervisor.wanted_setter().set(1);
    fixture.reach_ready(1).await;
    fixture.plan.send_replace(Plan::Fail);
    fixture.kill(0);
    fixture.reach(|states| states[0].label() == "backing_off").await;
    fixture.supervisor.wanted_setter().set(0);
    assert_eq!(fixture.reach_ready(0).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_ready_workers_only() {
    let begin = Instant::now();
    Fixture::start(Plan::Serve, 1).supervisor.stop(GRACE).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);

    let fixture = Fixture::start(Plan::Serve, 2);
    fixture.reach_ready(2).await;
    let begin = Instant::now();
    fixture.supervisor.stop(GRACE).await;
    assert_eq!(begin.elapsed(), START);

    let fixture = Fixture::start(Plan::Die(millis(10)), 1);
    fixture.reach(|states| states[0].label() == "backing_off").await;
    let begin = Instant::now();
    fixture.supervisor.stop(GRACE).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn no_worker_is_launched_after_stop() {
    let fixture = Fixture::start(Plan::Serve, 1);
    fixture.reach_ready(1).await;
    let late = fixture.supervisor.wanted_setter();
    let stopping = fixture.supervisor.stop(GRACE);
    let set_late = async {
        sleep(millis(1)).await;
        late.set(1);
    };
    let both = async { tokio::join!(stopping, set_late) };
    assert!(timeout(GRACE, both).await.is_ok(), "the supervisor does not stop");
}

#[tokio::test(start_paused = true)]
async fn stop_shortens_the_grace_of_draining_workers() {
    let mut fixture = Fixture::start(Plan::Linger, 1);
    fixture.reach_ready(1).await;
    fixture.supervisor.wanted_setter().set(0);
    settle().await;
    let begin = Instant::now();
    fixture.supervisor.stop(START).await;
    assert_eq!(begin.elapsed(), START);
    assert!(std::iter::from_fn(|| fixture.seen.try_recv().ok()).any(|(s, _)| s == Seen::Gone(0)));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_supervisor_kills_its_workers() {
    let Fixture { supervisor, mut seen, .. } = Fixture::start(Plan::Linger, 2);
    sleep(START + millis(1)).await;
    let mut view = supervisor.view();
    drop(supervisor);
    settle().await;
    let gone =
        std::iter::from_fn(|| seen.try_recv().ok()).filter(|(s, _)| matches!(s, Seen::Gone(_)));
    assert_eq!(gone.count(), 2);
    while view.changed().await {}
}
