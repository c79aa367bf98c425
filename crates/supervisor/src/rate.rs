//! The rate of arrivals, estimated from samples of a counter.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The time after which the estimate shows a step of the rate in full.
const STEP_WINDOW: Duration = Duration::from_secs(1);

/// The excess over the expected number of jobs that counts as a step: this many standard
/// deviations, plus this many jobs. At ten samples per second even rare fluctuations are frequent,
/// and each would start workers.
const STEP_EXCESS: (f64, f64) = (4.0, 2.0);

/// The rate at which jobs arrive, estimated from samples of a counter.
///
/// The estimate is a mean over several seconds, which is steady but late. If more jobs arrive
/// within one second than that mean explains, the rate has stepped, and the estimate is the rate of
/// that second. At any sample, more arrivals never lower the estimate.
#[derive(Debug)]
pub(crate) struct ArrivalRate {
    /// The samples of the last second.
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    arrivals: u64,
    /// The mean at this sample, in jobs per second.
    mean: f64,
}

impl ArrivalRate {
    /// Starts with a counter at zero.
    pub(crate) fn new(now: Instant) -> Self {
        Self { samples: VecDeque::from([Sample { at: now, arrivals: 0, mean: 0.0 }]) }
    }

    /// Adds a sample of the counter and returns the number of jobs since the last one. The mean
    /// follows a change by two thirds within `memory`.
    pub(crate) fn observe(&mut self, arrivals: u64, memory: Duration, now: Instant) -> u64 {
        let last = self.last();
        let came = arrivals.saturating_sub(last.arrivals);
        let passed = now.saturating_duration_since(last.at);
        let mean = follow(last.mean, came as f64, passed.as_secs_f64(), memory.as_secs_f64());
        self.samples.push_back(Sample { at: now, arrivals, mean });
        while self.samples.get(1).is_some_and(|sample| sample.at + STEP_WINDOW <= now) {
            self.samples.pop_front();
        }
        came
    }

    /// Returns the rate in jobs per second.
    pub(crate) fn per_second(&self) -> f64 {
        let (before, last) = (self.samples[0], self.last());
        let came = last.arrivals.saturating_sub(before.arrivals) as f64;
        let passed = last.at.saturating_duration_since(before.at).max(STEP_WINDOW).as_secs_f64();
        let expected = before.mean * passed;
        let (deviations, jobs) = STEP_EXCESS;
        let stepped = came > expected + deviations * expected.sqrt() + jobs;
        if stepped { last.mean.max(came / passed) } else { last.mean }
    }

    fn last(&self) -> Sample {
        self.samples[self.samples.len() - 1]
    }
}

/// Returns the mean after `came` jobs in `passed` seconds.
fn follow(mean: f64, came: f64, passed: f64, memory: f64) -> f64 {
    let kept = (-passed / memory).exp();
    let weight = if passed > 0.0 { (1.0 - kept) / passed } else { 1.0 / memory };
    mean * kept + came * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(5);

    /// Samples a counter that grows steadily.
    fn run(rate: &mut ArrivalRate, from: (Instant, u64), per_second: f64, every: u64, until: u64) {
        for elapsed in (every..=until).step_by(every as usize) {
            let came = (per_second * elapsed as f64 / 1000.0) as u64;
            rate.observe(from.1 + came, MEMORY, from.0 + Duration::from_millis(elapsed));
        }
    }

    #[test]
    fn a_steady_rate_is_estimated_at_any_sampling_interval() {
        for every in [10, 70, 500, 5000] {
            let start = Instant::now();
            let mut rate = ArrivalRate::new(start);
            run(&mut rate, (start, 0), 30.0, every, 60_000);
            assert!((rate.per_second() - 30.0).abs() < 1.0, "{} at {every}", rate.per_second());
        }
    }

    #[test]
    fn a_step_shows_within_a_second_and_a_single_job_is_no_step() {
        let start = Instant::now();
        let mut rate = ArrivalRate::new(start);
        rate.observe(1, MEMORY, start + Duration::from_millis(50));
        assert!(rate.per_second() < 0.3, "{}", rate.per_second());
        run(&mut rate, (start, 1), 1000.0, 50, 1050);
        assert!(rate.per_second() > 950.0, "{}", rate.per_second());
    }

    #[test]
    fn a_counter_reset_is_no_demand() {
        let start = Instant::now();
        let mut rate = ArrivalRate::new(start);
        run(&mut rate, (start, 0), 100.0, 100, 5000);
        assert_eq!(rate.observe(0, MEMORY, start + Duration::from_secs(6)), 0);
        assert!(rate.per_second() < 100.0);
    }
}
