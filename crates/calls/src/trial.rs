//! The trial of a new generation: which requests it gets, what became of them, and which of them the live
//! generation answers in its place.
//!
//! While a canary is on trial, the registry has a target of the live generation that knows the canary's, and
//! a share of the requests is for the latter. Both report the outcome of each job to the owner of the trial,
//! who compares them. A job that fails on the canary is computed by the live generation where that is safe.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Answer, ErrorCause, Outcome, ServeError, SpanContext, Trace};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Target;

/// The generation that a job was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The live one.
    Live,
    /// The one on trial.
    Canary,
}

/// The outcome of a job on trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tried {
    /// The generation.
    pub side: Side,
    /// Whether it failed: with a status of 500 or more, or because its time was over.
    pub has_failed: bool,
    /// The time that its worker took: its stages, or for a stream the time to its first items.
    pub took: Duration,
}

/// The sender of outcomes. Those that its receiver has no room for are dropped.
pub type TriedSender = mpsc::Sender<Tried>;

/// The part of a target in a trial.
#[derive(Debug, Clone)]
pub enum Trial {
    /// The part of the live target: a share of its requests is for the canary.
    Live {
        /// The target of the canary.
        canary: Arc<Target>,
        /// The share, from 0 to 1.
        share: f64,
        /// Takes the outcomes.
        tried: TriedSender,
    },
    /// The part of the target that is on trial.
    Canary {
        /// The live target, which is no part of the trial: the jobs that it computes in place of the canary
        /// are not its own.
        live: Arc<Target>,
        /// Whether a request may be computed again; `None`: unless its response is a stream.
        is_idempotent: Option<bool>,
        /// Takes the outcomes.
        tried: TriedSender,
    },
}

impl Trial {
    /// Returns the target that a request is for; `draw`, from 0 to 1, is that of its root.
    pub(crate) fn choose(&self, draw: f64) -> Option<Arc<Target>> {
        match self {
            Self::Live { canary, share, .. } if draw < *share => Some(canary.clone()),
            Self::Live { .. } | Self::Canary { .. } => None,
        }
    }

    /// Begins to observe a job, which may take until `deadline`.
    pub(crate) fn observe(&self, deadline: Instant) -> ObservedJob {
        let (side, tried) = match self {
            Self::Live { tried, .. } => (Side::Live, tried),
            Self::Canary { tried, .. } => (Side::Canary, tried),
        };
        let (began, tried) = (Instant::now(), Some(tried.clone()));
        ObservedJob { side, began, deadline, answered: None, tried }
    }

    /// Returns the target that computes a job again which has failed on the canary, if it may.
    pub(crate) fn replacement(&self, answer: &Outcome<Answer>) -> Option<&Arc<Target>> {
        let Self::Canary { live, is_idempotent, .. } = self else { return None };
        let may_repeat = match answer {
            // It was refused before it was computed.
            Err(error) if matches!(error.cause, ErrorCause::Overloaded | ErrorCause::NotReady) => {
                true
            }
            _ => {
                let is_stream = live.model_info().is_some_and(|info| info.stream);
                is_idempotent.unwrap_or(!is_stream)
            }
        };
        (has_failed(answer) && may_repeat).then_some(live)
    }
}

/// Returns whether an answer says that the model, or its worker, failed.
pub(crate) fn has_failed(answer: &Outcome<Answer>) -> bool {
    match answer {
        Ok(Answer::Whole(response)) => response.status >= 500,
        Ok(Answer::Stream(..)) => false,
        Err(error) => is_failure(error),
    }
}

/// Returns whether the model, or its worker, is the reason of an error.
pub(crate) fn is_failure(error: &ServeError) -> bool {
    // Calls that wait for each other do so on any generation.
    error.status() >= 500 && error.cause != ErrorCause::Deadlock
}

/// Returns a trace for a job whose request is not traced. The time in the queue says nothing about a generation,
/// because the canary has another share of the requests: the trace tells it from that in the worker.
pub(crate) fn untold_trace() -> Arc<Trace> {
    let random = || RandomState::new().hash_one(0);
    let trace_id = u128::from(random()) << 64 | u128::from(random());
    let context = SpanContext { trace_id, span_id: random(), is_sampled: false };
    Arc::new(Trace::new(context, 0))
}

/// A job whose outcome is reported. One that is dropped without an answer counts as failed if its time was
/// over; otherwise its caller has left, and it does not count.
#[derive(Debug)]
pub(crate) struct ObservedJob {
    side: Side,
    began: Instant,
    deadline: Instant,
    /// The time to the first items of its stream.
    answered: Option<Duration>,
    tried: Option<TriedSender>,
}

impl ObservedJob {
    /// Notes an answer, which ends the job unless it is a stream, and how long it was computed.
    pub(crate) fn note(
        mut self: Box<Self>,
        answer: &Outcome<Answer>,
        took: Option<Duration>,
    ) -> Option<Box<Self>> {
        self.answered = Some(took.unwrap_or_else(|| self.began.elapsed()));
        if matches!(answer, Ok(Answer::Stream(..))) {
            return Some(self);
        }
        self.end(has_failed(answer));
        None
    }

    /// Reports the outcome.
    pub(crate) fn end(&mut self, has_failed: bool) {
        if let Some(tried) = self.tried.take() {
            let took = self.answered.unwrap_or_else(|| self.began.elapsed());
            // A trial that has ended, or has enough to look at.
            let _ = tried.try_send(Tried { side: self.side, has_failed, took });
        }
    }

    /// Forgets the job: its failure has nothing to do with its generation.
    pub(crate) fn forget(&mut self) {
        self.tried = None;
    }
}

impl Drop for ObservedJob {
    fn drop(&mut self) {
        match self.answered {
            // The caller of a stream has left.
            Some(_) => self.end(false),
            None if Instant::now() >= self.deadline => self.end(true),
            None => {}
        }
    }
}
