//! The decayed arrival rate of an endpoint.

use std::time::Duration;

use tokio::time::Instant;

/// The half-life of an arrival, in reload times of the model.
const RELOADS: f64 = 10.0;

/// The half-life of an arrival, in arrivals at all endpoints. With fewer the order of the rates is that of the
/// last arrivals, and the rule is LRU again; with more it follows a shift of the popularity too slowly.
const ARRIVALS: f64 = 100.0;

/// The bounds of that number of arrivals as a time, and the bound of the half-life.
const SHORTEST: Duration = Duration::from_secs(2 * 60);
const SPARSE: Duration = Duration::from_secs(30 * 60);
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

/// The half-life of the arrivals at all endpoints together.
const OF_TRAFFIC: Duration = Duration::from_secs(10 * 60);

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

    pub(crate) fn add(&mut self, count: u64, half_life: Duration, now: Instant) {
        self.weight = self.weight * decay(now - self.at, half_life) + count as f64;
        self.at = now;
    }

    /// Returns the arrivals per second. Time passes without an arrival too, so the rate falls by itself.
    pub(crate) fn per_second(&self, half_life: Duration, reload: Duration, now: Instant) -> f64 {
        let mean_life = half_life.as_secs_f64() / std::f64::consts::LN_2;
        let seen = mean_life * (1.0 - decay(now - self.since, half_life));
        // The first arrival is no rate yet: until it is, it counts as one in ten reload times.
        let seen = seen + RELOADS * reload.as_secs_f64();
        self.weight * decay(now - self.at, half_life) / seen.max(f64::MIN_POSITIVE)
    }
}

/// The arrivals at all endpoints, by which each one's are forgotten.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Option<ArrivalRate>);

impl Traffic {
    pub(crate) fn add(&mut self, count: u64, now: Instant) {
        let traffic = self.0.get_or_insert_with(|| ArrivalRate::new(now));
        traffic.add(count, OF_TRAFFIC, now);
    }

    /// Returns the half-life of the arrivals at an endpoint.
    pub(crate) fn half_life(&self, reload: Duration, now: Instant) -> Duration {
        let rate = |it: &ArrivalRate| it.per_second(OF_TRAFFIC, reload, now);
        let rate = self.0.as_ref().map_or(0.0, rate).max(f64::MIN_POSITIVE);
        let seconds = (ARRIVALS / rate).clamp(SHORTEST.as_secs_f64(), SPARSE.as_secs_f64());
        reload.mul_f64(RELOADS).max(Duration::from_secs_f64(seconds)).min(LONGEST)
    }
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
        (0..5_000).step_by(5).for_each(|second| rate.add(1, SPARSE, at(second)));
        let busy = rate.per_second(SPARSE, RELOAD, at(5_000));
        assert!((busy - 0.2).abs() < 0.01, "{busy}");
        assert!(rate.per_second(SPARSE, RELOAD, at(5_000 + 3 * 1_800)) < busy / 4.0);
    }

    #[test]
    fn a_first_arrival_is_no_high_rate() {
        let mut rate = ArrivalRate::new(Instant::now());
        assert_eq!(rate.per_second(SPARSE, RELOAD, rate.at), 0.0);
        rate.add(1, SPARSE, rate.at);
        assert!((rate.per_second(SPARSE, RELOAD, rate.at) - 0.1).abs() < 1e-9);
    }

    #[test]
    fn arrivals_are_forgotten_by_arrivals_within_bounds_and_not_before_ten_reloads() {
        let start = Instant::now();
        let half_life_at = |gap: u64, reload: u64| {
            let mut traffic = Traffic::default();
            let at = |seconds: u64| start + Duration::from_secs(seconds);
            (0..20_000).step_by(gap as usize).for_each(|second| traffic.add(1, at(second)));
            traffic.half_life(Duration::from_secs(reload), at(20_000)).as_secs()
        };
        assert!((195..=210).contains(&half_life_at(2, 1)), "100 arrivals");
        assert_eq!(half_life_at(1, 1), 120, "not less than two minutes");
        assert_eq!(half_life_at(60, 1), 1_800, "half an hour where they are rare");
        assert_eq!([half_life_at(2, 60), half_life_at(2, 6_000)], [600, 21_600]);
        assert_eq!(Traffic::default().half_life(RELOAD, start), SPARSE);
    }
}
