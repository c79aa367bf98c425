//! A standing queue: one that does not drain, because more arrives than is computed.
//!
//! In a queue that stands, every job waits for the whole queue, and if callers give up before that, all work
//! is in vain. Then the newest jobs go first: those are answered in time, and the others would not have been
//! either. The queue stands if the oldest job has waited for longer than a target at each dispatch during an
//! interval, which is the rule of `CoDel` (K. Nichols and V. Jacobson, *Controlling Queue Delay*, ACM Queue
//! 10(5), 2012). The order is that of adaptive LIFO (B. Maurer, *Fail at Scale*, ACM Queue 13(8), 2015).
//!
//! Callers who wait for one response before they send the next request are served in turn, however many they
//! are: newest first would starve one of them. So the order changes only while callers give up, or while more
//! jobs arrive than are computed and their deadlines refuse none of them. Where deadlines do, they bound the
//! queue: then it is better to refuse a job on its arrival than to let an older one wait in vain.

use std::time::Duration;

use tokio::time::Instant;

/// The least target. Shorter waits are no harm to callers.
const LEAST_TARGET: Duration = Duration::from_millis(100);

/// The target in batches: without overload a job waits for the batches that are computed, and for some that
/// came at the same time.
const TARGET_BATCHES: u32 = 4;

/// The number of callers who have given up from which their patience is known.
const ENOUGH: u32 = 20;

/// The part of the callers who gave up whose patience is shorter than the known one.
const QUANTILE: f64 = 0.9;

/// The part by which one observation moves the estimate.
const STEP: f64 = 0.05;

/// The part of the jobs from which on their leaving changes the order.
const LEAVING: f64 = 0.1;

/// The number of arrivals per computed job from which on the queue grows.
const GROWTH: f64 = 1.25;

/// The weight of a new job in the part of the jobs that leave.
const WEIGHT_OF_NEW: f64 = 1.0 / 64.0;

/// Whether the queue stands, and how long callers wait.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StandingQueue {
    above_since: Option<Instant>,
    stands: bool,
    window: Window,
    /// Whether more arrived than was computed in the last window.
    grows: bool,
    /// Whether deadlines bound the queue.
    is_bounded: bool,
    /// The part of the last jobs whose callers gave up.
    leaving: f64,
    gave_up: u32,
    /// The estimated quantile, in seconds.
    patience: f64,
}

/// The events since the last comparison of arrivals and dispatches.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: Option<Instant>,
    arrived: u32,
    dispatched: u32,
    refused: u32,
}

impl StandingQueue {
    /// Records how long the oldest job has waited at a dispatch. `batch_time` is the time of a full batch.
    pub(crate) fn observe(&mut self, oldest: Duration, batch_time: Duration, now: Instant) {
        let target = LEAST_TARGET.max(batch_time * TARGET_BATCHES);
        let Window { since, arrived, dispatched, refused } = self.window;
        if now - since.unwrap_or(now) >= target {
            self.grows = f64::from(arrived) > GROWTH * f64::from(dispatched);
            self.is_bounded = refused > 0;
            self.window = Window::default();
        }
        self.window.since.get_or_insert(now);
        if oldest < target {
            self.drained();
            return;
        }
        let since = *self.above_since.get_or_insert(now);
        self.stands |= now - since >= target;
    }

    /// Records that the queue is empty, or nearly so.
    pub(crate) fn drained(&mut self) {
        (self.above_since, self.stands) = (None, false);
    }

    /// Records the arrival of a job.
    pub(crate) fn arrived(&mut self) {
        self.window.arrived += 1;
    }

    /// Records that a job was refused, because it would miss its deadline.
    pub(crate) fn refused(&mut self) {
        self.window.refused += 1;
        self.is_bounded = true;
    }

    /// Returns whether callers give up while they wait.
    pub(crate) fn callers_leave(&self) -> bool {
        self.leaving >= LEAVING
    }

    /// Returns whether newer jobs go first.
    pub(crate) fn newest_first(&self) -> bool {
        self.stands && (self.callers_leave() || (self.grows && !self.is_bounded))
    }

    /// Records that a job was dispatched.
    pub(crate) fn dispatched(&mut self) {
        self.leaving -= WEIGHT_OF_NEW * self.leaving;
        self.window.dispatched += 1;
    }

    /// Records that a caller gave up after this time.
    pub(crate) fn gave_up(&mut self, after: Duration) {
        self.leaving += WEIGHT_OF_NEW * (1.0 - self.leaving);
        // Shorter times are no patience: clients that reset their connections, for example.
        let after = after.max(LEAST_TARGET).as_secs_f64();
        self.gave_up = self.gave_up.saturating_add(1);
        if self.gave_up == 1 {
            self.patience = after;
        }
        // Stochastic approximation of a quantile: in balance where a part `QUANTILE` is below it.
        let step = STEP * self.patience;
        self.patience +=
            if after > self.patience { QUANTILE * step } else { (QUANTILE - 1.0) * step };
    }

    /// Returns the time after which most callers who give up have done so; `None` while it is unknown.
    pub(crate) fn patience(&self) -> Option<Duration> {
        (self.gave_up >= ENOUGH).then(|| Duration::from_secs_f64(self.patience))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const BATCH: usize = 32;
    const BATCH_TIME: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(2);
    const USEFUL: Duration = Duration::from_secs(1);

    struct Outcome {
        /// The part of the capacity that was used for responses within `USEFUL`.
        goodput: f64,
        out_of_order: usize,
        longest: Duration,
    }

    /// Runs one worker for this long, at a load that is a multiple of its capacity.
    fn run(load: impl Fn(f64) -> f64, seconds: u64, adaptive: bool) -> Outcome {
        run_with(PATIENCE, load, seconds, adaptive)
    }

    fn run_with(
        patience: Duration,
        load: impl Fn(f64) -> f64,
        seconds: u64,
        adaptive: bool,
    ) -> Outcome {
        let mut random = fastrand::Rng::with_seed(3);
        let start = Instant::now();
        let (mut now, mut arrives) = (start, start);
        let mut queue = VecDeque::new();
        let mut standing = StandingQueue::default();
        let (mut useful, mut batches, mut out_of_order, mut longest) = (0, 0, 0, Duration::ZERO);
        let mut last = start;
        while now < start + Duration::from_secs(seconds) {
            while arrives <= now {
                queue.push_back(arrives);
                standing.arrived();
                let rate =
                    load((arrives - start).as_secs_f64()) * BATCH as f64 / BATCH_TIME.as_secs_f64();
                arrives += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            }
            while let Some(job) = queue.front().filter(|job| now - **job >= patience) {
                standing.gave_up(now - *job);
                queue.pop_front();
            }
            let Some(oldest) = queue.front() else {
                standing.drained();
                now = arrives;
                continue;
            };
            standing.observe(now - *oldest, BATCH_TIME, now);
            let newest_first = adaptive && standing.newest_first();
            now += BATCH_TIME;
            batches += 1;
            for _ in 0..BATCH.min(queue.len()) {
                let job: Option<Instant> =
                    if newest_first { queue.pop_back() } else { queue.pop_front() };
                let job = job.unwrap();
                standing.dispatched();
                useful += usize::from(now - job <= USEFUL);
                out_of_order += usize::from(job < last);
                longest = longest.max(now - job);
                last = job;
            }
        }
        let goodput = useful as f64 / (batches * BATCH) as f64;
        Outcome { goodput, out_of_order, longest }
    }

    #[test]
    fn overload_wastes_no_work_on_callers_who_give_up() {
        let first_come = run(|_| 3.0, 10, false);
        let adaptive = run(|_| 3.0, 10, true);
        assert!(first_come.goodput < 0.2, "{}", first_come.goodput);
        assert!(adaptive.goodput > 0.95, "{}", adaptive.goodput);
    }

    #[test]
    fn callers_who_send_one_request_after_the_other_are_served_in_turn() {
        let start = Instant::now();
        let (mut now, mut standing) = (start, StandingQueue::default());
        let mut queue = VecDeque::from(vec![start; 50 * BATCH]);
        queue.iter().for_each(|_| standing.arrived());
        let mut changes = 0;
        while now < start + Duration::from_secs(600) {
            standing.observe(now - queue[0], BATCH_TIME, now);
            changes += u32::from(standing.newest_first());
            now += BATCH_TIME;
            for _ in 0..BATCH {
                queue.pop_front();
                standing.dispatched();
                queue.push_back(now);
                standing.arrived();
            }
        }
        // At the start all of them arrive at once.
        assert!(changes <= TARGET_BATCHES + 1, "{changes}");
    }

    #[test]
    fn the_order_stays_where_deadlines_bound_the_queue() {
        let start = Instant::now();
        let mut standing = StandingQueue::default();
        for at in 0..100 {
            let now = start + at * BATCH_TIME;
            (0..3).for_each(|_| standing.arrived());
            standing.dispatched();
            standing.refused();
            standing.observe(Duration::from_secs(1), BATCH_TIME, now);
            assert!(!standing.newest_first());
        }
    }

    #[test]
    fn the_rest_of_a_burst_of_patient_callers_is_served_in_turn() {
        let forever = Duration::from_secs(1_000_000);
        let burst = |at: f64| if at < 2.0 { 20.0 } else { 0.5 };
        let [short, long] = [10, 60].map(|seconds| run_with(forever, burst, seconds, true));
        assert_eq!(short.out_of_order, long.out_of_order);
    }

    #[test]
    fn first_come_is_first_served_without_overload() {
        for load in [0.3, 0.7, 0.9] {
            let Outcome { out_of_order, longest, .. } = run(|_| load, 60, true);
            assert_eq!(out_of_order, 0, "{load} {longest:?}");
        }
    }

    #[test]
    fn the_order_returns_after_a_burst() {
        let burst = |at: f64| if (5.0..8.0).contains(&at) { 3.0 } else { 0.5 };
        let mut standing = run(burst, 40, true).out_of_order;
        assert!(standing > 0);
        standing = run(|at| if at < 3.0 { 3.0 } else { 0.5 }, 60, true).out_of_order;
        let longer = run(|at| if at < 3.0 { 3.0 } else { 0.5 }, 120, true).out_of_order;
        assert_eq!(standing, longer);
    }

    #[test]
    fn callers_who_leave_at_once_are_no_measure_of_patience() {
        let mut queue = StandingQueue::default();
        (0..100).for_each(|_| queue.gave_up(Duration::ZERO));
        assert!(queue.patience().unwrap() >= LEAST_TARGET.mul_f64(0.99));
        (0..500).for_each(|_| queue.gave_up(Duration::from_secs(1)));
        assert!(queue.patience().unwrap() > Duration::from_millis(900));
    }

    #[test]
    fn the_patience_of_callers_is_learned() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut queue = StandingQueue::default();
        queue.gave_up(Duration::from_secs(30));
        assert_eq!(queue.patience(), None);
        for _ in 0..2000 {
            queue.gave_up(Duration::from_secs_f64(1.0 + random.f64()));
        }
        let patience = queue.patience().unwrap().as_secs_f64();
        assert!((1.75..2.05).contains(&patience), "{patience}");
    }
}
