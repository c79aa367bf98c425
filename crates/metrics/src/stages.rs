use std::fmt;

use prometheus::{Histogram, HistogramVec};

/// What a worker does for a request, in the order in which it says how long that took.
const STAGES: [&str; 3] = ["decode", "predict", "encode"];

/// How long the workers of an endpoint take for each stage of a request. Cheap to clone.
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

    /// Notes the seconds of one request, as many stages as are known.
    pub fn observe(&self, seconds: &[f64]) {
        let times = seconds.iter().filter(|seconds| seconds.is_finite() && **seconds >= 0.0);
        self.0.iter().zip(times).for_each(|(stage, seconds)| stage.observe(*seconds));
    }
}
