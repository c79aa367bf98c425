//! A histogram as it is read: what was observed until now.

use std::collections::BTreeMap;

use prometheus::HistogramVec;
use prometheus::core::Collector;
use prometheus::proto::{Histogram, Metric, MetricFamily};

/// The number of observations by their size.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Distribution {
    /// The upper bounds of the buckets.
    pub bounds: Vec<f64>,
    /// The number of observations in each bucket, and last of those above the last bound.
    pub counts: Vec<u64>,
    /// The sum of all observations.
    pub sum: f64,
}

impl Distribution {
    fn read(observed: &Histogram) -> Self {
        let buckets =
            observed.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
        let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
        for bucket in buckets {
            let until = bucket.cumulative_count();
            bounds.push(bucket.upper_bound());
            counts.push(until - std::mem::replace(&mut below, until));
        }
        counts.push(observed.get_sample_count().saturating_sub(below));
        Self { bounds, counts, sum: observed.get_sample_sum() }
    }

    /// Returns the number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds the observations of another distribution with the same buckets.
    pub fn add(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.clone_from(other);
        } else {
            let both = self.counts.iter_mut().zip(&other.counts);
            both.for_each(|(count, more)| *count += more);
            self.sum += other.sum;
        }
    }

    /// Returns the observations since an earlier reading.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier = before.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(earlier).map(|(now, was)| now.saturating_sub(was));
        let (bounds, counts) = (self.bounds.clone(), counts.collect());
        Self { bounds, counts, sum: self.sum - before.sum }
    }
}

/// Returns the distributions of a family by the values of its labels, sorted by the names of the labels.
pub(crate) fn read(family: &HistogramVec) -> BTreeMap<Vec<String>, Distribution> {
    let families = family.collect();
    let metrics = families.iter().flat_map(MetricFamily::get_metric);
    let labels = |metric: &Metric| {
        let labels = metric.get_label().iter();
        let labels: BTreeMap<_, _> = labels.map(|it| (it.name(), it.value().to_owned())).collect();
        labels.into_values().collect()
    };
    metrics.map(|metric| (labels(metric), Distribution::read(metric.get_histogram()))).collect()
}
