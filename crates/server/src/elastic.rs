//! Applies the autoscaler to an endpoint: load in, number of workers out. The load also says what its workers are
//! worth in memory.

use std::sync::Arc;
use std::time::Duration;

use litplex_calls::WatchedQueue;
use litplex_residency::Usage;
use litplex_scheduler::{Endpoint, EndpointLoad};
use litplex_supervisor::{Autoscaler, Demand, Readiness, Scaling, View, Wanted};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::residency::{Load, Member};
use crate::size::Size;

/// The time between two polls of the load. A job that wakes an endpoint waits half of it on average.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// An endpoint whose number of workers follows the load.
pub(crate) struct Followed {
    pub(crate) endpoint: Endpoint,
    pub(crate) view: View,
    pub(crate) wanted: Wanted,
    pub(crate) watched: WatchedQueue,
    pub(crate) memory: Arc<Member>,
    /// Whether its workers are processes.
    pub(crate) is_process: bool,
}

/// Sets the number of workers from the load, within a size that an operator may change, until the supervisor
/// has stopped. The workers of the slots that `leaving` names, and of those above them, stop.
pub(crate) async fn follow_load(
    mut followed: Followed,
    mut size: watch::Receiver<Size>,
    mut leaving: mpsc::UnboundedReceiver<usize>,
) {
    let Size { limits, workers, .. } = *size.borrow_and_update();
    let scaling = Scaling { idle: size.borrow().idle(), ..Scaling::default() };
    let mut scaler = Autoscaler::new(limits, scaling, Instant::now());
    scaler.set(limits, workers, size.borrow().idle());
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported = Reported::default();
    // An endpoint that is not asleep begins with the workers that it was given: they show that it can start.
    let mut begins = workers == 0;
    while !followed.view.is_over() {
        let is_fixed = size.borrow().limits.is_fixed();
        tokio::select! {
            _ = followed.view.changed(), if is_fixed => {}
            _ = polls.tick(), if !is_fixed => {}
            Ok(()) = size.changed() => size.mark_changed(),
            Some(slot) = leaving.recv() => {
                // Those of a number that an operator has fixed meanwhile stay.
                if !size.borrow().limits.is_fixed() {
                    // Requests that were answered since the last poll do not wake it again.
                    followed.observe(&mut scaler).await;
                    scaler.lower(slot);
                    followed.wanted.set(followed.view.wanted().min(slot));
                }
            }
        }
        begins |= followed.view.readiness() == Readiness::Ready;
        if size.has_changed().unwrap_or(false) {
            followed.observe(&mut scaler).await;
            let size = *size.borrow_and_update();
            scaler.set(size.limits, size.workers, size.idle());
            let settings = size.settings(followed.is_process, followed.memory.gpus());
            followed.memory.set(settings);
            followed.wanted.set(scaler.wanted());
            begins = true;
        }
        if size.borrow().limits.is_fixed() {
            continue;
        }
        let load = followed.endpoint.load().await;
        if let Some(load) = reported.changed(&load) {
            followed.memory.load(load);
        }
        if begins {
            followed.scale(&mut scaler, &load, *size.borrow());
        }
    }
}

impl Followed {
    /// Lets the autoscaler see the jobs that have come so far.
    async fn observe(&self, scaler: &mut Autoscaler) {
        let load = self.endpoint.load().await;
        scaler.decide(&demand(&load, &self.view, 0), Instant::now());
    }

    /// Sets the number of workers that the load asks for.
    fn scale(&self, scaler: &mut Autoscaler, load: &EndpointLoad, size: Size) {
        let before = scaler.wanted();
        let demand = demand(load, &self.view, self.watched.stuck_workers());
        scaler.decide(&demand, Instant::now());
        // While no worker can start, more of them do not help.
        if matches!(self.view.readiness(), Readiness::Down { .. }) {
            scaler.lower(before);
        }
        let workers = scaler.wanted();
        log_sleep(before, workers, size);
        self.wanted.set(workers);
    }
}

fn log_sleep(before: usize, workers: usize, size: Size) {
    match (before, workers) {
        (1.., 0) => {
            let keep_alive = size.residency.keep_alive;
            tracing::info!("asleep after {keep_alive} without a request");
        }
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

/// The load that was reported last.
#[derive(Default)]
struct Reported {
    arrived: u64,
    last: Option<(usize, Usage)>,
}

impl Reported {
    /// Returns the load since the last report, if it has changed.
    fn changed(&mut self, load: &EndpointLoad) -> Option<Load> {
        let arrivals =
            load.arrived.saturating_sub(std::mem::replace(&mut self.arrived, load.arrived));
        let is_idle = load.queued == 0 && load.in_flight == 0;
        let usage = if is_idle { Usage::Idle } else { Usage::Busy };
        let now = (load.queued, usage);
        let has_changed = self.last.replace(now) != Some(now) || arrivals > 0;
        has_changed.then_some(Load { arrivals, queued: load.queued, usage })
    }
}
