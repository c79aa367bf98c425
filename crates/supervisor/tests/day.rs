//! A simulated day of one endpoint: scaled by its load, and with enough workers for its peak.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use litplex_supervisor::{Autoscaler, Demand, Limits, Scaling};
use tokio::time::Instant;

/// Jobs per second for every five minutes of a day. The data is synthetic: a quiet night, a steep
/// morning, a dip at noon, a busier evening, 7 % of noise, and six spikes of five minutes
/// up to four times the load around them.
#[rustfmt::skip]
const DAY: [u32; 288] = [
    5, 5, 5, 4, 5, 4, 5, 5, 5, 4, 5, 4,
    4, 4, 4, 4, 4, 4, 4, 4, 4, 3, 3, 3,
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 2,
    3, 3, 2, 2, 2, 9, 2, 2, 2, 2, 2, 2,
    2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    2, 2, 3, 3, 2, 3, 3, 3, 3, 3, 3, 4,
    4, 3, 3, 4, 3, 4, 5, 5, 5, 4, 6, 6,
    6, 6, 5, 6, 6, 8, 7, 8, 8, 9, 9, 10,
    9, 8, 11, 11, 12, 12, 12, 13, 12, 12, 13, 14,
    17, 16, 16, 16, 16, 16, 16, 14, 16, 16, 18, 18,
    19, 20, 30, 19, 21, 18, 20, 18, 16, 18, 17, 18,
    17, 18, 15, 20, 19, 17, 16, 17, 18, 17, 17, 14,
    15, 18, 16, 14, 15, 14, 15, 17, 15, 17, 16, 14,
    15, 18, 15, 14, 17, 16, 16, 17, 14, 16, 15, 14,
    15, 17, 16, 14, 15, 18, 18, 15, 19, 16, 15, 16,
    18, 18, 18, 16, 16, 15, 16, 27, 25, 15, 15, 15,
    14, 14, 14, 14, 15, 15, 13, 15, 14, 15, 14, 13,
    13, 14, 14, 13, 13, 14, 13, 13, 12, 13, 12, 13,
    14, 16, 15, 14, 14, 16, 16, 16, 15, 16, 16, 16,
    16, 17, 15, 16, 19, 17, 20, 17, 19, 20, 18, 19,
    24, 19, 19, 19, 20, 20, 21, 32, 19, 18, 17, 16,
    17, 18, 17, 17, 17, 15, 17, 14, 13, 13, 24, 12,
    11, 12, 12, 10, 10, 10, 10, 9, 8, 8, 8, 7,
    8, 7, 7, 8, 7, 6, 6, 7, 7, 6, 6, 6,
];

const FIVE_MINUTES: u64 = 300 * SECOND;

/// A second; times are in microseconds.
const SECOND: u64 = 1_000_000;

/// The time between two decisions.
const TICK: u64 = SECOND / 10;

/// The start time of a worker.
const START: u64 = 5 * SECOND;

/// The duration of a job.
const SERVICE: u64 = SECOND / 4;

/// The latency that 99 % of the jobs must not exceed.
const TARGET: u64 = SECOND / 2;

/// The most jobs that may wait; further ones are refused and lost.
const MAX_QUEUE: usize = 1000;

/// An endpoint with a queue, and workers that compute one job at a time.
struct Sim {
    service: u64,
    queue: VecDeque<u64>,
    /// The times at which starting workers will be ready, soonest first.
    starting: VecDeque<u64>,
    /// The times at which busy workers will finish their jobs.
    busy: BinaryHeap<Reverse<u64>>,
    idle: usize,
    /// The number of busy workers that stop after their job.
    draining: usize,
    jobs: Jobs,
    /// The total time of all workers from launch to end.
    worker_time: u64,
}

/// The outcomes of the jobs.
struct Jobs {
    arrived: u64,
    refused: u64,
    /// The number of jobs by latency in milliseconds; the last entry includes all longer ones.
    latencies: Vec<u64>,
}

impl Sim {
    fn new(service: u64, workers: usize) -> Self {
        Self {
            service,
            queue: VecDeque::new(),
            starting: VecDeque::new(),
            busy: BinaryHeap::new(),
            idle: workers,
            draining: 0,
            jobs: Jobs { arrived: 0, refused: 0, latencies: vec![0; 60_000] },
            worker_time: 0,
        }
    }

    /// Simulates until this time.
    fn run_until(&mut self, now: u64) {
        loop {
            let ready = self.starting.front().copied().unwrap_or(u64::MAX);
            let done = self.busy.peek().map_or(u64::MAX, |done| done.0);
            let next = ready.min(done);
            if next > now {
                return;
            }
            if ready <= done {
                self.starting.pop_front();
                self.idle += 1;
            } else {
                self.busy.pop();
                let goes = self.draining > 0;
                self.draining -= usize::from(goes);
                self.idle += usize::from(!goes);
            }
            self.dispatch(next);
        }
    }

    fn arrive(&mut self, now: u64) {
        self.run_until(now);
        self.jobs.arrived += 1;
        if self.queue.len() < MAX_QUEUE {
            self.queue.push_back(now);
            self.dispatch(now);
        } else {
            self.jobs.refused += 1;
        }
    }

    fn dispatch(&mut self, now: u64) {
        while self.idle > 0 {
            let Some(arrived) = self.queue.pop_front() else { return };
            self.idle -= 1;
            self.busy.push(Reverse(now + self.service));
            self.jobs.answer(now + self.service - arrived);
        }
    }

    fn ready(&self) -> usize {
        self.idle + self.busy.len() - self.draining
    }

    fn set_wanted(&mut self, wanted: usize, now: u64) {
        let mut workers = self.ready() + self.starting.len();
        while workers < wanted {
            self.starting.push_back(now + START);
            workers += 1;
        }
        while workers > wanted {
            if self.starting.pop_back().is_none() {
                match self.idle.checked_sub(1) {
                    Some(idle) => self.idle = idle,
                    None => self.draining += 1,
                }
            }
            workers -= 1;
        }
    }

    fn demand(&self) -> Demand {
        Demand {
            arrivals: self.jobs.arrived,
            queued: self.queue.len(),
            in_flight: self.busy.len(),
            per_worker: Some(SECOND as f64 / self.service as f64),
            start_time: Some(Duration::from_micros(START)),
            stuck_workers: 0,
        }
    }

    fn count_cost(&mut self) {
        let workers = self.idle + self.busy.len() + self.starting.len();
        self.worker_time += workers as u64 * TICK;
    }

    /// Simulates until the last job is finished.
    fn finish(mut self) -> Self {
        self.run_until(u64::MAX - 1);
        self
    }
}

impl Jobs {
    fn answer(&mut self, latency: u64) {
        let millis = latency.div_ceil(1000) as usize;
        let last = self.latencies.len() - 1;
        self.latencies[millis.min(last)] += 1;
    }

    fn answered(&self) -> u64 {
        self.latencies.iter().sum()
    }

    /// Returns the latency that this share of the jobs did not exceed.
    fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.answered() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            seen >= wanted
        };
        self.latencies.iter().position(reached).unwrap_or_default() as u64 * 1000
    }
}

/// A Poisson process with a variable rate.
struct Arrivals {
    bits: u64,
    now: f64,
    /// The expected number of arrivals until the next job: exponentially distributed.
    left: f64,
}

impl Arrivals {
    fn new(seed: u64) -> Self {
        Self { bits: seed, now: 0.0, left: 0.0 }
    }

    /// Calls `arrive` for each job up to `then`, at this rate.
    fn until(&mut self, then: u64, per_second: f64, mut arrive: impl FnMut(u64)) {
        let per_time = per_second / SECOND as f64;
        while self.now + self.left / per_time < then as f64 {
            self.now += self.left / per_time;
            self.left = -self.unit().ln();
            arrive(self.now as u64);
        }
        self.left -= (then as f64 - self.now) * per_time;
        self.now = then as f64;
    }

    /// Returns a random number above 0 and up to 1 (splitmix64).
    fn unit(&mut self) -> f64 {
        self.bits = self.bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = (self.bits ^ (self.bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits ^ (bits >> 31)) >> 11).max(1) as f64 / (1u64 << 53) as f64
    }
}

/// Simulates five-minute rates with the number of workers that `wanted` returns at every tick.
fn run(
    mut sim: Sim,
    rates: &[u32],
    seed: u64,
    mut wanted: impl FnMut(&Sim, u64) -> Option<usize>,
) -> Sim {
    let mut arrivals = Arrivals::new(seed);
    for now in (TICK..=rates.len() as u64 * FIVE_MINUTES).step_by(TICK as usize) {
        let rate = rates[((now - 1) / FIVE_MINUTES) as usize];
        arrivals.until(now, f64::from(rate), |at| sim.arrive(at));
        sim.run_until(now);
        if let Some(wanted) = wanted(&sim, now) {
            sim.set_wanted(wanted, now);
        }
        sim.count_cost();
    }
    sim.finish()
}

fn run_static(rates: &[u32], workers: usize, seed: u64) -> Sim {
    run(Sim::new(SERVICE, workers), rates, seed, |_, _| None)
}

fn run_scaled(rates: &[u32], limits: Limits, seed: u64) -> Sim {
    let epoch = Instant::now();
    let mut scaler = Autoscaler::new(limits, Scaling::default(), epoch);
    run(Sim::new(SERVICE, limits.min), rates, seed, move |sim, now| {
        Some(scaler.decide(&sim.demand(), epoch + Duration::from_micros(now)))
    })
}

/// Returns the fewest workers that meet the target in the busiest five minutes.
fn workers_for_the_peak(seed: u64) -> usize {
    let peak = DAY.iter().max().copied().unwrap_or_default();
    let meets = |workers: &usize| run_static(&[peak], *workers, seed).jobs.quantile(0.99) <= TARGET;
    (1..100).find(meets).expect("a hundred workers suffice")
}

#[test]
fn a_scaled_day_meets_the_target_at_three_fifths_of_the_worker_time() {
    let seed = 7;
    let peak = workers_for_the_peak(seed);
    let fixed = run_static(&DAY, peak, seed);
    let scaled = run_scaled(&DAY, Limits { min: 1, max: 32 }, seed);

    for sim in [&fixed, &scaled] {
        assert!(sim.jobs.arrived > 900_000);
        assert_eq!((sim.jobs.refused, sim.jobs.answered()), (0, sim.jobs.arrived));
        assert!(sim.jobs.quantile(0.99) <= TARGET);
    }
    let share = scaled.worker_time as f64 / fixed.worker_time as f64;
    println!(
        "{peak} workers: p99 {} ms; scaled: p99 {} ms, p99.9 {} ms, at {share:.2} of the cost",
        fixed.jobs.quantile(0.99) / 1000,
        scaled.jobs.quantile(0.99) / 1000,
        scaled.jobs.quantile(0.999) / 1000,
    );
    assert!(share <= 0.6, "{share:.2} of the cost");
}

#[test]
fn a_step_from_a_tenth_to_three_times_a_workers_capacity_is_followed_in_time() {
    for service in [SECOND / 50, SECOND / 10] {
        for seed in 0..20 {
            let wait = time_to_follow_a_step(service, seed);
            assert!(wait <= START + 2 * SECOND, "{wait} us with seed {seed}");
        }
    }
}

/// Returns the time after the step at which the needed workers are ready.
fn time_to_follow_a_step(service: u64, seed: u64) -> u64 {
    let (epoch, scaling) = (Instant::now(), Scaling::default());
    let mut scaler = Autoscaler::new(Limits { min: 1, max: 32 }, scaling, epoch);
    let (mut sim, mut arrivals) = (Sim::new(service, 1), Arrivals::new(seed));
    let needed = (3.0 / scaling.utilisation).ceil() as usize;
    let step = 60 * SECOND;
    let capacity = SECOND as f64 / service as f64;
    for now in (TICK..).step_by(TICK as usize) {
        let rate = if now <= step { 0.1 * capacity } else { 3.0 * capacity };
        arrivals.until(now, rate, |at| sim.arrive(at));
        sim.run_until(now);
        sim.set_wanted(scaler.decide(&sim.demand(), epoch + Duration::from_micros(now)), now);
        if now > step && sim.ready() >= needed {
            return now - step;
        }
    }
    unreachable!("time does not end")
}
