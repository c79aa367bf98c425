//! Follows the slots of an endpoint: logs their states, and sets the outlook of its queue.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Cause, LaunchError, WorkerExit};
use litplex_scheduler::Outlook;
use litplex_supervisor::{Readiness, SlotState, View};
use litplex_workers::worker_span;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::controls::EndpointControls;
use crate::events::Events;
use crate::{Error, app_host};

/// Jobs wait for a worker that is expected within this time even if earlier ones failed.
const BRIEFLY_DOWN: Duration = Duration::from_secs(1);

/// A step of the start that the server waits for.
pub(crate) enum Milestone {
    /// All workers with which an endpoint started are ready, or the app host is.
    Ready,
    /// A model or the app cannot be loaded.
    Failed(Error),
}

/// Follows the slots of an endpoint until its supervisor has stopped. While `held` is true, the outlook of the
/// queue stays as it is.
pub(crate) async fn follow(
    controls: Arc<EndpointControls>,
    mut held: Option<watch::Receiver<bool>>,
    events: Events,
    milestones: mpsc::UnboundedSender<Milestone>,
) {
    let path = controls.label().to_owned();
    let (endpoint, mut view) = (controls.endpoint.clone(), controls.view.clone());
    let failed = |cause| Error::Launch { endpoint: path.clone(), cause };
    let mut seen = Seen::new(events);
    loop {
        seen.report(&path, view.states(), failed, &milestones);
        if !held.as_ref().is_some_and(|held| *held.borrow()) {
            endpoint.set_outlook(if view.is_over() {
                stopping()
            } else {
                outlook(&view.readiness(), Instant::now())
            });
        }
        let goes_on = tokio::select! {
            changed = view.changed() => changed,
            () = changed(held.as_mut()) => true,
        };
        if !goes_on {
            return;
        }
    }
}

/// Follows the app host until its supervisor has stopped.
pub(crate) async fn follow_app_host(
    mut view: View,
    events: Events,
    milestones: mpsc::UnboundedSender<Milestone>,
) {
    let mut seen = Seen::new(events);
    loop {
        seen.report(app_host::NAME, view.states(), Error::AppHost, &milestones);
        if !view.changed().await {
            return;
        }
    }
}

/// The last known states of some slots.
struct Seen {
    events: Events,
    states: Vec<SlotState>,
    were_ready: bool,
}

impl Seen {
    fn new(events: Events) -> Self {
        Self { events, states: Vec::new(), were_ready: false }
    }

    /// Logs each new state, and reports once that all slots are ready.
    fn report(
        &mut self,
        name: &str,
        now: Vec<SlotState>,
        failed: impl Fn(LaunchError) -> Error,
        milestones: &mpsc::UnboundedSender<Milestone>,
    ) {
        let is_new = |(slot, state): &(usize, &SlotState)| self.states.get(*slot) != Some(*state);
        for (slot, state) in now.iter().enumerate().filter(is_new) {
            let endpoint = (name != app_host::NAME).then_some(name);
            worker_span(endpoint, &format!("{name}#{slot}")).in_scope(|| log_state(state));
            self.events.worker(name, slot, state);
        }
        if let Some(cause) = failure(&now) {
            let _ = milestones.send(Milestone::Failed(failed(cause.clone())));
        }
        if are_ready(&now) && !std::mem::replace(&mut self.were_ready, true) {
            let _ = milestones.send(Milestone::Ready);
        }
        self.states = now;
    }
}

/// Returns why a first launch failed, if one did; the server then ends.
fn failure(states: &[SlotState]) -> Option<&LaunchError> {
    states.iter().find_map(|state| match state {
        SlotState::Failed(cause) => Some(cause),
        _ => None,
    })
}

fn are_ready(states: &[SlotState]) -> bool {
    !states.is_empty() && states.iter().all(|state| matches!(state, SlotState::Ready(_)))
}

/// Returns the outlook of a queue whose workers stop.
pub(crate) fn stopping() -> Outlook {
    Outlook::Down { reason: "the server is stopping".into(), retry_after: BRIEFLY_DOWN }
}

/// Resolves when a value changes; never if there is none, or if it can no longer change.
async fn changed<T>(value: Option<&mut watch::Receiver<T>>) {
    if let Some(value) = value
        && value.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Returns the outlook of jobs, given the readiness of the endpoint.
fn outlook(readiness: &Readiness, now: Instant) -> Outlook {
    let within = readiness.wait(now);
    match readiness {
        // Without room the requests are told at once how much is missing.
        Readiness::Down { gone, .. }
            if gone.cause == Cause::NoRoom || within.is_none_or(|within| within > BRIEFLY_DOWN) =>
        {
            let (reason, retry_after) = (gone.for_clients().into(), within.unwrap_or(BRIEFLY_DOWN));
            Outlook::Down { reason, retry_after }
        }
        _ => {
            let is_asleep = matches!(readiness, Readiness::Asleep { .. });
            Outlook::Coming { within, is_asleep }
        }
    }
}

/// Logs the state of a slot, in the span of its worker.
fn log_state(state: &SlotState) {
    match state {
        SlotState::Ready(after) => {
            let seconds = after.as_secs_f64();
            tracing::info!("ready after {seconds:.2} s");
        }
        SlotState::BackingOff { gone: gone @ WorkerExit { cause: Cause::NoRoom, .. }, .. } => {
            tracing::warn!("not loaded: {gone}");
        }
        SlotState::Starting { after: Some(WorkerExit { cause: Cause::NoRoom, .. }), .. } => {}
        SlotState::Starting { after: Some(gone), .. } => {
            tracing::warn!("gone: {gone}; another is starting");
        }
        SlotState::BackingOff { gone, traceback, until } => {
            let wait = until.saturating_duration_since(Instant::now()).as_secs_f64();
            let traceback =
                traceback.as_ref().map(|text| format!("\n\n{text}")).unwrap_or_default();
            tracing::error!("gone: {gone}; another starts in {wait:.1} s{traceback}");
        }
        // A failure ends the server, which then says why.
        SlotState::Starting { after: None, .. } | SlotState::Failed(_) => {}
        SlotState::Draining => tracing::debug!("draining"),
        SlotState::Stopped => tracing::debug!("stopped"),
    }
}
