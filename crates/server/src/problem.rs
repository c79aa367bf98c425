//! The reasons for which an endpoint cannot serve now, or lacks a worker.

use litplex_core::WorkerExit;
use litplex_supervisor::{Health, Readiness, SlotState, View, health};
use litplex_workers::UnhealthyCount;

/// Returns why an endpoint cannot serve now, in the words that clients may see.
pub(crate) fn problem_for_clients(view: &View) -> Option<String> {
    problem(view, |gone| gone.for_clients().to_owned())
}

/// Returns why an endpoint cannot serve now, in full, for operators.
pub(crate) fn problem_in_full(view: &View, unwell: &UnhealthyCount) -> Option<String> {
    problem(view, |gone| gone.reason).or_else(|| unhealthy(unwell))
}

fn problem(view: &View, say: impl Fn(WorkerExit) -> String) -> Option<String> {
    match view.readiness() {
        Readiness::Ready | Readiness::Asleep { .. } => None,
        Readiness::Coming { .. } => {
            Some(degraded(&view.states(), say).unwrap_or_else(|| "starting".into()))
        }
        Readiness::Down { gone, .. } => Some(say(gone)),
    }
}

/// Describes the unhealthy workers, if any.
pub(crate) fn unhealthy(unwell: &UnhealthyCount) -> Option<String> {
    match unwell.count() {
        0 => None,
        1 => Some("`health` of a worker is false".into()),
        count => Some(format!("`health` of {count} workers is false")),
    }
}

/// Returns why a worker is missing, if one is.
pub(crate) fn degraded(states: &[SlotState], say: impl Fn(WorkerExit) -> String) -> Option<String> {
    match health(states) {
        Health::Ready | Health::Starting => None,
        Health::Degraded(gone) => Some(say(gone)),
    }
}
