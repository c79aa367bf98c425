//! The launch of workers within the budget: each worker asks for memory before it starts.

use std::sync::Arc;
use std::time::Duration;

use litplex_calls::WatchedQueue;
use litplex_core::{BoxFuture, Launch, LaunchError, Launched, Loading, Monitor, WorkerExit};
use litplex_residency::Refusal;
use litplex_scheduler::Endpoint;
use litplex_workers::endpoint_span;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::Instrument;

use super::member::{Claim, Member};
use crate::size::Size;

/// The time between two looks at the requests that wait for a worker without memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The time after which a start that is in vain is tried again, in case that the budget or the others change.
const RETRY_IN_VAIN: Duration = Duration::from_secs(5);

/// The time after which a start is tried again that was in vain only beside the callers which waited for it: they
/// have been told.
const RETRY_WITHOUT_CALLERS: Duration = Duration::from_millis(100);

/// The time that a worker waits for memory which must be there: those up to the least number.
const FOR_THE_LEAST: Duration = Duration::from_secs(24 * 60 * 60);

/// A launch whose workers ask for memory first.
pub(crate) struct BudgetedLaunch {
    pub(crate) inner: Arc<dyn Launch>,
    pub(crate) member: Arc<Member>,
    pub(crate) demand: MemoryDemand,
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
            let worker = inner.launch(slot, loading).await?;
            claim.ready(worker.monitor());
            let start_time = worker.start_time().unwrap_or_else(|| since.elapsed());
            Ok(Box::new(BudgetedWorker { worker, claim, start_time }) as _)
        };
        Box::pin(launch.instrument(span))
    }
}

/// Waits until a worker has memory. The task is told again when other requests wait for it.
async fn granted(claim: &Claim, slot: usize, demand: &MemoryDemand) -> Result<(), LaunchError> {
    let is_least = slot < demand.size.borrow().limits.min;
    let deadline = Instant::now() + if is_least { FOR_THE_LEAST } else { demand.timeout };
    let mut known = demand.now().await;
    let mut answer = claim.ask(known.0, known.1.clone(), deadline);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The task ends after all launches; without it there is no budget.
            answer = &mut answer => {
                let has_callers = !known.1.is_empty();
                return answer.unwrap_or(Ok(())).map_err(|refusal| no_room(&refusal, has_callers));
            }
            _ = looks.tick() => {}
        }
        let now = demand.now().await;
        if now != known {
            known = now;
            answer = claim.ask(known.0, known.1.clone(), deadline);
        }
    }
}

impl MemoryDemand {
    /// Returns the number of requests that wait, and the endpoints that are blocked in calls for them.
    async fn now(&self) -> (usize, Vec<Arc<str>>) {
        (self.queue.load().await.queued, self.watched.blocked_callers())
    }
}

fn no_room(refusal: &Refusal, has_callers: bool) -> LaunchError {
    let retry_after = match refusal.retry_after {
        Some(time) => time,
        None if has_callers => RETRY_WITHOUT_CALLERS,
        None => RETRY_IN_VAIN,
    };
    LaunchError::no_room(refusal.to_string(), retry_after)
}

/// A worker with its memory.
struct BudgetedWorker {
    // Dropped first: the claim ends when the process is killed.
    worker: Box<dyn Launched>,
    claim: Arc<Claim>,
    start_time: Duration,
}

impl Launched for BudgetedWorker {
    fn monitor(&self) -> Option<Arc<dyn Monitor>> {
        self.worker.monitor()
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
}
