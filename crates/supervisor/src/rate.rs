use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A step in the rate shows in full after this time.
const QUICK: Duration = Duration::from_secs(1);

/// So many standard deviations above what was expected, and so many jobs, are no chance: at ten
/// looks a second even rare chances come often, and each would start workers.
const SURPRISE: (f64, f64) = (4.0, 2.0);

/// The rate at which jobs arrive, read off a counter that is looked at now and then.
///
/// It is a mean over several seconds, which is steady but late, unless more came within the last
/// second than the mean before that explains: then the rate has stepped, and what came is the
/// rate. At any look, more jobs make it no lower.
#[derive(Debug)]
pub(crate) struct ArrivalRate {
    /// From a second ago until now.
    looks: VecDeque<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    arrivals: u64,
    /// Jobs per second, as far as was known then.
    mean: f64,
}

impl ArrivalRate {
    /// Starts with a counter at zero.
    pub(crate) fn new(now: Instant) -> Self {
        Self { looks: VecDeque::from([Look { at: now, arrivals: 0, mean: 0.0 }]) }
    }

    /// Notes what the counter says and returns how many jobs came since the last look. The mean
    /// follows a change by two thirds within `memory`.
    pub(crate) fn observe(&mut self, arrivals: u64, memory: Duration, now: Instant) -> u64 {
        let last = self.last();
        let came = arrivals.saturating_sub(last.arrivals);
        let passed = now.saturating_duration_since(last.at);
        let mean = follow(last.mean, came as f64, passed.as_secs_f64(), memory.as_secs_f64());
        self.looks.push_back(Look { at: now, arrivals, mean });
        while self.looks.get(1).is_some_and(|look| look.at + QUICK <= now) {
            self.looks.pop_front();
        }
        came
    }

    /// Returns the rate in jobs per second.
    pub(crate) fn per_second(&self) -> f64 {
        let (before, last) = (self.looks[0], self.last());
        let came = last.arrivals.saturating_sub(before.arrivals) as f64;
        let passed = last.at.saturating_duration_since(before.at).max(QUICK).as_secs_f64();
        let expected = before.mean * passed;
        let (deviations, jobs) = SURPRISE;
        let stepped = came > expected + deviations * expected.sqrt() + jobs;
        if stepped { last.mean.max(came / passed) } else { last.mean }
    }

    fn last(&self) -> Look {
        self.looks[self.looks.len() - 1]
    }
}

/// Moves a mean rate towards what came in the time that passed.
fn follow(mean: f64, came: f64, passed: f64, memory: f64) -> f64 {
    let kept = (-passed / memory).exp();
    let weight = if passed > 0.0 { (1.0 - kept) / passed } else { 1.0 / memory };
    mean * kept + came * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(5);

    /// Looks at a counter that grows steadily.
    fn run(rate: &mut ArrivalRate, from: (Instant, u64), per_second: f64, every: u64, until: u64) {
        for elapsed in (every..=until).step_by(every as usize) {
            let came = (per_second * elapsed as f64 / 1000.0) as u64;
            rate.observe(from.1 + came, MEMORY, from.0 + Duration::from_millis(elapsed));
        }
    }

    #[test]
    fn a_steady_rate_is_found_whatever_the_sampling() {
        for every in [10, 70, 500, 5000] {
            let start = Instant::now();
            let mut rate = ArrivalRate::new(start);
            run(&mut rate, (start, 0), 30.0, every, 60_000);
            assert!((rate.per_second() - 30.0).abs() < 1.0, "{} at {every}", rate.per_second());
        }
    }

    #[test]
    fn a_step_shows_within_a_second_and_a_single_job_does_not() {
        let start = Instant::now();
        let mut rate = ArrivalRate::new(start);
        rate.observe(1, MEMORY, start + Duration::from_millis(50));
        assert!(rate.per_second() < 0.3, "{}", rate.per_second());
        run(&mut rate, (start, 1), 1000.0, 50, 1050);
        assert!(rate.per_second() > 950.0, "{}", rate.per_second());
    }

    #[test]
    fn a_counter_that_begins_anew_is_no_demand() {
        let start = Instant::now();
        let mut rate = ArrivalRate::new(start);
        run(&mut rate, (start, 0), 100.0, 100, 5000);
        assert_eq!(rate.observe(0, MEMORY, start + Duration::from_secs(6)), 0);
        assert!(rate.per_second() < 100.0);
    }
}
