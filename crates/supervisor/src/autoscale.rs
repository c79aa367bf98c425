//! The autoscaler: the number of workers that the load of an endpoint asks for.

use std::time::Duration;

use tokio::time::Instant;

use crate::peak::Peak;
use crate::rate::ArrivalRate;

/// The shortest time constant of the mean arrival rate: it follows a change by two thirds in it.
const MEMORY: Duration = Duration::from_secs(10);

/// The time constant in jobs: for slow models it is the time that one worker takes for this many,
/// so that a single job more or less does not look like a change of load.
const MEMORY_JOBS: f64 = 5.0;

/// The factor on the demand for which fewer workers must suffice before any is stopped, so that a
/// steady load with random variation keeps its workers.
const MARGIN: f64 = 1.15;

/// The limits of an endpoint's number of workers. A number set by an operator is both limits until
/// others are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The fewest workers; with 0 an endpoint without demand goes to sleep.
    pub min: usize,
    /// The most workers; it takes precedence over a larger `min`.
    pub max: usize,
}

impl Limits {
    /// Returns limits that allow this number only.
    pub fn exactly(workers: usize) -> Self {
        Self { min: workers, max: workers }
    }

    /// Returns whether load does not change the number of workers.
    pub fn is_fixed(self) -> bool {
        self.min >= self.max
    }

    fn clamp(self, workers: usize) -> usize {
        workers.max(self.min).min(self.max)
    }
}

/// The settings of the autoscaler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// The target utilisation of the workers, above 0 and up to 1. Default: 0.7.
    pub utilisation: f64,
    /// The time in which the queue should drain. It is never less than the start time of a worker
    /// or the duration of a job: a new worker cannot help sooner. Default: 2 s.
    pub drain_within: Duration,
    /// The time for which fewer workers must have sufficed before any is stopped. Default: 30 s.
    pub hold: Duration,
    /// The time without jobs after which all workers above the minimum are stopped. Default: 60 s.
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

/// The demand on an endpoint at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Demand {
    /// The number of jobs since the endpoint started, refused ones included.
    pub arrivals: u64,
    /// The number of jobs that wait for a worker.
    pub queued: usize,
    /// The number of jobs that workers hold.
    pub in_flight: usize,
    /// The jobs per second that one worker sustains; `None` while that is unknown, which keeps the
    /// number of workers.
    pub per_worker: Option<f64>,
    /// The time that a worker takes to start; `None` while that is unknown.
    pub start_time: Option<Duration>,
    /// The number of workers, if none of them can go on before another one starts: the calls that their
    /// hooks wait for are in this queue. Otherwise 0.
    pub stuck_workers: usize,
}

/// The autoscaler of an endpoint.
///
/// It chooses the number of workers that brings the utilisation to its target, given the rate of
/// arrivals and the jobs in the queue. It follows a rise at once and a fall after
/// [`Scaling::hold`]: the highest number within that time remains.
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
    /// Returns an autoscaler with the fewest workers and no demand.
    pub fn new(limits: Limits, scaling: Scaling, now: Instant) -> Self {
        let (rate, enough) = (ArrivalRate::new(now), Peak::new(scaling.hold));
        Self { limits, scaling, wanted: limits.clamp(0), rate, enough, last_job: now }
    }

    /// Returns the number of workers of the last decision.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Sets the limits, the present number of workers, and the time without jobs after which those above the
    /// minimum are stopped.
    pub fn set(&mut self, limits: Limits, workers: usize, idle: Duration) {
        self.limits = limits;
        self.wanted = limits.clamp(workers);
        self.scaling.idle = idle;
    }

    /// Lowers the number of workers to this one, below the minimum too: others need the memory. Load raises it
    /// again; from none, a job that comes or waits does.
    pub fn lower(&mut self, workers: usize) {
        self.wanted = self.wanted.min(workers);
    }

    /// Returns the number of workers that the endpoint should have now. Call it about ten times per
    /// second: a rise is seen at the next call.
    pub fn decide(&mut self, demand: &Demand, now: Instant) -> usize {
        let came = self.observe(demand, now);
        // The jobs that workers hold while they are stopped wake no endpoint.
        let is_asleep = self.wanted == 0 && came == 0 && demand.queued == 0;
        let wanted = if is_asleep { 0 } else { self.follow(demand, now) };
        self.wanted = self.limits.clamp(wanted);
        self.wanted
    }

    /// Returns the number of jobs since the last call.
    fn observe(&mut self, demand: &Demand, now: Instant) -> u64 {
        let slow = capacity(demand).map_or(Duration::ZERO, |jobs| seconds(MEMORY_JOBS / jobs));
        let came = self.rate.observe(demand.arrivals, slow.max(MEMORY), now);
        if came > 0 || demand.queued > 0 || demand.in_flight > 0 {
            self.last_job = now;
        }
        came
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
        let for_stuck = if demand.stuck_workers > 0 { demand.stuck_workers + 1 } else { 0 };
        let enough = self.enough.observe(enough.max(for_stuck), now);
        let idle = now.saturating_duration_since(self.last_job);
        if idle >= self.scaling.idle {
            return 0;
        }
        let awake = idle.is_zero() || self.wanted > 0;
        needed.max(for_stuck).max(self.wanted.min(enough)).max(usize::from(awake))
    }

    /// Returns the rate of arrivals, plus the rate at which the queue drains in time.
    fn jobs_per_second(&self, demand: &Demand, capacity: f64) -> f64 {
        let soonest = demand.start_time.unwrap_or_default().max(seconds(1.0 / capacity));
        let within = self.scaling.drain_within.max(soonest).as_secs_f64().max(0.001);
        self.rate.per_second() + demand.queued as f64 / within
    }
}

fn capacity(demand: &Demand) -> Option<f64> {
    demand.per_worker.filter(|jobs| jobs.is_finite() && *jobs > 0.0)
}

/// Returns a duration of at most an hour, for any number.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))
}

/// Rounds up, except for a whole number with a rounding error.
fn round_up(workers: f64) -> usize {
    (workers - 1e-9).ceil() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPACITY: f64 = 100.0;

    const WIDE: Limits = Limits { min: 0, max: 1000 };

    const IDLE: Duration = Duration::from_secs(60);

    /// An autoscaler with its clock and its counter of arrivals.
    struct Fixture {
        scaler: Autoscaler,
        now: Instant,
        demand: Demand,
        /// The fraction of a job that has arrived.
        rest: f64,
    }

    impl Fixture {
        fn new(limits: Limits) -> Self {
            let now = Instant::now();
            let scaler = Autoscaler::new(limits, Scaling::default(), now);
            let demand = Demand { per_worker: Some(CAPACITY), ..Demand::default() };
            Self { scaler, now, demand, rest: 0.0 }
        }

        /// Simulates arrivals for a time and returns every decision.
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
    fn a_step_is_followed_within_a_second_by_the_right_number() {
        for every_ms in [20, 50, 100, 250] {
            let mut fixture = Fixture::new(Limits { min: 1, max: 32 });
            assert_eq!(fixture.run(0.1 * CAPACITY, every_ms, 60).last(), Some(&1));
            // 300 / (100 × 0.7), rounded up.
            assert_eq!(
                fixture.run(3.0 * CAPACITY, every_ms, 1).last(),
                Some(&5),
                "at {every_ms} ms"
            );
            let later = fixture.run(3.0 * CAPACITY, every_ms, 600);
            assert!(later.iter().all(|wanted| *wanted == 5), "{later:?}");
        }
    }

    #[test]
    fn a_fall_is_followed_after_the_hold_time() {
        let mut fixture = Fixture::new(Limits { min: 1, max: 32 });
        fixture.run(3.0 * CAPACITY, 100, 60);
        assert_eq!(fixture.run(0.1 * CAPACITY, 100, 29).last(), Some(&5));
        assert_eq!(fixture.run(0.1 * CAPACITY, 100, 40).last(), Some(&1));
        fixture.run(3.0 * CAPACITY, 100, 60);
        let with_breaks: Vec<_> = (0..10)
            .flat_map(|_| {
                [fixture.run(10.0, 100, 20), fixture.run(3.0 * CAPACITY, 100, 5)].concat()
            })
            .collect();
        assert!(with_breaks.iter().all(|wanted| *wanted == 5), "short breaks stop no worker");
    }

    #[test]
    fn queued_jobs_add_to_the_demand() {
        let mut fixture = Fixture::new(Limits { min: 1, max: 32 });
        fixture.demand.queued = 700;
        assert_eq!(fixture.step(0.0, 100), 5, "350 jobs/s drain it in 2 s");
        let mut fixture = Fixture::new(Limits { min: 1, max: 32 });
        fixture.demand = Demand { queued: 700, start_time: Some(seconds(10.0)), ..fixture.demand };
        assert_eq!(fixture.step(0.0, 100), 1, "further workers would start too late");
    }

    #[test]
    fn stuck_workers_get_another_one_that_stays_for_the_hold_time() {
        let mut fixture = Fixture::new(Limits { min: 1, max: 3 });
        // The first job tells nothing of the speed.
        fixture.demand =
            Demand { per_worker: None, arrivals: 2, queued: 1, in_flight: 1, ..fixture.demand };
        assert_eq!(fixture.run(0.0, 50, 1).last(), Some(&1));
        fixture.demand.stuck_workers = 1;
        assert_eq!(fixture.run(0.0, 50, 1).last(), Some(&2), "one more, however long it starts");
        fixture.demand.stuck_workers = 2;
        assert_eq!(fixture.step(0.0, 50), 3);
        fixture.demand.stuck_workers = 3;
        assert_eq!(fixture.step(0.0, 50), 3, "the limit holds");
        fixture.demand = Demand { stuck_workers: 0, per_worker: Some(CAPACITY), ..fixture.demand };
        assert_eq!(fixture.run(0.1, 50, 20).last(), Some(&3));
        assert_eq!(fixture.run(0.1, 50, 20).last(), Some(&1));
    }

    #[test]
    fn an_endpoint_wakes_at_once_and_sleeps_after_the_idle_time() {
        let mut fixture = Fixture::new(Limits { min: 0, max: 4 });
        assert_eq!(fixture.step(0.0, 100), 0);
        fixture.demand = Demand { per_worker: None, queued: 1, arrivals: 1, ..fixture.demand };
        assert_eq!(fixture.step(0.0, 100), 1);
        fixture.demand = Demand { queued: 0, in_flight: 1, ..fixture.demand };
        assert_eq!(fixture.run(0.0, 100, 600).last(), Some(&1), "the job takes long");
        fixture.demand = Demand { in_flight: 0, per_worker: Some(CAPACITY), ..fixture.demand };
        assert_eq!(fixture.run(0.0, 100, 59).last(), Some(&1));
        assert_eq!(fixture.run(0.0, 100, 2).last(), Some(&0));
        assert_eq!(fixture.step(1.0, 100), 1, "a refused job wakes the endpoint, too");
    }

    #[test]
    fn an_unknown_capacity_keeps_the_number_of_workers() {
        let mut fixture = Fixture::new(Limits { min: 0, max: 32 });
        fixture.run(3.0 * CAPACITY, 100, 10);
        for unknown in [None, Some(0.0), Some(-1.0), Some(f64::NAN), Some(f64::INFINITY)] {
            fixture.demand.per_worker = unknown;
            assert_eq!(fixture.run(10.0, 100, 60).last(), Some(&5));
        }
    }

    #[test]
    fn a_number_set_by_an_operator_holds_until_limits_are_set_again() {
        let mut fixture = Fixture::new(Limits { min: 1, max: 8 });
        fixture.scaler.set(Limits::exactly(4), 4, IDLE);
        assert_eq!(fixture.scaler.wanted(), 4);
        assert!(fixture.run(3.0 * CAPACITY, 100, 60).iter().all(|wanted| *wanted == 4));
        fixture.scaler.set(Limits { min: 1, max: 8 }, 4, IDLE);
        assert_eq!(fixture.run(3.0 * CAPACITY, 100, 1).last(), Some(&5));
        fixture.scaler.set(Limits { min: 3, max: 2 }, 4, IDLE);
        assert_eq!(fixture.step(0.0, 100), 2);
    }

    #[test]
    fn an_endpoint_that_is_put_to_sleep_under_load_wakes_with_the_next_job() {
        let mut fixture = Fixture::new(Limits { min: 1, max: 8 });
        fixture.run(3.0 * CAPACITY, 100, 10);
        fixture.scaler.set(Limits { min: 0, max: 8 }, 0, seconds(5.0));
        fixture.demand.in_flight = 3;
        assert_eq!(fixture.run(0.0, 100, 2).last(), Some(&0), "its last jobs are finished");
        fixture.demand.in_flight = 0;
        assert!(fixture.step(1.0, 100) > 0);
        assert!(*fixture.run(0.0, 100, 4).last().unwrap() > 0);
        assert_eq!(fixture.run(0.0, 100, 2).last(), Some(&0));
    }

    /// Returns a number of jobs that varies like the sum of many independent clients.
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
        fn decisions_respect_the_limits_and_keep_a_worker_while_jobs_exist(
            (min, max) in (0usize..10, 0usize..10),
            steps in prop::collection::vec(any_step(), 1..200),
        ) {
            let mut fixture = Fixture::new(Limits { min, max });
            for (jobs, after_ms, queued, in_flight, per_worker) in steps {
                fixture.demand = Demand { queued, in_flight, per_worker, ..fixture.demand };
                let before = fixture.scaler.wanted();
                let wanted = fixture.step(jobs as f64, after_ms);
                prop_assert!(wanted >= min.min(max) && wanted <= max);
                prop_assert!(wanted >= 1 || max == 0 || queued == 0 && (in_flight == 0 || before == 0));
            }
        }

        #[test]
        fn more_arrivals_never_give_fewer_workers(
            steps in prop::collection::vec(any_step(), 1..100),
            extra in 1u64..1000,
        ) {
            let (mut fewer, mut more) = (Fixture::new(WIDE), Fixture::new(WIDE));
            for (last, (jobs, after_ms, queued, in_flight, per_worker)) in (1..).zip(&steps) {
                for fixture in [&mut fewer, &mut more] {
                    let (queued, in_flight, per_worker) = (*queued, *in_flight, *per_worker);
                    fixture.demand = Demand { queued, in_flight, per_worker, ..fixture.demand };
                }
                more.demand.arrivals += if last == steps.len() { extra } else { 0 };
                let wanted = fewer.step(f64::from(*jobs), *after_ms);
                prop_assert!(more.step(f64::from(*jobs), *after_ms) >= wanted);
            }
        }

        #[test]
        fn constant_demand_converges(per_second in 1.0..3000.0, every_ms in 20u64..200) {
            let mut fixture = Fixture::new(WIDE);
            fixture.run(per_second, every_ms, 60);
            let wanted = fixture.run(per_second, every_ms, 120);
            let exact = per_second / (CAPACITY * 0.7);
            // Close to a whole number, the fraction of a job may still raise the decision once.
            prop_assert!(wanted.is_sorted() && wanted[wanted.len() - 1] <= wanted[0] + 1);
            prop_assert!(wanted[0] >= (exact * 0.98).ceil() as usize);
            prop_assert!(wanted[0] <= (exact * MARGIN).ceil() as usize + 1);
        }

        #[test]
        fn a_noisy_constant_load_does_not_flap(per_second in 100.0..3000.0, mut seed: u64) {
            let mut fixture = Fixture::new(WIDE);
            let decisions: Vec<_> =
                (0..6000).map(|_| fixture.step(noisy(per_second, 100, &mut seed), 100)).collect();
            let changes = decisions[600..].windows(2).filter(|pair| pair[0] != pair[1]).count();
            prop_assert!(changes <= 4, "{changes} changes in nine minutes at {per_second}");
        }

        #[test]
        fn an_idle_endpoint_goes_to_the_minimum(min in 0usize..4, per_second in 0.0..3000.0) {
            let mut fixture = Fixture::new(Limits { min, max: 100 });
            fixture.run(per_second, 100, 30);
            prop_assert_eq!(fixture.run(0.0, 100, 61).pop(), Some(min));
        }
    }

    fn any_step() -> impl Strategy<Value = (u32, u64, usize, usize, Option<f64>)> {
        let per_worker = prop_oneof![Just(None), (0.01..1000.0).prop_map(Some)];
        (0u32..100, 0u64..2000, 0usize..3, 0usize..3, per_worker)
    }
}
