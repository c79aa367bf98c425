//! Applies the autoscaler to an endpoint: load in, number of workers out.

use std::time::Duration;

use litplex_calls::WatchedQueue;
use litplex_scheduler::{Endpoint, EndpointLoad};
use litplex_supervisor::{Autoscaler, Demand, Readiness, Scaling, View, Wanted};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::size::Size;

/// The time between two polls of the load. A job that wakes an endpoint waits half of it on average.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Sets the number of workers from the load, within a size that an operator may change, until the supervisor
/// has stopped.
pub(crate) async fn follow_load(
    endpoint: Endpoint,
    mut view: View,
    wanted: Wanted,
    mut size: watch::Receiver<Size>,
    watched: WatchedQueue,
) {
    let Size { limits, keep_alive, .. } = *size.borrow_and_update();
    let scaling = Scaling { idle: keep_alive, ..Scaling::default() };
    let mut scaler = Autoscaler::new(limits, scaling, Instant::now());
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut begins = false;
    while !view.is_over() {
        if size.borrow().limits.is_fixed() {
            tokio::select! {
                _ = view.changed() => {}
                Ok(()) = size.changed() => size.mark_changed(),
            }
        } else {
            polls.tick().await;
        }
        begins |= view.readiness() == Readiness::Ready;
        if size.has_changed().unwrap_or(false) {
            let Size { limits, workers, keep_alive } = *size.borrow_and_update();
            scaler.set(limits, workers, keep_alive);
            wanted.set(scaler.wanted());
            begins = true;
        }
        // The first worker starts whatever the load is, to show that it can. While no worker can
        // start, more of them do not help.
        let is_down = matches!(view.readiness(), Readiness::Down { .. });
        if begins && !is_down && !size.borrow().limits.is_fixed() {
            let demand = demand(&endpoint.load().await, &view, watched.stuck_workers());
            let before = scaler.wanted();
            let workers = scaler.decide(&demand, Instant::now());
            log_sleep(before, workers, size.borrow().keep_alive);
            wanted.set(workers);
        }
    }
}

fn log_sleep(before: usize, workers: usize, keep_alive: Duration) {
    match (before, workers) {
        (1.., 0) => tracing::info!("asleep after {keep_alive:?} without a request"),
        (0, 1..) => tracing::info!("wakes: a request waits"),
        _ => {}
    }
}

fn demand(load: &EndpointLoad, view: &View, stuck_workers: usize) -> Demand {
    Demand {
        arrivals: load.arrived,
        queued: load.queued,
        in_flight: load.in_flight,
        per_worker: load.worker_rate,
        start_time: view.record().start_time,
        stuck_workers,
    }
}
