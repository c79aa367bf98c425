//! The workers of a generation that hibernate, each kept until its slot wakes it or it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litplex_core::{Hibernated, LaunchError, Launched, Monitor, Pageable, size_in_words};
use litplex_devices::free_swap;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::Instrument;

/// The part of its memory that a worker may keep: with more of it there was no room in swap, and it is ended.
const MOST_KEPT: f64 = 0.5;

/// The part of the free swap that stays free: other programs need some, too.
const RESERVE: f64 = 0.1;

/// A function that runs when a worker that hibernates is gone, unless the worker is woken.
pub(super) struct OnEnd(Option<Box<dyn FnOnce() + Send>>);

impl OnEnd {
    pub(super) fn new(run: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(run)))
    }

    fn cancel(mut self) {
        self.0 = None;
    }
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}

/// The workers of a generation that hibernate, by slot. Those that are left are killed when this is dropped.
#[derive(Default)]
pub(crate) struct HibernatedWorkers(Mutex<State>);

#[derive(Default)]
struct State {
    slots: BTreeMap<usize, oneshot::Sender<Order>>,
    /// The tasks that keep, wake or end a worker.
    tasks: JoinSet<()>,
    /// The time that a worker has to end that comes from now on; `None` while workers may be kept.
    closed: Option<Duration>,
}

/// An order to the task that keeps a worker.
enum Order {
    Wake(oneshot::Sender<Result<Box<dyn Launched>, LaunchError>>),
    End(Duration),
}

impl HibernatedWorkers {
    /// Keeps the worker of a slot.
    pub(super) fn keep(&self, slot: usize, worker: Box<dyn Hibernated>, on_end: OnEnd) {
        let mut state = self.state();
        let (orders, order) = oneshot::channel();
        if let Some(grace) = state.closed {
            let _ = orders.send(Order::End(grace));
        } else {
            state.slots.insert(slot, orders);
        }
        // Otherwise the set would grow with each worker.
        while state.tasks.try_join_next().is_some() {}
        state.tasks.spawn(kept(slot, worker, on_end, order).in_current_span());
    }

    /// Returns whether the worker of a slot hibernates.
    pub(super) fn has(&self, slot: usize) -> bool {
        self.state().slots.get(&slot).is_some_and(|orders| !orders.is_closed())
    }

    /// Wakes the worker of a slot; `None` if there is none. It is killed if the caller leaves meanwhile.
    pub(super) async fn wake(&self, slot: usize) -> Option<Result<Box<dyn Launched>, LaunchError>> {
        let orders = self.state().slots.remove(&slot)?;
        let (reply, woken) = oneshot::channel();
        orders.send(Order::Wake(reply)).ok()?;
        woken.await.ok()
    }

    /// Begins to end the worker of a slot, by force after `grace`.
    pub(super) fn end(&self, slot: usize, grace: Duration) {
        if let Some(orders) = self.state().slots.remove(&slot) {
            let _ = orders.send(Order::End(grace));
        }
    }

    /// Begins to end all, also those that come later, and resolves when they are gone.
    pub(super) fn close(self: Arc<Self>, grace: Duration) -> impl Future<Output = ()> {
        let mut state = self.state();
        state.closed.get_or_insert(grace);
        for orders in std::mem::take(&mut state.slots).into_values() {
            let _ = orders.send(Order::End(grace));
        }
        drop(state);
        async move {
            let mut tasks = std::mem::take(&mut self.state().tasks);
            while tasks.join_next().await.is_some() {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a worker until there is an order, or it dies.
async fn kept(
    slot: usize,
    mut worker: Box<dyn Hibernated>,
    on_end: OnEnd,
    order: oneshot::Receiver<Order>,
) {
    tokio::select! {
        gone = worker.gone() => tracing::warn!(slot, "gone while it hibernated: {gone}"),
        order = order => match order {
            Ok(Order::Wake(mut reply)) => {
                let woken = tokio::select! {
                    woken = worker.wake() => woken,
                    // A worker that is not ready is killed, as at any start that is given up.
                    () = reply.closed() => return,
                };
                if reply.send(woken).is_ok() {
                    on_end.cancel();
                }
            }
            Ok(Order::End(grace)) => worker.end(grace).await,
            // The generation was dropped.
            Err(_) => {}
        },
    }
}

/// Returns what a worker has, if it can hibernate as things are: swap has room for it.
pub(super) async fn swappable(monitor: &Arc<dyn Monitor>) -> Option<Pageable> {
    let figures = pageable(monitor).await.zip(free_swap());
    let (memory, free) = figures?;
    let has_room = memory.anonymous as f64 <= free as f64 * (1.0 - RESERVE);
    if !has_room {
        let (bytes, free) = (size_in_words(memory.anonymous), size_in_words(free));
        tracing::info!("ends and does not hibernate: it has {bytes}, and {free} of swap are free");
    }
    has_room.then_some(memory)
}

/// Measures what hibernation moves of a worker.
pub(super) async fn pageable(monitor: &Arc<dyn Monitor>) -> Option<Pageable> {
    let monitor = monitor.clone();
    spawn_blocking(move || monitor.pageable()).await.ok().flatten()
}

/// Returns whether the memory of a worker went to swap.
pub(super) fn went_to_swap(before: Pageable, after: Pageable) -> bool {
    after.resident as f64 <= (before.resident + before.swapped) as f64 * MOST_KEPT
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use litplex_core::{BoxFuture, WorkerExit};
    use tokio::time::{Instant, sleep};

    use super::*;

    /// The time that the mock worker takes to wake, and to end.
    const TIME: Duration = Duration::from_secs(3);

    #[derive(Clone, Default)]
    struct Ends {
        hibernated: Arc<AtomicUsize>,
        stopped: Arc<AtomicUsize>,
        reported: Arc<AtomicUsize>,
    }

    impl Ends {
        fn counts(&self) -> [usize; 3] {
            [&self.hibernated, &self.stopped, &self.reported].map(|it| it.load(Ordering::Relaxed))
        }
    }

    struct MockWorker(Ends);

    impl Hibernated for MockWorker {
        fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
            Box::pin(pending())
        }

        fn wake(self: Box<Self>) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
            Box::pin(async move {
                sleep(TIME).await;
                Ok(self as _)
            })
        }

        fn end(self: Box<Self>, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                sleep(TIME).await;
                self.0.hibernated.fetch_add(1, Ordering::Relaxed);
            })
        }
    }

    impl Launched for MockWorker {
        fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
            Box::pin(pending())
        }

        fn stop(self: Box<Self>, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(async move {
                self.0.stopped.fetch_add(1, Ordering::Relaxed);
            })
        }
    }

    fn keep(workers: &HibernatedWorkers, slot: usize, ends: &Ends) {
        let reported = ends.reported.clone();
        let on_end = OnEnd::new(move || _ = reported.fetch_add(1, Ordering::Relaxed));
        workers.keep(slot, Box::new(MockWorker(ends.clone())), on_end);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_woken_once_and_one_that_is_woken_in_vain_is_killed() {
        let (workers, ends) = (HibernatedWorkers::default(), Ends::default());
        keep(&workers, 0, &ends);
        keep(&workers, 1, &ends);
        assert!(workers.has(0) && workers.has(1));
        assert!(workers.wake(0).await.unwrap().is_ok());
        assert!(!workers.has(0));
        assert!(workers.wake(0).await.is_none());
        let given_up = tokio::time::timeout(TIME / 2, workers.wake(1)).await;
        assert!(given_up.is_err());
        sleep(TIME).await;
        assert_eq!(ends.counts(), [0, 0, 1], "the launch reports the end of the other");
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_ends_all_at_once_and_those_that_come_later() {
        let (workers, ends) = (Arc::new(HibernatedWorkers::default()), Ends::default());
        let begin = Instant::now();
        keep(&workers, 0, &ends);
        workers.end(0, TIME);
        keep(&workers, 1, &ends);
        drop(workers.clone().close(TIME));
        keep(&workers, 2, &ends);
        assert!(!workers.has(2));
        workers.close(TIME).await;
        assert_eq!((ends.counts(), begin.elapsed()), ([3, 0, 3], TIME));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_generation_reports_those_that_it_kills() {
        let (workers, ends) = (HibernatedWorkers::default(), Ends::default());
        keep(&workers, 0, &ends);
        drop(workers);
        sleep(TIME).await;
        assert_eq!(ends.counts(), [0, 0, 1]);
    }

    #[test]
    fn what_was_in_swap_before_counts_as_moved() {
        let before = Pageable { resident: 8, anonymous: 8, swapped: 1000 };
        assert!(went_to_swap(before, Pageable { resident: 5, anonymous: 5, swapped: 1003 }));
        let before = Pageable { resident: 1000, anonymous: 900, swapped: 0 };
        assert!(!went_to_swap(before, Pageable { resident: 900, anonymous: 800, swapped: 100 }));
    }
}
