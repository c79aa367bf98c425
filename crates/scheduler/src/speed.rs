//! The model of how long batches take, learned from completed ones.

use std::time::Duration;

/// The longest time that is predicted.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The factor by which each later observation reduces the weight of one: about twenty batches
/// count.
const FORGET: f64 = 0.95;

/// A linear model of the duration of batches: a fixed overhead, and a time per unit of work. A
/// batch of `n` jobs has `n` times the cost of its most expensive job in units, because models pad
/// to the longest input.
///
/// The line is fitted to recent batches by least squares with exponential forgetting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Speed {
    weight: f64,
    units: f64,
    seconds: f64,
    units_units: f64,
    units_seconds: f64,
}

impl Speed {
    /// Adds an observation: a batch of this many units took this long.
    pub fn observe(&mut self, units: f64, took: Duration) {
        let seconds = took.as_secs_f64();
        self.weight = self.weight * FORGET + 1.0;
        self.units = self.units * FORGET + units;
        self.seconds = self.seconds * FORGET + seconds;
        self.units_units = self.units_units * FORGET + units * units;
        self.units_seconds = self.units_seconds * FORGET + units * seconds;
    }

    /// Returns the expected duration of a batch of this many units; `None` before the first
    /// observation.
    pub fn time_of(&self, units: f64) -> Option<Duration> {
        let (overhead, per_unit) = self.line()?;
        let time = Duration::try_from_secs_f64(overhead + per_unit * units);
        Some(time.unwrap_or(LONGEST).min(LONGEST))
    }

    /// Returns the overhead of a batch in units of work; infinity when larger batches take no
    /// longer, or before the first observation.
    pub fn overhead_in_units(&self) -> f64 {
        match self.line() {
            Some((overhead, per_unit)) if per_unit > 0.0 => overhead / per_unit,
            _ => f64::INFINITY,
        }
    }

    /// Returns the overhead and the time per unit in seconds; neither is negative.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 {
            return None;
        }
        let (mean_units, mean_seconds) = (self.units / self.weight, self.seconds / self.weight);
        let spread = self.units_units / self.weight - mean_units * mean_units;
        let slope = if spread > 1e-6 * mean_units * mean_units {
            (self.units_seconds / self.weight - mean_units * mean_seconds) / spread
        } else {
            0.0
        };
        let steepest = if mean_units > 0.0 { mean_seconds / mean_units } else { 0.0 };
        let per_unit = slope.clamp(0.0, steepest);
        Some(((mean_seconds - per_unit * mean_units).max(0.0), per_unit))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(duration: Option<Duration>) -> f64 {
        duration.unwrap().as_secs_f64()
    }

    #[test]
    fn overhead_and_time_per_unit_are_learned() {
        let mut speed = Speed::default();
        assert_eq!(speed.time_of(1.0), None);
        for units in [1, 8, 3, 32, 5, 16] {
            speed.observe(f64::from(units), Duration::from_millis(10 + 2 * units as u64));
        }
        assert!((seconds(speed.time_of(20.0)) - 0.050).abs() < 1e-6);
        assert!((speed.overhead_in_units() - 5.0).abs() < 1e-3);
    }

    #[test]
    fn with_one_batch_size_larger_batches_are_expected_to_take_no_longer() {
        let mut speed = Speed::default();
        speed.observe(1.0, Duration::from_millis(50));
        speed.observe(1.0, Duration::from_millis(50));
        assert!((seconds(speed.time_of(32.0)) - 0.050).abs() < 1e-6);
        assert_eq!(speed.overhead_in_units(), f64::INFINITY);
    }

    #[test]
    fn the_estimate_follows_a_model_that_becomes_slower() {
        let mut speed = Speed::default();
        (0..100).for_each(|_| speed.observe(1.0, Duration::from_millis(1)));
        (0..100).for_each(|_| speed.observe(1.0, Duration::from_millis(9)));
        assert!((seconds(speed.time_of(1.0)) - 0.009).abs() < 1e-4);
    }

    proptest! {
        #[test]
        fn times_are_finite_and_grow_with_the_work(
            batches in prop::collection::vec((0.0f64..1e6, 0u64..10_000_000), 1..50),
            units in 0.0f64..1e6,
        ) {
            let mut speed = Speed::default();
            for (units, micros) in batches {
                speed.observe(units, Duration::from_micros(micros));
            }
            prop_assert!(speed.time_of(units) <= speed.time_of(2.0 * units));
            prop_assert!(speed.overhead_in_units() >= 0.0);
        }
    }
}
