//! The decayed arrival rate of an endpoint.

use std::time::Duration;

use tokio::time::Instant;

/// The half-life of an arrival, in reload times of the model.
const HALF_LIFE: f64 = 10.0;

/// The bounds of the half-life. A shorter one sees a few arrivals only: then the order of the rates is
/// that of the last arrivals, and the rule is LRU again.
const SHORTEST: Duration = Duration::from_secs(30 * 60);
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

/// The decayed arrival rate of an endpoint: each arrival counts for half after a half-life. The rate is the
/// weight of the arrivals by the weight of the time in which they were seen.
#[derive(Debug, Clone)]
pub(crate) struct ArrivalRate {
    /// The instant from which arrivals are seen.
    since: Instant,
    /// The instant at which `weight` was valid.
    at: Instant,
    weight: f64,
}

impl ArrivalRate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, at: now, weight: 0.0 }
    }

    pub(crate) fn add(&mut self, count: u64, reload: Duration, now: Instant) {
        self.weight = self.weight * decay(now - self.at, half_life(reload)) + count as f64;
        self.at = now;
    }

    /// Returns the arrivals per second. Time passes without an arrival too, so the rate falls by itself.
    pub(crate) fn per_second(&self, reload: Duration, now: Instant) -> f64 {
        let half_life = half_life(reload);
        let mean_life = half_life.as_secs_f64() / std::f64::consts::LN_2;
        let seen = mean_life * (1.0 - decay(now - self.since, half_life));
        // The first arrival is no rate yet: until it is, it counts as one in ten reload times.
        let seen = seen + HALF_LIFE * reload.as_secs_f64();
        self.weight * decay(now - self.at, half_life) / seen.max(f64::MIN_POSITIVE)
    }
}

fn half_life(reload: Duration) -> Duration {
    reload.mul_f64(HALF_LIFE).clamp(SHORTEST, LONGEST)
}

fn decay(time: Duration, half_life: Duration) -> f64 {
    (-time.as_secs_f64() / half_life.as_secs_f64()).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELOAD: Duration = Duration::from_secs(1);

    #[test]
    fn regular_arrivals_have_their_rate_and_silence_lowers_it() {
        let start = Instant::now();
        let mut rate = ArrivalRate::new(start);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        (0..5_000).step_by(5).for_each(|second| rate.add(1, RELOAD, at(second)));
        let busy = rate.per_second(RELOAD, at(5_000));
        assert!((busy - 0.2).abs() < 0.01, "{busy}");
        assert!(rate.per_second(RELOAD, at(5_000 + 3 * 1_800)) < busy / 4.0);
    }

    #[test]
    fn a_first_arrival_is_no_high_rate() {
        let mut rate = ArrivalRate::new(Instant::now());
        assert_eq!(rate.per_second(RELOAD, rate.at), 0.0);
        rate.add(1, RELOAD, rate.at);
        assert!((rate.per_second(RELOAD, rate.at) - 0.1).abs() < 1e-9);
    }
}
