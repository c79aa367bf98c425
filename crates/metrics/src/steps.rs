//! The durations of the steps of pipelines.

use std::fmt;
use std::time::Duration;

use prometheus::HistogramVec;

/// The outcome of a step of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// The step has a response.
    Ok,
    /// The step failed, and so does the pipeline.
    Failed,
    /// The step failed, and the pipeline went on with a default.
    Default,
    /// The step was dropped before its end.
    Cancelled,
    /// The step is a shadow that did not run, because too many copies of it were running.
    Skipped,
}

impl StepOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Default => "default",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// The durations of the steps of one pipeline. Cheap to clone.
#[derive(Clone)]
pub struct StepTimes {
    family: HistogramVec,
    endpoint: String,
}

impl fmt::Debug for StepTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepTimes").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl StepTimes {
    pub(crate) fn new(family: &HistogramVec, endpoint: &str) -> Self {
        Self { family: family.clone(), endpoint: endpoint.to_owned() }
    }

    /// Records one run of a step. Its name is one of the definition's, so that there are few.
    pub fn observe(&self, step: &str, outcome: StepOutcome, took: Duration) {
        let labels = [&*self.endpoint, step, outcome.as_str()];
        self.family.with_label_values(&labels).observe(took.as_secs_f64());
    }
}
