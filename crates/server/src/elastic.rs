//! Keeps the number of an endpoint's workers what its load asks for.

use std::time::Duration;

use litplex_scheduler::{Endpoint, EndpointLoad};
use litplex_supervisor::{Autoscaler, Demand, Limits, Outlook, Scaling, View, Wanted};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the load is looked at: a job that wakes an endpoint waits for half of this on average.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Follows the load of an endpoint until its supervisor is gone. `limits` may change meanwhile.
pub(crate) async fn follow_load(
    endpoint: Endpoint,
    view: View,
    wanted: Wanted,
    mut limits: watch::Receiver<Limits>,
) {
    let now = Instant::now();
    let mut scaler = Autoscaler::new(*limits.borrow_and_update(), Scaling::default(), now);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_ready = false;
    while !view.is_over() {
        looks.tick().await;
        was_ready |= view.outlook() == Outlook::Ready;
        if limits.has_changed().unwrap_or(false) {
            scaler.set_limits(*limits.borrow_and_update());
        }
        // The first worker is started whatever the load, to see that it can be; and while none
        // can be started, more of them are of no use.
        let is_down = matches!(view.outlook(), Outlook::Down { .. });
        if was_ready && !is_down {
            let demand = demand(&endpoint.load().await, &view);
            wanted.set(scaler.decide(&demand, Instant::now()));
        }
    }
}

fn demand(load: &EndpointLoad, view: &View) -> Demand {
    Demand {
        arrivals: load.arrived,
        queued: load.queued,
        in_flight: load.in_flight,
        per_worker: load.worker_rate,
        start_time: view.record().start_time,
    }
}
