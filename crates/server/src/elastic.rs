//! Applies the autoscaler to an endpoint: load in, number of workers out.

use std::time::Duration;

use litplex_calls::WatchedQueue;
use litplex_scheduler::{Endpoint, EndpointLoad};
use litplex_supervisor::{Autoscaler, Demand, Limits, Readiness, Scaling, View, Wanted};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The time between two polls of the load. A job that wakes an endpoint waits half of it on average.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Sets the number of workers from the load, until the supervisor has stopped.
pub(crate) async fn follow_load(
    endpoint: Endpoint,
    view: View,
    wanted: Wanted,
    mut limits: watch::Receiver<Limits>,
    watched: WatchedQueue,
) {
    let now = Instant::now();
    let mut scaler = Autoscaler::new(*limits.borrow_and_update(), Scaling::default(), now);
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_ready = false;
    while !view.is_over() {
        polls.tick().await;
        was_ready |= view.readiness() == Readiness::Ready;
        if limits.has_changed().unwrap_or(false) {
            scaler.set_limits(*limits.borrow_and_update());
        }
        // The first worker starts whatever the load is, to show that it can. While no worker can
        // start, more of them do not help.
        let is_down = matches!(view.readiness(), Readiness::Down { .. });
        if was_ready && !is_down {
            let demand = demand(&endpoint.load().await, &view, watched.stuck_workers());
            wanted.set(scaler.decide(&demand, Instant::now()));
        }
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
