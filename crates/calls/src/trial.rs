//! The trial of a new generation: which requests it gets, what became of them, and which of them the live
//! generation answers in its place.
//!
//! While a generation is on trial, the registry has a target of the live generation that knows the other one.
//! A share of the requests is for a *canary*; a job that fails on it is computed by the live generation where
//! that is safe. A *shadow* gets a copy of a share of the requests (`shadow.rs`), and the live generation
//! answers every request. Both generations report the outcome of each job to the owner of the trial, who
//! compares them.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use litplex_core::{
    Answer, ErrorCause, Origin, Outcome, Request, Response, Root, ServeError, SpanContext, Trace,
    draw,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::Target;

/// The generation that a job was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The live one.
    Live,
    /// The one on trial, a canary or a shadow.
    Tried,
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

/// A report to the owner of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrialReport {
    /// The outcome of a job.
    Job(Tried),
    /// Whether the shadow's answer to a request differs from that of the live generation.
    Answer {
        /// Whether its status or its bytes are others.
        differs: bool,
    },
}

/// The sender of reports. Those that its receiver has no room for are dropped.
pub type ReportSender = mpsc::Sender<TrialReport>;

/// A maker of copies of requests for a shadow.
pub trait CopyRequests: fmt::Debug + Send + Sync {
    /// Copies a request of the live generation, if it is in the share and there is room. Returns the sender for
    /// the answer of the live generation; its drop, when the client leaves, ends the copy.
    fn copy(
        &self,
        origin: Option<&Origin>,
        request: &Request,
        cost: f64,
    ) -> Option<oneshot::Sender<Compared>>;
}

/// The part of an answer that is compared: the status and the bytes. `None` for streams and failures.
#[derive(Debug)]
pub struct Compared(pub(crate) Option<(u16, Bytes)>);

impl Compared {
    pub(crate) fn answer(answer: &Outcome<Answer>) -> Self {
        match answer {
            Ok(Answer::Whole(response)) => Self::response(response),
            Ok(Answer::Stream(..)) => Self(None),
            Err(error) => Self::error(error),
        }
    }

    pub(crate) fn response(response: &Response) -> Self {
        let Response { status, body, .. } = response;
        Self((*status < 500).then(|| (*status, body.clone())))
    }

    pub(crate) fn error(error: &ServeError) -> Self {
        let is_compared = error.status() < 500;
        Self(is_compared.then(|| (error.status(), Bytes::from(error.detail.clone()))))
    }
}

/// The part of a target in a trial.
#[derive(Debug, Clone)]
pub enum Trial {
    /// The part of the live target: a share of its requests is for the canary.
    Live {
        /// The target of the canary.
        canary: Arc<Target>,
        /// The share, from 0 to 1.
        share: f64,
        /// Takes the reports.
        reports: ReportSender,
    },
    /// The part of the target that is on trial.
    Canary {
        /// The live target, which is no part of the trial: the jobs that it computes in place of the canary
        /// are not its own.
        live: Arc<Target>,
        /// Whether a request may be computed again; `None`: unless its response is a stream.
        is_idempotent: Option<bool>,
        /// Takes the reports.
        reports: ReportSender,
    },
    /// The part of the live target: a share of its requests is copied.
    Shadowed {
        /// The target of the generation that gets the copies.
        shadow: Arc<Target>,
        /// Makes the copies.
        copies: Arc<dyn CopyRequests>,
        /// Takes the reports.
        reports: ReportSender,
    },
    /// The part of the target that gets the copies.
    Shadow {
        /// Takes the reports.
        reports: ReportSender,
    },
}

impl Trial {
    /// Returns the target that a request is for, if it is not this one: a random share of the requests is for a
    /// canary, and what shadows call is for a shadow.
    pub(crate) fn choose(&self, root: Option<&Root>) -> Option<Arc<Target>> {
        match self {
            Self::Live { canary, share, .. } => {
                (root.map_or_else(draw, |root| root.draw) < *share).then(|| canary.clone())
            }
            Self::Shadowed { shadow, .. } => {
                root.is_some_and(|root| root.is_shadow).then(|| shadow.clone())
            }
            Self::Canary { .. } | Self::Shadow { .. } => None,
        }
    }

    /// Begins to observe a job, which may take until `deadline`.
    pub(crate) fn observe(&self, deadline: Instant) -> ObservedJob {
        let (side, reports) = match self {
            Self::Live { reports, .. } | Self::Shadowed { reports, .. } => (Side::Live, reports),
            Self::Canary { reports, .. } | Self::Shadow { reports } => (Side::Tried, reports),
        };
        let (began, reports) = (Instant::now(), Some(reports.clone()));
        ObservedJob { side, began, deadline, answered: None, reports }
    }

    /// Returns whether an answer says something about the generation. A shadow is refused where it has no room:
    /// it comes after the requests of clients.
    pub(crate) fn is_outcome(&self, answer: &Outcome<Answer>) -> bool {
        let is_refusal = |error: &ServeError| error.cause == ErrorCause::Overloaded;
        !(matches!(self, Self::Shadow { .. }) && answer.as_ref().is_err_and(is_refusal))
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
    reports: Option<ReportSender>,
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
        if let Some(reports) = self.reports.take() {
            let took = self.answered.unwrap_or_else(|| self.began.elapsed());
            // A trial that has ended, or has enough to look at.
            let _ = reports.try_send(TrialReport::Job(Tried { side: self.side, has_failed, took }));
        }
    }

    /// Forgets the job: its failure has nothing to do with its generation.
    pub(crate) fn forget(&mut self) {
        self.reports = None;
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
