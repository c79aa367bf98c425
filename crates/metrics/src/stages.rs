//! The durations of the stages of requests in workers.

use std::fmt;

use prometheus::{Histogram, HistogramVec};

/// The stages of a request, in the order in which a worker reports their durations.
const STAGES: [&str; 3] = ["decode", "predict", "encode"];

/// The durations of stages in the workers of an endpoint. Cheap to clone.
#[derive(Clone)]
pub struct StageTimes([Histogram; 3]);

impl fmt::Debug for StageTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageTimes").finish_non_exhaustive()
    }
}

impl StageTimes {
    pub(crate) fn new(family: &HistogramVec, endpoint: &str) -> Self {
        Self(STAGES.map(|stage| family.with_label_values(&[endpoint, stage])))
    }

    /// Records the seconds of one request's stages, as many as are known.
    pub fn observe(&self, seconds: &[f64]) {
        let times = seconds.iter().filter(|seconds| seconds.is_finite() && **seconds >= 0.0);
        self.0.iter().zip(times).for_each(|(stage, seconds)| stage.observe(*seconds));
    }
}
