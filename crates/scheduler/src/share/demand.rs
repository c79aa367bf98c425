//! The number of cores that a worker uses, measured while it computes. Pure.

use std::time::Duration;

/// The least time over which the use is measured: the system counts it in hundredths of a second.
const LEAST: Duration = Duration::from_millis(50);

/// The weight of a new measurement that is lower. It is small, because other programs on the same cores make a
/// worker look as if it needed less.
const WEIGHT_OF_LOWER: f64 = 0.05;

/// The error of a CPU time.
const TICK: Duration = Duration::from_millis(10);

/// The use of cores by a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    cores: f64,
    /// The CPU time at the last measurement; `None` if it cannot be measured.
    cpu: Option<Duration>,
    /// The time in which the worker has run since then.
    ran: Duration,
}

impl Demand {
    /// Returns the demand of a worker of which only its number of threads is known, and its CPU time so far.
    pub(crate) fn expected(threads: usize, cpu: Option<Duration>) -> Self {
        Self { cores: threads as f64, cpu, ran: Duration::ZERO }
    }

    /// Returns the number of cores.
    pub(crate) fn cores(&self) -> f64 {
        self.cores
    }

    /// Returns whether no time was added since the last measurement.
    pub(crate) fn is_fresh(&self) -> bool {
        self.ran.is_zero()
    }

    /// Begins a measurement, with this CPU time now.
    pub(crate) fn begin(&mut self, cpu: Option<Duration>) {
        self.cpu = cpu;
    }

    /// Adds a time in which the worker ran.
    pub(crate) fn ran(&mut self, time: Duration) {
        self.ran += time;
    }

    /// Returns whether it can be measured over a time that suffices.
    pub(crate) fn is_due(&self) -> bool {
        self.cpu.is_some() && self.ran >= LEAST
    }

    /// Returns the number of cores that it has used since the last measurement, with this CPU time now.
    pub(crate) fn used(&self, cpu: Duration) -> f64 {
        let used = cpu.saturating_sub(self.cpu.unwrap_or(cpu));
        used.as_secs_f64() / self.ran.max(LEAST).as_secs_f64()
    }

    /// Takes a measurement, with this CPU time now. If the device was `full`, the worker may have got less
    /// than it can use; one that has used next to nothing waits for something else.
    pub(crate) fn measure(&mut self, cpu: Duration, full: bool) {
        let used = cpu.saturating_sub(self.cpu.unwrap_or(cpu));
        let cores = |used: Duration| used.as_secs_f64() / self.ran.max(LEAST).as_secs_f64();
        let (least, most) = (cores(used.saturating_sub(TICK)), cores(used + TICK));
        if used <= TICK {
            self.cores = 0.0;
        } else if least > self.cores {
            self.cores = least;
        } else if most < self.cores && !full {
            self.cores += WEIGHT_OF_LOWER * (most - self.cores);
        }
        (self.cpu, self.ran) = (Some(cpu), Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn worker() -> Demand {
        Demand::expected(1, Some(Duration::ZERO))
    }

    fn measure(demand: &mut Demand, cores: f64, full: bool) {
        demand.ran(100 * MS);
        demand.measure(demand.cpu.unwrap() + (100 * MS).mul_f64(cores), full);
    }

    #[test]
    fn a_worker_that_waits_for_others_takes_no_core() {
        let mut demand = worker();
        assert_eq!(demand.cores(), 1.0);
        measure(&mut demand, 0.0, false);
        assert_eq!(demand.cores(), 0.0);
    }

    #[test]
    fn more_counts_at_once_and_less_after_a_while() {
        let mut demand = worker();
        measure(&mut demand, 3.0, false);
        assert!((demand.cores() - 2.9).abs() < 1e-9);
        measure(&mut demand, 1.0, false);
        assert!((demand.cores() - 2.81).abs() < 1e-9);
        (0..200).for_each(|_| measure(&mut demand, 1.0, false));
        assert!((demand.cores() - 1.1).abs() < 1e-3);
    }

    #[test]
    fn what_the_error_of_a_measurement_explains_changes_nothing() {
        let mut demand = worker();
        measure(&mut demand, 1.09, false);
        measure(&mut demand, 0.91, false);
        assert_eq!(demand.cores(), 1.0);
    }

    #[test]
    fn what_a_worker_gets_of_a_full_device_says_little() {
        let mut demand = worker();
        measure(&mut demand, 2.1, true);
        assert!((demand.cores() - 2.0).abs() < 1e-9, "it can use at least that");
        measure(&mut demand, 0.5, true);
        assert!((demand.cores() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn short_times_are_added_up() {
        let mut demand = worker();
        (0..4).for_each(|_| demand.ran(10 * MS));
        assert!(!demand.is_due());
        demand.ran(10 * MS);
        assert!(demand.is_due());
        demand.measure(90 * MS, false);
        assert!((demand.cores() - 1.6).abs() < 1e-9);
    }

    #[test]
    fn a_worker_that_cannot_be_measured_takes_its_threads() {
        let mut demand = Demand::expected(3, None);
        demand.ran(500 * MS);
        assert!(!demand.is_due());
        assert_eq!(demand.cores(), 3.0);
    }
}
