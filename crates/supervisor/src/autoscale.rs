use std::time::Duration;

use tokio::time::Instant;

use crate::peak::Peak;
use crate::rate::ArrivalRate;

/// The least memory of the mean arrival rate: it follows a change by two thirds in this time.
const MEMORY: Duration = Duration::from_secs(10);

/// With slow models the mean reaches further back: as long as one worker takes for so many jobs,
/// so that a single job more or less does not look like another load.
const MEMORY_JOBS: f64 = 5.0;

/// Fewer workers must be enough for this many times the demand before any goes: a steady load
/// that varies by chance then keeps its workers.
const MARGIN: f64 = 1.15;

/// Between how many workers an endpoint may have. A number that is set by hand is both limits,
/// until others are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The fewest; 0 lets an endpoint without demand sleep.
    pub min: usize,
    /// The most; where it is below `min`, `max` holds.
    pub max: usize,
}

impl Limits {
    /// Allows this number alone.
    pub fn exactly(workers: usize) -> Self {
        Self { min: workers, max: workers }
    }

    fn clamp(self, workers: usize) -> usize {
        workers.max(self.min).min(self.max)
    }
}

/// How the number of workers follows the demand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// The share of what workers sustain that the demand should take, above 0 and up to 1.
    /// Default: 0.7.
    pub utilisation: f64,
    /// Within what time jobs that wait should be gone. It is at least the time that a worker
    /// takes to start, or for a job: sooner no new one could help. Default: 2 s.
    pub drain_within: Duration,
    /// For how long fewer workers must have been enough before any goes. Default: 30 s.
    pub hold: Duration,
    /// For how long there must have been no job before the last worker goes, and with it all
    /// above the minimum. Default: 60 s.
    pub idle: Duration,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            utilisation: 0.7,
            drain_within: Duration::from_secs(2),
            hold: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

/// What an endpoint's queue and workers show.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// Jobs that have arrived since the endpoint began, refused ones included.
    pub arrivals: u64,
    /// Jobs that wait for a worker.
    pub queued: usize,
    /// Jobs that workers have.
    pub in_flight: usize,
    /// How many jobs per second one worker sustains within its latency target; `None` while that
    /// is unknown, which leaves the number of workers as it is.
    pub per_worker: Option<f64>,
    /// How long a worker takes to start; `None` while that is unknown.
    pub start_time: Option<Duration>,
}

/// Decides how many workers an endpoint should have.
///
/// It wants as many as bring the utilisation to its target, given the rate of arrivals and what
/// it takes to drain the queue. It follows a rise at once and a fall late: it keeps the most that
/// it wanted within [`Scaling::hold`].
#[derive(Debug)]
pub struct Autoscaler {
    limits: Limits,
    scaling: Scaling,
    wanted: usize,
    rate: ArrivalRate,
    enough: Peak,
    last_job: Instant,
}

impl Autoscaler {
    /// Begins with the fewest workers and no demand.
    pub fn new(limits: Limits, scaling: Scaling, now: Instant) -> Self {
        let (rate, enough) = (ArrivalRate::new(now), Peak::new(scaling.hold));
        Self { limits, scaling, wanted: limits.clamp(0), rate, enough, last_job: now }
    }

    /// Returns how many workers were decided on last.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Sets other limits, which hold from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.wanted = limits.clamp(self.wanted);
    }

    /// Returns how many workers there should be now. Call it some ten times a second: a rise is
    /// seen no sooner than it is called.
    pub fn decide(&mut self, demand: &Demand, now: Instant) -> usize {
        self.observe(demand, now);
        self.wanted = self.limits.clamp(self.follow(demand, now));
        self.wanted
    }

    fn observe(&mut self, demand: &Demand, now: Instant) {
        let slow = capacity(demand).map_or(Duration::ZERO, |jobs| seconds(MEMORY_JOBS / jobs));
        let came = self.rate.observe(demand.arrivals, slow.max(MEMORY), now);
        if came > 0 || demand.queued > 0 || demand.in_flight > 0 {
            self.last_job = now;
        }
    }

    fn follow(&mut self, demand: &Demand, now: Instant) -> usize {
        let (needed, enough) = match capacity(demand) {
            Some(capacity) => {
                let workers = self.jobs_per_second(demand, capacity)
                    / (capacity * self.scaling.utilisation.clamp(0.01, 1.0));
                (round_up(workers), round_up(workers * MARGIN))
            }
            None => (0, self.wanted),
        };
        let enough = self.enough.observe(enough, now);
        let idle = now.saturating_duration_since(self.last_job);
        if idle >= self.scaling.idle {
            return 0;
        }
        let awake = idle.is_zero() || self.wanted > 0;
        needed.max(self.wanted.min(enough)).max(usize::from(awake))
    }

    /// What arrives, and what has to be done beside that for the queue to drain in time.
    fn jobs_per_second(&self, demand: &Demand, capacity: f64) -> f64 {
        let soonest = demand.start_time.unwrap_or_default().max(seconds(1.0 / capacity));
        let within = self.scaling.drain_within.max(soonest).as_secs_f64().max(0.001);
        self.rate.per_second() + demand.queued as f64 / within
    }
}

fn capacity(demand: &Demand) -> Option<f64> {
    demand.per_worker.filter(|jobs| jobs.is_finite() && *jobs > 0.0)
}

/// A duration that no arithmetic can make too long.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))
}

/// Rounds up, except what is a whole number but for the rounding of its parts.
fn round_up(workers: f64) -> usize {
    (workers - 1e-9).ceil() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPACITY: f64 = 100.0;

    const WIDE: Limits = Limits { min: 0, max: 1000 };

    /// An autoscaler, its clock and its counter of arrivals.
    struct Bench {
        scaler: Autoscaler,
        now: Instant,
        demand: Demand,
        /// Arrivals that are less than a job.
        rest: f64,
    }

    impl Bench {
        fn new(limits: Limits) -> Self {
            let now = Instant::now();
            let scaler = Autoscaler::new(limits, Scaling::default(), now);
            let demand = Demand { per_worker: Some(CAPACITY), ..Demand::default() };
            Self { scaler, now, demand, rest: 0.0 }
        }

        /// Lets jobs arrive for a time and returns every decision.
        fn run(&mut self, per_second: f64, every_ms: u64, seconds: u64) -> Vec<usize> {
            let steps = seconds * 1000 / every_ms;
            (0..steps).map(|_| self.step(per_second * every_ms as f64 / 1000.0, every_ms)).collect()
        }

        fn step(&mut self, jobs: f64, after_ms: u64) -> usize {
            self.rest += jobs;
            self.demand.arrivals += self.rest as u64;
            self.rest -= self.rest.floor();
            self.now += Duration::from_millis(after_ms);
            self.scaler.decide(&self.demand, self.now)
        }
    }

    #[test]
    fn a_step_is_answered_within_a_second_with_the_right_number() {
        for every_ms in [20, 50, 100, 250] {
            let mut bench = Bench::new(Limits { min: 1, max: 32 });
            assert_eq!(bench.run(0.1 * CAPACITY, every_ms, 60).last(), Some(&1));
            // 300 / (100 × 0.7), rounded up.
            assert_eq!(bench.run(3.0 * CAPACITY, every_ms, 1).last(), Some(&5), "at {every_ms} ms");
            let later = bench.run(3.0 * CAPACITY, every_ms, 600);
            assert!(later.iter().all(|wanted| *wanted == 5), "{later:?}");
        }
    }

    #[test]
    fn a_fall_is_followed_when_it_has_lasted() {
        let mut bench = Bench::new(Limits { min: 1, max: 32 });
        bench.run(3.0 * CAPACITY, 100, 60);
        assert_eq!(bench.run(0.1 * CAPACITY, 100, 29).last(), Some(&5));
        assert_eq!(bench.run(0.1 * CAPACITY, 100, 40).last(), Some(&1));
        bench.run(3.0 * CAPACITY, 100, 60);
        let with_breaks: Vec<_> = (0..10)
            .flat_map(|_| [bench.run(10.0, 100, 20), bench.run(3.0 * CAPACITY, 100, 5)].concat())
            .collect();
        assert!(with_breaks.iter().all(|wanted| *wanted == 5), "short breaks cost no worker");
    }

    #[test]
    fn jobs_that_wait_ask_for_workers_beside_what_arrives() {
        let mut bench = Bench::new(Limits { min: 1, max: 32 });
        bench.demand.queued = 700;
        assert_eq!(bench.step(0.0, 100), 5, "350 jobs/s drain it in 2 s");
        let mut bench = Bench::new(Limits { min: 1, max: 32 });
        bench.demand = Demand { queued: 700, start_time: Some(seconds(10.0)), ..bench.demand };
        assert_eq!(bench.step(0.0, 100), 1, "more would come too late to be of use");
    }

    #[test]
    fn an_endpoint_wakes_at_once_and_sleeps_after_a_while() {
        let mut bench = Bench::new(Limits { min: 0, max: 4 });
        assert_eq!(bench.step(0.0, 100), 0);
        bench.demand = Demand { per_worker: None, queued: 1, arrivals: 1, ..bench.demand };
        assert_eq!(bench.step(0.0, 100), 1);
        bench.demand = Demand { queued: 0, in_flight: 1, ..bench.demand };
        assert_eq!(bench.run(0.0, 100, 600).last(), Some(&1), "the job takes long");
        bench.demand = Demand { in_flight: 0, per_worker: Some(CAPACITY), ..bench.demand };
        assert_eq!(bench.run(0.0, 100, 59).last(), Some(&1));
        assert_eq!(bench.run(0.0, 100, 2).last(), Some(&0));
        assert_eq!(bench.step(1.0, 100), 1, "a job that was refused wakes it, too");
    }

    #[test]
    fn nothing_is_decided_on_a_capacity_that_is_unknown() {
        let mut bench = Bench::new(Limits { min: 0, max: 32 });
        bench.run(3.0 * CAPACITY, 100, 10);
        for unknown in [None, Some(0.0), Some(-1.0), Some(f64::NAN), Some(f64::INFINITY)] {
            bench.demand.per_worker = unknown;
            assert_eq!(bench.run(10.0, 100, 60).last(), Some(&5));
        }
    }

    #[test]
    fn a_number_set_by_hand_holds_until_limits_are_set_again() {
        let mut bench = Bench::new(Limits { min: 1, max: 8 });
        bench.scaler.set_limits(Limits::exactly(4));
        assert_eq!(bench.scaler.wanted(), 4);
        assert!(bench.run(3.0 * CAPACITY, 100, 60).iter().all(|wanted| *wanted == 4));
        bench.scaler.set_limits(Limits { min: 1, max: 8 });
        assert_eq!(bench.run(3.0 * CAPACITY, 100, 1).last(), Some(&5));
        bench.scaler.set_limits(Limits { min: 3, max: 2 });
        assert_eq!(bench.step(0.0, 100), 2);
    }

    /// Jobs per second that vary by chance as those of many independent clients do.
    fn noisy(per_second: f64, every_ms: u64, seed: &mut u64) -> f64 {
        let mean = per_second * every_ms as f64 / 1000.0;
        let sum: f64 = (0..12).map(|_| next_unit(seed)).sum();
        (mean + (sum - 6.0) * mean.sqrt()).max(0.0)
    }

    fn next_unit(seed: &mut u64) -> f64 {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 11) as f64 / (1u64 << 53) as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_keeps_the_limits_and_a_worker_while_there_is_work(
            (min, max) in (0usize..10, 0usize..10),
            steps in prop::collection::vec(any_step(), 1..200),
        ) {
            let mut bench = Bench::new(Limits { min, max });
            for (jobs, after_ms, queued, in_flight, per_worker) in steps {
                bench.demand = Demand { queued, in_flight, per_worker, ..bench.demand };
                let wanted = bench.step(jobs as f64, after_ms);
                prop_assert!(wanted >= min.min(max) && wanted <= max);
                prop_assert!(wanted >= 1 || max == 0 || queued + in_flight == 0);
            }
        }

        #[test]
        fn at_any_look_more_arrivals_ask_for_no_fewer_workers(
            steps in prop::collection::vec(any_step(), 1..100),
            extra in 1u64..1000,
        ) {
            let (mut fewer, mut more) = (Bench::new(WIDE), Bench::new(WIDE));
            for (last, (jobs, after_ms, queued, in_flight, per_worker)) in (1..).zip(&steps) {
                for bench in [&mut fewer, &mut more] {
                    let (queued, in_flight, per_worker) = (*queued, *in_flight, *per_worker);
                    bench.demand = Demand { queued, in_flight, per_worker, ..bench.demand };
                }
                more.demand.arrivals += if last == steps.len() { extra } else { 0 };
                let wanted = fewer.step(f64::from(*jobs), *after_ms);
                prop_assert!(more.step(f64::from(*jobs), *after_ms) >= wanted);
            }
        }

        #[test]
        fn constant_demand_converges_and_stays(per_second in 1.0..3000.0, every_ms in 20u64..200) {
            let mut bench = Bench::new(WIDE);
            bench.run(per_second, every_ms, 60);
            let wanted = bench.run(per_second, every_ms, 120);
            let exact = per_second / (CAPACITY * 0.7);
            // Where the exact number is almost whole, the rest of a job may still tip it up, once.
            prop_assert!(wanted.is_sorted() && wanted[wanted.len() - 1] <= wanted[0] + 1);
            prop_assert!(wanted[0] >= (exact * 0.98).ceil() as usize);
            prop_assert!(wanted[0] <= (exact * MARGIN).ceil() as usize + 1);
        }

        #[test]
        fn a_noisy_constant_load_does_not_flap(per_second in 100.0..3000.0, mut seed: u64) {
            let mut bench = Bench::new(WIDE);
            let decisions: Vec<_> =
                (0..6000).map(|_| bench.step(noisy(per_second, 100, &mut seed), 100)).collect();
            let changes = decisions[600..].windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert!(changes <= 4, "{changes} changes in nine minutes at {per_second}");
        }

        #[test]
        fn idle_goes_to_the_minimum(min in 0usize..4, per_second in 0.0..3000.0) {
            let mut bench = Bench::new(Limits { min, max: 100 });
            bench.run(per_second, 100, 30);
            prop_assert_eq!(bench.run(0.0, 100, 61).pop(), Some(min));
        }
    }

    fn any_step() -> impl Strategy<Value = (u32, u64, usize, usize, Option<f64>)> {
        let per_worker = prop_oneof![Just(None), (0.01..1000.0).prop_map(Some)];
        (0u32..100, 0u64..2000, 0usize..3, 0usize..3, per_worker)
    }
}
