//! The workers of a generation that hibernate, each kept until its slot wakes it or it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use litplex_core::{Hibernated, LaunchError, Launched, size_in_words};
use litplex_devices::{free_memory, free_swap};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::measure::Movable;

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

/// Returns why a worker with this memory cannot hibernate as things are; `None` if it can.
pub(super) fn obstacle(worker: &Movable) -> Option<String> {
    let room = Room { swap: free_swap().unwrap_or(0), memory: free_memory().unwrap_or(u64::MAX) };
    room.is_too_small_for(worker)
}

/// The room on the host.
struct Room {
    swap: u64,
    memory: u64,
}

impl Room {
    fn is_too_small_for(&self, worker: &Movable) -> Option<String> {
        let Some(on_gpu) = worker.on_gpu else {
            return Some("the driver does not tell what it has on the GPU".into());
        };
        let moved = worker.host.anonymous + on_gpu;
        let [moved_in_words, swap, memory] = [moved, self.swap, self.memory].map(size_in_words);
        if moved as f64 > self.swap as f64 * (1.0 - RESERVE) {
            return Some(format!("it has {moved_in_words}, and {swap} of swap are free"));
        }
        // The driver moves it to memory of the host first.
        (on_gpu > self.memory).then(|| {
            let on_gpu = size_in_words(on_gpu);
            format!("it has {on_gpu} on the GPU, and {memory} of the host are free")
        })
    }
}

/// Returns whether the memory of a worker went to swap, and that of a GPU with it.
pub(super) fn went_to_swap(before: &Movable, after: &Movable) -> bool {
    let is_small = |rest: u64, all: u64| rest as f64 <= all as f64 * MOST_KEPT;
    let on_host = before.host.resident + before.host.swapped;
    // The driver does not name a process that has nothing there.
    let [on_gpu, left_there] = [before, after].map(|it| it.on_gpu.unwrap_or(0));
    is_small(after.host.resident, on_host) && is_small(left_there, on_gpu)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use litplex_core::{BoxFuture, Pageable, WorkerExit};
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

    const GB: u64 = 1 << 30;

    fn movable(host: u64, on_gpu: u64) -> Movable {
        let host = Pageable { resident: host, anonymous: host, swapped: 0 };
        Movable { host, on_gpu: Some(on_gpu) }
    }

    #[test]
    fn a_worker_hibernates_if_swap_has_room_for_it_and_the_host_for_what_is_on_the_gpu() {
        let room = Room { swap: 10 * GB, memory: 4 * GB };
        assert_eq!(room.is_too_small_for(&movable(5 * GB, 4 * GB)), None);
        let says = "it has 10.7 GB, and 10.7 GB of swap are free";
        assert_eq!(room.is_too_small_for(&movable(6 * GB, 4 * GB)).as_deref(), Some(says));
        let says = "it has 5.4 GB on the GPU, and 4.3 GB of the host are free";
        assert_eq!(room.is_too_small_for(&movable(GB, 5 * GB)).as_deref(), Some(says));
        let unknown = Movable { on_gpu: None, ..movable(GB, 0) };
        assert!(room.is_too_small_for(&unknown).is_some());
    }

    #[test]
    fn a_worker_that_keeps_its_memory_of_the_host_or_the_gpu_did_not_go_to_swap() {
        let before = movable(GB, 8 * GB);
        assert!(went_to_swap(&before, &movable(GB / 2, 0)));
        assert!(went_to_swap(&before, &Movable { on_gpu: None, ..movable(GB / 2, 0) }));
        assert!(!went_to_swap(&before, &movable(2 * GB, 0)), "what was on the GPU is on the host");
        assert!(!went_to_swap(&before, &movable(0, 8 * GB)), "the driver gave nothing back");
        assert!(!went_to_swap(&movable(GB, 0), &movable(GB, 0)));
        let mut half_there = movable(8, 0);
        half_there.host.swapped = 1000;
        assert!(
            went_to_swap(&half_there, &movable(5, 0)),
            "what was in swap before counts as moved"
        );
    }
}
