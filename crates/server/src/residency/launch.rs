//! The launch of workers within the budget: each worker asks for memory before it starts.

use std::sync::Arc;
use std::time::Duration;

use litplex_calls::WatchedQueue;
use litplex_core::{
    BoxFuture, Launch, LaunchError, Launched, Loading, Monitor, NoRoom, WorkerExit, size_in_words,
};
use litplex_residency::{Refusal, RefusalReason};
use litplex_scheduler::Endpoint;
use litplex_workers::endpoint_span;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::Instrument;

use super::hibernation::{HibernatedWorkers, obstacle, went_to_swap};
use super::member::{AskedFor, Claim, Member};
use crate::size::Size;

/// The time between two looks at the requests that wait for a worker without memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The time after which a start that is in vain is tried again, in case that the budget or the others change.
const RETRY_IN_VAIN: Duration = Duration::from_secs(5);

/// The time after which a start is tried again that was in vain only beside the callers which waited for it: they
/// have been told.
const RETRY_WITHOUT_CALLERS: Duration = Duration::from_millis(100);

/// The time that a worker waits for memory while no request waits for it.
const WITHOUT_REQUESTS: Duration = Duration::from_secs(24 * 60 * 60);

/// A launch whose workers ask for memory first.
pub(crate) struct BudgetedLaunch {
    pub(crate) inner: Arc<dyn Launch>,
    pub(crate) member: Arc<Member>,
    pub(crate) demand: MemoryDemand,
    pub(crate) hibernated: Arc<HibernatedWorkers>,
}

/// The requests for which a worker asks for memory.
#[derive(Clone)]
pub(crate) struct MemoryDemand {
    pub(crate) label: Arc<str>,
    pub(crate) queue: Endpoint,
    pub(crate) watched: WatchedQueue,
    pub(crate) size: watch::Receiver<Size>,
    /// The longest time that a request waits.
    pub(crate) timeout: Duration,
}

impl Launch for BudgetedLaunch {
    fn launch(
        &self,
        slot: usize,
        loading: Loading,
    ) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let (inner, demand) = (self.inner.clone(), self.demand.clone());
        let hibernated = self.hibernated.clone();
        // Before anything is awaited: dropped at any point, its memory is given back.
        let claim = Arc::new(self.member.claim(slot));
        let span = endpoint_span(&demand.label);
        let launch = async move {
            granted(&claim, slot, &demand).await?;
            let since = Instant::now();
            let seen = claim.clone();
            let loading: Loading = Box::new(move |monitor: Arc<dyn Monitor>| {
                seen.loading(monitor.clone());
                loading(monitor);
            });
            let (worker, is_woken) = match woken(&hibernated, slot).await {
                Some(worker) => (worker, true),
                None => {
                    claim.loads();
                    (inner.launch(slot, loading).await?, false)
                }
            };
            claim.ready(worker.monitor());
            let start_time = worker.start_time().unwrap_or_else(|| since.elapsed());
            Ok(Box::new(BudgetedWorker {
                worker,
                claim,
                slot,
                is_woken,
                start_time,
                demand,
                hibernated,
            }) as _)
        };
        Box::pin(launch.instrument(span))
    }

    fn wakes(&self, slot: usize) -> bool {
        self.hibernated.has(slot)
    }

    fn close(&self, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.hibernated.clone().close(grace))
    }
}

/// Wakes the worker of a slot. `None` if none hibernates, or it cannot be woken: the model is then loaded.
async fn woken(hibernated: &HibernatedWorkers, slot: usize) -> Option<Box<dyn Launched>> {
    let begin = Instant::now();
    match hibernated.wake(slot).await? {
        Ok(worker) => {
            tracing::info!(slot, "woken in {:.2} s", begin.elapsed().as_secs_f64());
            Some(worker)
        }
        Err(error) => {
            tracing::warn!(slot, "loaded again, because it cannot be woken: {error}");
            None
        }
    }
}

/// Waits until a worker has memory. The task is told again when other requests wait for it.
async fn granted(claim: &Claim, slot: usize, demand: &MemoryDemand) -> Result<(), LaunchError> {
    loop {
        let Err((refusal, has_callers)) = granted_once(claim, slot, demand).await else {
            return Ok(());
        };
        // One of several workers does not fit: the others serve, and the load may ask for fewer of them.
        let is_further = slot > 0 && !demand.is_required(slot);
        if !(is_further && refusal.reason == RefusalReason::TooLarge) {
            return Err(no_room(&refusal, has_callers));
        }
        tracing::debug!(slot, "not loaded: {refusal}");
        sleep(RETRY_IN_VAIN).await;
    }
}

/// Asks until there is an answer. Returns the refusal, and whether hooks are blocked in calls for the worker.
async fn granted_once(
    claim: &Claim,
    slot: usize,
    demand: &MemoryDemand,
) -> Result<(), (Refusal, bool)> {
    let mut known = demand.now(slot, None).await;
    let mut answer = claim.ask(known.clone());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The task ends after all launches; without it there is no budget.
            answer = &mut answer => {
                let has_callers = !known.chain.is_empty();
                return answer.unwrap_or(Ok(())).map_err(|refusal| (refusal, has_callers));
            }
            _ = looks.tick() => {}
        }
        let now = demand.now(slot, Some(&known)).await;
        if now != known {
            answer = claim.ask(now.clone());
            known = now;
        }
    }
}

impl MemoryDemand {
    /// Returns the ask for a worker, given the one before it.
    async fn now(&self, slot: usize, before: Option<&AskedFor>) -> AskedFor {
        let queued = self.queue.load().await.queued;
        let is_required = self.is_required(slot);
        let limit = match (queued, is_required) {
            (1.., false) => self.timeout,
            _ => WITHOUT_REQUESTS,
        };
        // The requests that wait have begun to wait together.
        let is_as_before =
            |it: &&AskedFor| (it.queued > 0) == (queued > 0) && it.is_required == is_required;
        let deadline =
            before.filter(is_as_before).map_or_else(|| Instant::now() + limit, |it| it.deadline);
        AskedFor { queued, is_required, chain: self.watched.blocked_callers(), deadline }
    }

    /// Returns whether workers hibernate instead of ending.
    fn may_hibernate(&self) -> bool {
        self.size.borrow().residency.hibernates
    }

    /// Returns whether the worker of a slot is wanted without a request: one of the least number, and one that is to
    /// show that a new generation can be loaded.
    fn is_required(&self, slot: usize) -> bool {
        let size = *self.size.borrow();
        let is_new = self.queue.model_info().is_none() && size.workers > 0;
        slot < size.limits.min || is_new
    }
}

fn no_room(refusal: &Refusal, has_callers: bool) -> LaunchError {
    let retry_after = match refusal.retry_after {
        Some(time) => time,
        None if has_callers => RETRY_WITHOUT_CALLERS,
        None => RETRY_IN_VAIN,
    };
    let is_in_vain = refusal.reason == RefusalReason::TooLarge;
    LaunchError::no_room(refusal.to_string(), NoRoom { retry_after, is_in_vain })
}

/// A worker with its memory.
struct BudgetedWorker {
    // Dropped first: the claim ends when the process is killed.
    worker: Box<dyn Launched>,
    claim: Arc<Claim>,
    slot: usize,
    is_woken: bool,
    start_time: Duration,
    demand: MemoryDemand,
    hibernated: Arc<HibernatedWorkers>,
}

impl Launched for BudgetedWorker {
    fn monitor(&self) -> Option<Arc<dyn Monitor>> {
        self.worker.monitor()
    }

    fn is_woken(&self) -> bool {
        self.is_woken
    }

    fn start_time(&self) -> Option<Duration> {
        Some(self.start_time)
    }

    fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
        Box::pin(async {
            let exit = self.worker.gone().await;
            self.claim.ended();
            exit
        })
    }

    fn stop(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        let Self { worker, claim, .. } = *self;
        Box::pin(async move {
            worker.stop(grace).await;
            drop(claim);
        })
    }

    fn release(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        let span = endpoint_span(&self.demand.label);
        Box::pin(self.hibernate_or_stop(grace).instrument(span))
    }
}

impl BudgetedWorker {
    async fn hibernate_or_stop(self, grace: Duration) {
        let Self { worker, claim, slot, hibernated, demand, .. } = self;
        let monitor = worker.monitor().filter(|_| demand.may_hibernate());
        let Some(monitor) = monitor else { return worker.stop(grace).await };
        let measured = claim.measured(monitor);
        let _turn = if measured.gpu.is_some() { claim.turn_to_leave_gpu().await } else { None };
        let Some(before) = measured.movable().await else { return worker.stop(grace).await };
        if let Some(obstacle) = obstacle(&before) {
            tracing::info!(slot, "ends and does not hibernate: {obstacle}");
            return worker.stop(grace).await;
        }
        let begin = Instant::now();
        claim.moves_out();
        let Some(worker) = worker.hibernate(grace).await else { return };
        match measured.movable().await.filter(|after| went_to_swap(&before, after)) {
            Some(after) => {
                let seconds = begin.elapsed().as_secs_f64();
                let [all, left] = [&before, &after].map(|it| measured.in_use(it));
                tracing::info!(
                    slot,
                    "hibernates: {} of {} are left in memory, after {seconds:.2} s",
                    size_in_words(left.total()),
                    size_in_words(all.total())
                );
                hibernated.keep(slot, worker, claim.hand_over());
                claim.hibernates(left);
            }
            None => {
                tracing::info!(slot, "ends: swap did not take its memory");
                worker.end(grace).await;
            }
        }
    }
}
