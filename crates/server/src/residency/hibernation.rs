//! The workers of a generation that hibernate, each kept until its slot wakes it or it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use litplex_core::{Hibernated, Monitor, size_in_words};
use litplex_devices::free_swap;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
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
pub(crate) struct HibernatedWorkers(Mutex<BTreeMap<usize, oneshot::Sender<Order>>>);

/// An order to the task that keeps a worker.
enum Order {
    Wake(oneshot::Sender<Box<dyn Hibernated>>),
    End(Duration, oneshot::Sender<()>),
}

impl HibernatedWorkers {
    /// Keeps the worker of a slot.
    pub(super) fn keep(&self, slot: usize, worker: Box<dyn Hibernated>, on_end: OnEnd) {
        let (orders, order) = oneshot::channel();
        let kept = kept(slot, worker, on_end, order);
        tokio::spawn(kept.in_current_span());
        self.slots().insert(slot, orders);
    }

    /// Returns the worker of a slot, which the caller wakes; `None` if there is none.
    pub(super) async fn take(&self, slot: usize) -> Option<Box<dyn Hibernated>> {
        let orders = self.slots().remove(&slot)?;
        let (reply, worker) = oneshot::channel();
        orders.send(Order::Wake(reply)).ok()?;
        worker.await.ok()
    }

    /// Ends the worker of a slot, by force after `grace`.
    pub(super) fn end(&self, slot: usize, grace: Duration) {
        if let Some(orders) = self.slots().remove(&slot) {
            let _ = orders.send(Order::End(grace, oneshot::channel().0));
        }
    }

    /// Ends all, and resolves when they are gone.
    pub(super) async fn close(self: Arc<Self>, grace: Duration) {
        let all = std::mem::take(&mut *self.slots());
        let ended = all.into_values().filter_map(|orders| {
            let (done, ended) = oneshot::channel();
            orders.send(Order::End(grace, done)).ok().map(|()| ended)
        });
        for ended in Vec::from_iter(ended) {
            // One that has died meanwhile is gone, too.
            let _ = ended.await;
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, oneshot::Sender<Order>>> {
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
            Ok(Order::Wake(reply)) => {
                on_end.cancel();
                // If the launch was given up meanwhile, the worker is killed.
                let _ = reply.send(worker);
            }
            Ok(Order::End(grace, done)) => {
                worker.end(grace).await;
                drop(on_end);
                let _ = done.send(());
            }
            // The generation was dropped.
            Err(_) => {}
        },
    }
}

/// Returns the bytes that a worker has, if it can hibernate as things are: swap has room for it.
pub(super) async fn swappable(monitor: Option<Arc<dyn Monitor>>) -> Option<u64> {
    let monitor = monitor?;
    let figures = spawn_blocking(move || (monitor.footprint(), free_swap())).await;
    let (Some(bytes), free) = figures.ok()? else { return None };
    let free = free.unwrap_or(0);
    let has_room = bytes as f64 <= free as f64 * (1.0 - RESERVE);
    if !has_room {
        let (bytes, free) = (size_in_words(bytes), size_in_words(free));
        tracing::info!("ends and does not hibernate: it has {bytes}, and {free} of swap are free");
    }
    has_room.then_some(bytes)
}

/// Returns whether the memory of a worker went to swap, given the bytes before and after.
pub(super) fn is_in_swap(before: u64, after: u64) -> bool {
    after as f64 <= before as f64 * MOST_KEPT
}
