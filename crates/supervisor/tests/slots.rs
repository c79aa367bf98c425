//! What the supervisor does with workers that start, die and are no longer wanted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{BoxFuture, Cause, Gone, Launch, LaunchError, Launched};
use litplex_supervisor::{Health, Outlook, Settings, SlotState, Supervisor, health, supervise};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long a worker takes to start, and one that has jobs to finish.
const START: Duration = Duration::from_secs(1);

const GRACE: Duration = Duration::from_secs(9);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the next workers do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    Serve,
    /// Die so long after they were ready.
    Die(Duration),
    Fail,
    Panic,
    /// Serve, and do not finish when they are asked to.
    Linger,
}

/// Tells the test when a worker is launched and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Launched(usize),
    /// It finished, or was dropped.
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
    fn launch(&self, slot: usize) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let _ = self.seen.send((Seen::Launched(slot), Instant::now()));
        let (plan, kill) = (*self.plan.borrow(), self.kill.clone());
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

impl Launched for MockLaunched {
    fn gone(&mut self) -> BoxFuture<'_, Gone> {
        Box::pin(async {
            if let Plan::Die(after) = self.plan {
                sleep(after).await;
                return Gone::new(Cause::Exit, "died");
            }
            let kills = self.kill.borrow_and_update().get(&self.slot).copied();
            let killed = |now: &HashMap<usize, u32>| now.get(&self.slot).copied() != kills;
            if self.kill.wait_for(killed).await.is_err() {
                std::future::pending::<()>().await;
            }
            Gone::new(Cause::Signal, "killed")
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
    LaunchError { reason: "no weights".into(), traceback: Some("Traceback".into()) }
}

/// An endpoint whose workers do as the test says.
struct Bench {
    supervisor: Supervisor,
    plan: watch::Sender<Plan>,
    kill: watch::Sender<HashMap<usize, u32>>,
    seen: mpsc::UnboundedReceiver<(Seen, Instant)>,
}

impl Bench {
    fn start(plan: Plan, wanted: usize) -> Self {
        Self::start_with(plan, wanted, Settings { grace: GRACE, give_up: true })
    }

    fn start_with(plan: Plan, wanted: usize, settings: Settings) -> Self {
        let (plan, planned) = watch::channel(plan);
        let (kill, killed) = watch::channel(HashMap::new());
        let (see, seen) = mpsc::unbounded_channel();
        let launch = Arc::new(MockLaunch { plan: planned, kill: killed, seen: see });
        Self { supervisor: supervise(launch, wanted, settings), plan, kill, seen }
    }

    fn kill(&self, slot: usize) {
        self.kill.send_modify(|kills| *kills.entry(slot).or_default() += 1);
    }

    /// Waits until the slots are so, and returns how long that took.
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

    fn names(&self) -> Vec<&'static str> {
        self.supervisor.view().states().iter().map(name).collect()
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

fn name(state: &SlotState) -> &'static str {
    match state {
        SlotState::Starting { .. } => "starting",
        SlotState::Ready(_) => "ready",
        SlotState::BackingOff { .. } => "backing off",
        SlotState::Failed(_) => "failed",
        SlotState::Draining => "draining",
        SlotState::Stopped => "stopped",
    }
}

/// Lets everything happen that is due now.
async fn settle() {
    sleep(millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn slots_start_together_and_say_how_long_it_took() {
    let bench = Bench::start(Plan::Serve, 3);
    assert_eq!(bench.names(), ["starting"; 3], "before anything could run");
    assert_eq!(bench.reach_ready(3).await, START);
    assert_eq!(bench.supervisor.view().states(), vec![SlotState::Ready(START); 3]);
    assert_eq!(bench.supervisor.record().borrow().start_time, Some(START));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_is_replaced_at_once_and_the_others_are_left_alone() {
    let bench = Bench::start(Plan::Serve, 2);
    bench.reach_ready(2).await;
    bench.kill(1);
    settle().await;
    let states = bench.supervisor.view().states();
    assert!(is_ready(&states[0]));
    assert!(
        matches!(&states[1], SlotState::Starting { after: Some(why), .. } if why.reason == "killed")
    );
    assert!(matches!(health(&states), Health::Degraded(why) if why.reason == "killed"));
    assert!(bench.reach_ready(2).await <= START);
    let record = bench.supervisor.record().borrow().clone();
    assert_eq!((record.restarts, record.causes), (vec![0, 1], [(Cause::Signal, 1)].into()));
}

#[tokio::test(start_paused = true)]
async fn crashes_two_seconds_apart_that_kill_two_workers_each_cost_one_start_each() {
    let bench = Bench::start(Plan::Serve, 2);
    let mut next = Instant::now() + START;
    for _ in 0..5 {
        next += millis(2001);
        sleep_until(next).await;
        bench.kill(0);
        settle().await;
        bench.kill(1);
        settle().await;
        assert!(bench.reach_ready(2).await <= START + millis(200));
    }
    assert_eq!(bench.supervisor.record().borrow().restarts, [5, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_after_every_start_is_restarted_ever_later() {
    let mut bench = Bench::start(Plan::Die(millis(10)), 1);
    sleep(Duration::from_secs(600)).await;
    let launches = bench.launches();
    let gaps: Vec<_> = launches.windows(2).map(|pair| pair[1] - pair[0] - START).collect();
    assert!(gaps[0] < millis(20), "{gaps:?}");
    assert!(gaps[1..9].windows(2).all(|pair| pair[1] > pair[0]), "{gaps:?}");
    assert!(gaps[9..].iter().all(|gap| *gap > Duration::from_secs(20)), "{gaps:?}");
    assert!(launches.len() < 40, "{} launches", launches.len());
    let restarts = launches.len() as u64 - 1;
    assert_eq!(bench.supervisor.record().borrow().restarts, [restarts]);

    bench.plan.send_replace(Plan::Serve);
    sleep(Duration::from_secs(60)).await;
    bench.kill(0);
    settle().await;
    assert_eq!(bench.names(), ["starting"], "a long life makes up for all short ones");
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_fails_says_why_and_is_tried_again_for_ever() {
    let mut bench = Bench::start(Plan::Serve, 1);
    bench.reach_ready(1).await;
    bench.plan.send_replace(Plan::Fail);
    bench.kill(0);
    bench.reach(|states| name(&states[0]) == "backing off").await;
    let SlotState::BackingOff { gone, traceback, .. } = bench.supervisor.view().states()[0].clone()
    else {
        panic!("it backs off");
    };
    assert_eq!((&*gone.reason, traceback.as_deref()), ("no weights", Some("Traceback")));
    let Outlook::Down { gone, until } = bench.supervisor.view().outlook() else {
        panic!("no worker is there or comes");
    };
    assert_eq!(gone.reason, "no weights");
    assert!(until.unwrap() > Instant::now() + START);

    sleep(Duration::from_secs(300)).await;
    assert!((10..20).contains(&bench.launches().len()));
    bench.plan.send_replace(Plan::Serve);
    assert!(bench.reach_ready(1).await < Duration::from_secs(33));
}

#[tokio::test(start_paused = true)]
async fn a_first_launch_that_fails_is_given_up_unless_told_otherwise() {
    let mut bench = Bench::start(Plan::Fail, 1);
    bench.reach(|states| states == [SlotState::Failed(no_weights())]).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.launches().len(), 1);
    assert!(matches!(bench.supervisor.view().outlook(), Outlook::Down { until: None, .. }));

    let patient = Settings { give_up: false, ..Settings::default() };
    let mut bench = Bench::start_with(Plan::Fail, 1, patient);
    sleep(Duration::from_secs(60)).await;
    assert!(bench.launches().len() > 3);
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_panics_is_one_that_failed() {
    let bench = Bench::start(Plan::Panic, 1);
    bench.reach(|states| name(&states[0]) == "failed").await;
}

#[tokio::test(start_paused = true)]
async fn more_workers_start_at_once_and_fewer_drain_from_the_end() {
    let mut bench = Bench::start(Plan::Serve, 1);
    bench.reach_ready(1).await;
    bench.supervisor.wanted_setter().set(3);
    assert_eq!(bench.supervisor.wanted(), 3);
    assert_eq!(bench.reach_ready(3).await, START);

    bench.seen();
    bench.supervisor.wanted_setter().set(1);
    settle().await;
    assert_eq!(bench.names(), ["ready", "draining", "draining"]);
    assert_eq!(health(&bench.supervisor.view().states()), Health::Ready);
    bench.reach_ready(1).await;
    let gone: Vec<_> = bench.seen().into_iter().map(|(seen, _)| seen).collect();
    assert!(gone.contains(&Seen::Gone(1)) && gone.contains(&Seen::Gone(2)) && gone.len() == 2);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_wanted_again_while_it_drains_starts_after() {
    let mut bench = Bench::start(Plan::Serve, 1);
    bench.reach_ready(1).await;
    bench.seen();
    bench.supervisor.wanted_setter().set(0);
    settle().await;
    bench.supervisor.wanted_setter().set(1);
    settle().await;
    assert_eq!(bench.names(), ["draining"]);
    assert_eq!(bench.supervisor.view().outlook(), Outlook::Coming { at: None });
    bench.reach_ready(1).await;
    let order: Vec<_> = bench.seen().into_iter().map(|(seen, _)| seen).collect();
    assert_eq!(order, [Seen::Gone(0), Seen::Launched(0)]);
    assert_eq!(bench.supervisor.record().borrow().restarts, [0], "nothing went wrong");
}

#[tokio::test(start_paused = true)]
async fn the_lowest_free_slot_is_filled_while_a_higher_one_still_drains() {
    let bench = Bench::start(Plan::Serve, 2);
    bench.reach_ready(2).await;
    bench.plan.send_replace(Plan::Linger);
    bench.supervisor.wanted_setter().set(3);
    bench.reach_ready(3).await;
    bench.supervisor.wanted_setter().set(1);
    sleep(START + millis(1)).await;
    assert_eq!(bench.names(), ["ready", "stopped", "draining"]);
    bench.supervisor.wanted_setter().set(2);
    settle().await;
    assert_eq!(bench.names(), ["ready", "starting", "draining"]);
    bench.reach_ready(2).await;
}

#[tokio::test(start_paused = true)]
async fn scaled_to_zero_an_endpoint_sleeps_and_wakes() {
    let bench = Bench::start(Plan::Serve, 0);
    assert_eq!(bench.supervisor.view().outlook(), Outlook::Asleep { start_time: None });
    bench.supervisor.wanted_setter().set(1);
    assert_eq!(bench.supervisor.view().outlook(), Outlook::Coming { at: None });
    bench.reach_ready(1).await;
    bench.supervisor.wanted_setter().set(0);
    bench.reach_ready(0).await;
    assert_eq!(bench.supervisor.view().outlook(), Outlook::Asleep { start_time: Some(START) });
    bench.supervisor.wanted_setter().set(1);
    let launched = Instant::now();
    bench.reach(|states| !states.is_empty()).await;
    assert_eq!(bench.supervisor.view().outlook(), Outlook::Coming { at: Some(launched + START) });
    assert_eq!(bench.reach_ready(1).await, START);
}

#[tokio::test(start_paused = true)]
async fn slots_that_start_or_back_off_go_at_once_when_they_are_not_wanted() {
    let mut bench = Bench::start(Plan::Serve, 1);
    settle().await;
    bench.supervisor.wanted_setter().set(0);
    assert_eq!(bench.reach_ready(0).await, Duration::ZERO);
    assert!(bench.seen().iter().any(|(seen, _)| *seen == Seen::Gone(0)), "the launch was dropped");

    bench.supervisor.wanted_setter().set(1);
    bench.reach_ready(1).await;
    bench.plan.send_replace(Plan::Fail);
    bench.kill(0);
    bench.reach(|states| name(&states[0]) == "backing off").await;
    bench.supervisor.wanted_setter().set(0);
    assert_eq!(bench.reach_ready(0).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_ready_workers_and_not_for_those_that_load_or_back_off() {
    let begin = Instant::now();
    Bench::start(Plan::Serve, 1).supervisor.stop(GRACE).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);

    let bench = Bench::start(Plan::Serve, 2);
    bench.reach_ready(2).await;
    let begin = Instant::now();
    bench.supervisor.stop(GRACE).await;
    assert_eq!(begin.elapsed(), START);

    let bench = Bench::start(Plan::Die(millis(10)), 1);
    bench.reach(|states| name(&states[0]) == "backing off").await;
    let begin = Instant::now();
    bench.supervisor.stop(GRACE).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_once_all_is_to_end() {
    let bench = Bench::start(Plan::Serve, 1);
    bench.reach_ready(1).await;
    let late = bench.supervisor.wanted_setter();
    let stopping = bench.supervisor.stop(GRACE);
    let wish = async {
        sleep(millis(1)).await;
        late.set(1);
    };
    let both = async { tokio::join!(stopping, wish) };
    assert!(timeout(GRACE, both).await.is_ok(), "it would never end");
}

#[tokio::test(start_paused = true)]
async fn stopping_cuts_short_the_grace_of_workers_that_drain_already() {
    let mut bench = Bench::start(Plan::Linger, 1);
    bench.reach_ready(1).await;
    bench.supervisor.wanted_setter().set(0);
    settle().await;
    let begin = Instant::now();
    bench.supervisor.stop(START).await;
    assert_eq!(begin.elapsed(), START);
    assert!(std::iter::from_fn(|| bench.seen.try_recv().ok()).any(|(s, _)| s == Seen::Gone(0)));
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_dropped_ends_its_workers() {
    let Bench { supervisor, mut seen, .. } = Bench::start(Plan::Linger, 2);
    sleep(START + millis(1)).await;
    let mut view = supervisor.view();
    drop(supervisor);
    settle().await;
    let gone =
        std::iter::from_fn(|| seen.try_recv().ok()).filter(|(s, _)| matches!(s, Seen::Gone(_)));
    assert_eq!(gone.count(), 2);
    while view.changed().await {}
}
