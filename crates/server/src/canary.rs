//! A canary: a new generation that gets a share of the requests until it is promoted or rolled back.

use std::sync::Arc;
use std::time::Duration;

use litplex_calls::{Target, Trial, Tried};
use litplex_supervisor::SlotState;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::comparison::{Comparison, Verdict};
use crate::controls::EndpointControls;
use crate::events::reason;
use crate::generation::Generation;

/// The time between two looks at what became of the requests.
const LOOK: Duration = Duration::from_millis(100);

/// The least time that a canary is on trial.
const LEAST_TIME: Duration = Duration::from_secs(5);

/// The outcomes that may wait for a look; further ones are not counted.
const WAITING: usize = 4096;

/// A canary, beside the live generation.
pub(crate) struct Canary {
    pub(crate) generation: Generation,
    /// The target of the live generation without the trial, to which the registry returns.
    pub(crate) live: Arc<Target>,
    pub(crate) began: Instant,
    looks: Interval,
    tried: mpsc::Receiver<Tried>,
    comparison: Comparison,
    /// The workers that the live generation and the canary had lost when the trial began.
    lost_before: [u64; 2],
}

/// The decision about a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The canary is no worse than the live generation.
    Promote,
    /// The canary is worse, and finishes its requests.
    RollBack(String),
    /// Its workers end. They get no time to finish, because the live generation answers in their place.
    Stop(String),
}

impl Canary {
    /// Returns a canary, and the target of the live generation that sends it its share.
    pub(crate) fn new(
        generation: Generation,
        share: f64,
        live: &Arc<Target>,
        live_controls: &EndpointControls,
    ) -> (Self, Target) {
        let (sender, tried) = mpsc::channel(WAITING);
        let trial = Trial::Canary {
            live: live.clone(),
            is_idempotent: generation.controls.spec.config.idempotent,
            tried: sender.clone(),
        };
        let canary = Target { trial: Some(trial), ..generation.target(Some(live)) };
        let trial = Trial::Live { canary: Arc::new(canary), share, tried: sender };
        let target = Target { trial: Some(trial), ..(**live).clone() };
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let canary = Self {
            lost_before: [lost(live_controls), lost(&generation.controls)],
            generation,
            live: live.clone(),
            began: Instant::now(),
            looks,
            tried,
            comparison: Comparison::default(),
        };
        (canary, target)
    }

    /// Waits for a decision. A drop of the future loses nothing.
    pub(crate) async fn decided(&mut self, live: &EndpointControls) -> Decision {
        loop {
            self.looks.tick().await;
            while let Ok(tried) = self.tried.try_recv() {
                self.comparison.add(tried);
            }
            if let Some(reason) = self.lost_workers(live) {
                return Decision::Stop(reason);
            }
            match self.comparison.verdict() {
                Verdict::RollBack(reason) => return Decision::RollBack(reason),
                Verdict::Promote if self.began.elapsed() >= LEAST_TIME => return Decision::Promote,
                Verdict::Promote | Verdict::Open => {}
            }
        }
    }

    /// Returns why the canary cannot go on: it has lost its only ready worker, or several, and more than the
    /// live generation in the same time.
    fn lost_workers(&self, live: &EndpointControls) -> Option<String> {
        let controls = &self.generation.controls;
        let [there, here] = self.lost_before;
        let lost_here = lost(controls).saturating_sub(here);
        let lost_there = lost(live).saturating_sub(there);
        if lost_here <= lost_there {
            return None;
        }
        let states = controls.view.states();
        let has_ready = states.iter().any(|state| matches!(state, SlotState::Ready(_)));
        let why = states.iter().find_map(reason).unwrap_or("its workers end");
        (lost_here > 1 || !has_ready).then(|| format!("it lost a worker: {why}"))
    }
}

/// Returns the number of workers that a generation has lost, with those that were not replaced.
fn lost(controls: &EndpointControls) -> u64 {
    let replaced: u64 = controls.view.record().restarts.iter().sum();
    let states = controls.view.states();
    let missing = states
        .iter()
        .filter(|state| matches!(state, SlotState::BackingOff { .. } | SlotState::Failed(_)));
    replaced + missing.count() as u64
}

/// Returns how the descriptions of two models differ, in words, if clients or the edge would notice.
pub(crate) fn differences(before: &Generation, after: &Generation) -> Option<String> {
    let (before, after) = (&before.controls, &after.controls);
    let (old, new) = (before.endpoint.model_info()?, after.endpoint.model_info()?);
    let part = |controls: &EndpointControls, info: &litplex_core::ModelInfo, name: &str| {
        controls.spec.schema.over(&info.schema).get(name).cloned().unwrap_or_default()
    };
    let differs = |name: &str| part(before, old, name) != part(after, new, name);
    let mut found = Vec::new();
    if old.dialect != new.dialect {
        found.push("the protocol of its clients");
    }
    if old.stream != new.stream {
        found.push("whether its responses are streams");
    }
    if differs("request") || differs("schemas") {
        found.push("the schema of requests");
    }
    if differs("response") || differs("response_schemas") {
        found.push("the schema of responses");
    }
    (!found.is_empty()).then(|| found.join(", "))
}
