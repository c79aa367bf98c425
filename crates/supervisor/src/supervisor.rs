use std::sync::Arc;
use std::time::Duration;

use litmux_core::{Launch, Launched};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::SlotState;

/// The slots of one endpoint. Dropped, it ends their workers by force.
#[derive(Debug)]
pub struct Supervisor {
    states: watch::Receiver<Vec<SlotState>>,
    stop: watch::Sender<Option<Duration>>,
    slots: JoinSet<()>,
}

/// Starts a worker in each of `slots` slots.
pub fn supervise(launch: &Arc<dyn Launch>, slots: usize) -> Supervisor {
    let (publish, states) = watch::channel(vec![SlotState::Starting; slots]);
    let (stop, stopped) = watch::channel(None);
    let publish = Arc::new(publish);
    let mut tasks = JoinSet::new();
    for index in 0..slots {
        let slot = Slot { index, publish: publish.clone(), stop: stopped.clone() };
        tasks.spawn(slot.run(launch.clone()));
    }
    Supervisor { states, stop, slots: tasks }
}

impl Supervisor {
    /// Returns a view of what every slot is doing, in the order of the slots.
    pub fn states(&self) -> watch::Receiver<Vec<SlotState>> {
        self.states.clone()
    }

    /// Asks every worker to finish and returns when all are gone; those that are still there
    /// after `grace` are ended by force, and those that have not become ready at once.
    pub async fn stop(mut self, grace: Duration) {
        self.stop.send_replace(Some(grace));
        while self.slots.join_next().await.is_some() {}
    }
}

/// One slot, as its task sees it.
struct Slot {
    index: usize,
    publish: Arc<watch::Sender<Vec<SlotState>>>,
    stop: watch::Receiver<Option<Duration>>,
}

impl Slot {
    async fn run(mut self, launch: Arc<dyn Launch>) {
        let started = Instant::now();
        let launched = tokio::select! {
            launched = launch.launch(self.index) => launched,
            _ = stop_asked(&mut self.stop) => return self.enter(SlotState::Stopped),
        };
        match launched {
            Ok(worker) => {
                self.enter(SlotState::Ready(started.elapsed()));
                self.watch_over(worker).await;
            }
            Err(error) => self.enter(SlotState::Failed(error)),
        }
    }

    async fn watch_over(&mut self, mut worker: Box<dyn Launched>) {
        let grace = tokio::select! {
            reason = worker.gone() => return self.enter(SlotState::Gone(reason)),
            grace = stop_asked(&mut self.stop) => grace,
        };
        self.enter(SlotState::Draining);
        worker.stop(grace).await;
        self.enter(SlotState::Stopped);
    }

    fn enter(&self, state: SlotState) {
        self.publish.send_modify(|states| states[self.index] = state);
    }
}

/// Resolves when the supervisor asks for the end, or is gone itself.
async fn stop_asked(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(grace) => grace.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use litmux_core::{BoxFuture, LaunchError};
    use tokio::sync::Notify;

    use super::*;

    /// Becomes ready after a second, lives until the test kills it, takes a second to stop.
    struct MockLaunch {
        fails: bool,
        killed: Arc<Notify>,
    }

    struct MockLaunched(Arc<Notify>);

    impl Launch for MockLaunch {
        fn launch(&self, _: usize) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
            let (fails, killed) = (self.fails, self.killed.clone());
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let error = LaunchError { reason: "no weights".into(), traceback: None };
                if fails { Err(error) } else { Ok(Box::new(MockLaunched(killed)) as _) }
            })
        }
    }

    impl Launched for MockLaunched {
        fn gone(&mut self) -> BoxFuture<'_, String> {
            Box::pin(async {
                self.0.notified().await;
                "killed".into()
            })
        }

        fn stop(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
            Box::pin(tokio::time::sleep(grace.min(Duration::from_secs(1))))
        }
    }

    fn start(fails: bool, slots: usize) -> (Supervisor, Arc<Notify>) {
        let killed = Arc::new(Notify::new());
        let launch: Arc<dyn Launch> = Arc::new(MockLaunch { fails, killed: killed.clone() });
        (supervise(&launch, slots), killed)
    }

    async fn reach(supervisor: &Supervisor, wanted: &SlotState) {
        supervisor.states().wait_for(|states| states.contains(wanted)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn slots_start_together_and_say_how_long_it_took() {
        let (supervisor, _) = start(false, 3);
        let begin = Instant::now();
        let ready = SlotState::Ready(Duration::from_secs(1));
        let all_ready = |states: &Vec<SlotState>| states.iter().all(|state| *state == ready);
        supervisor.states().wait_for(all_ready).await.unwrap();
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_dies_leaves_the_others_alone() {
        let (supervisor, killed) = start(false, 2);
        reach(&supervisor, &SlotState::Ready(Duration::from_secs(1))).await;
        killed.notify_one();
        reach(&supervisor, &SlotState::Gone("killed".into())).await;
        let states = supervisor.states().borrow().clone();
        assert!(states.contains(&SlotState::Ready(Duration::from_secs(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_launch_that_fails_says_why() {
        let (supervisor, _) = start(true, 1);
        let error = LaunchError { reason: "no weights".into(), traceback: None };
        reach(&supervisor, &SlotState::Failed(error)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_ready_workers_and_not_for_those_that_load() {
        let (supervisor, _) = start(false, 1);
        let begin = Instant::now();
        supervisor.stop(Duration::from_secs(9)).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);

        let (supervisor, _) = start(false, 1);
        reach(&supervisor, &SlotState::Ready(Duration::from_secs(1))).await;
        let begin = Instant::now();
        supervisor.stop(Duration::from_secs(9)).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
    }
}
