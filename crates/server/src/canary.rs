//! A generation on trial: a canary, which gets a share of the requests, or a shadow, which gets copies of a
//! share of them, until it is promoted or rolled back.

use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{ComparedAnswers, GenerationState};
use litplex_calls::{ShadowPlan, Target, Trial, TrialReport};
use litplex_core::{ShadowRoom, Shadows};
use litplex_supervisor::SlotState;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::comparison::{Comparison, Verdict};
use crate::controls::EndpointControls;
use crate::events::reason;
use crate::generation::Generation;
use crate::telemetry::Telemetry;

/// The time between two looks at what became of the requests.
const LOOK: Duration = Duration::from_millis(100);

/// The least time that a canary is on trial.
const LEAST_TIME: Duration = Duration::from_secs(5);

/// The reports that may wait for a look; further ones are not counted.
const WAITING: usize = 4096;

/// The least time between two publications of the counts of answers.
const PUBLICATION: Duration = Duration::from_secs(1);

/// A share of the requests, from 0 to 1, for a generation on trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TrialShare {
    /// The requests that a canary computes in place of the live generation.
    Canary(f64),
    /// The requests that a shadow computes, too.
    Shadow {
        share: f64,
        /// Whether the effects of requests may happen twice.
        allows_effects: bool,
    },
}

impl TrialShare {
    /// Returns the share.
    pub(crate) fn share(self) -> f64 {
        match self {
            Self::Canary(share) | Self::Shadow { share, .. } => share,
        }
    }

    /// Returns the state of a generation that has this share.
    pub(crate) fn state(self) -> GenerationState {
        match self {
            Self::Canary(_) => GenerationState::Canary,
            Self::Shadow { .. } => GenerationState::Shadow,
        }
    }
}

/// A generation on trial, beside the live one.
pub(crate) struct Canary {
    pub(crate) generation: Generation,
    pub(crate) share: TrialShare,
    /// The target of the live generation without the trial, to which the registry returns.
    pub(crate) live: Arc<Target>,
    pub(crate) began: Instant,
    looks: Interval,
    reports: mpsc::Receiver<TrialReport>,
    comparison: Comparison,
    /// The copies of requests, if it is a shadow.
    copies: Option<Arc<Shadows>>,
    /// The counts of answers that were published last, and when.
    published: (ComparedAnswers, Instant),
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
    /// None yet; there are other counts of answers.
    Counted,
}

impl Canary {
    /// Returns a generation on trial, and the target of the live generation that sends it its share.
    pub(crate) fn new(
        generation: Generation,
        share: TrialShare,
        live: &Arc<Target>,
        live_controls: &EndpointControls,
    ) -> (Self, Target) {
        let (sender, reports) = mpsc::channel(WAITING);
        let tried = generation.target(Some(live));
        let (trial, copies) = match share {
            TrialShare::Canary(share) => {
                let trial = Trial::Canary {
                    live: live.clone(),
                    is_idempotent: generation.controls.spec.config.idempotent,
                    reports: sender.clone(),
                };
                let canary = Arc::new(Target { trial: Some(trial), ..tried });
                (Trial::Live { canary, share, reports: sender }, None)
            }
            TrialShare::Shadow { share, .. } => {
                // Metrics of its own: the copies are no client's.
                generation.set_shadow(true);
                let metrics = Telemetry::new().metrics.edge(None);
                let trial = Some(Trial::Shadow { reports: sender.clone() });
                let shadow = Arc::new(Target { trial, metrics, ..tried });
                let (copies, room) = (Arc::new(Shadows::default()), ShadowRoom::default());
                let plan = ShadowPlan {
                    shadow: shadow.clone(),
                    share,
                    copies: copies.clone(),
                    room,
                    reports: sender.clone(),
                };
                let trial = Trial::Shadowed { shadow, copies: Arc::new(plan), reports: sender };
                (trial, Some(copies))
            }
        };
        let target = Target { trial: Some(trial), ..(**live).clone() };
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let canary = Self {
            lost_before: [lost(live_controls), lost(&generation.controls)],
            generation,
            share,
            live: live.clone(),
            began,
            looks,
            reports,
            comparison: Comparison::default(),
            copies,
            published: (ComparedAnswers::default(), began),
        };
        (canary, target)
    }

    /// Returns the counts of answers that were compared, if it is a shadow.
    pub(crate) fn answers(&self) -> Option<ComparedAnswers> {
        self.copies.as_ref().map(|_| self.comparison.answers())
    }

    /// Ends the trial, and the copies that are computed. Returns the generation, and the target of the live one.
    pub(crate) fn end(self) -> (Generation, Arc<Target>) {
        self.copies.iter().for_each(|copies| copies.end());
        (self.generation, self.live)
    }

    /// Waits for a decision. A drop of the future loses nothing.
    pub(crate) async fn decided(&mut self, live: &EndpointControls) -> Decision {
        loop {
            self.looks.tick().await;
            while let Ok(report) = self.reports.try_recv() {
                match report {
                    TrialReport::Job(tried) => self.comparison.add(tried),
                    TrialReport::Answer { differs } => self.comparison.add_answer(differs),
                }
            }
            if let Some(reason) = self.lost_workers(live) {
                return Decision::Stop(reason);
            }
            match self.comparison.verdict() {
                Verdict::RollBack(reason) => return Decision::RollBack(reason),
                Verdict::Promote if self.began.elapsed() >= LEAST_TIME => return Decision::Promote,
                Verdict::Promote | Verdict::Open => {}
            }
            let (answers, now) = (self.comparison.answers(), Instant::now());
            let (published, at) = self.published;
            if answers != published && now - at >= PUBLICATION {
                self.published = (answers, now);
                return Decision::Counted;
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
