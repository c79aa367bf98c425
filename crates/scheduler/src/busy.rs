//! The time in which the workers of each slot had jobs.

use std::time::Duration;

use tokio::time::Instant;

/// For each slot, the total time in which its workers had jobs. It survives the workers.
#[derive(Debug, Default)]
pub(crate) struct BusyTimes(Vec<Busy>);

#[derive(Debug, Clone, Default)]
struct Busy {
    before: Duration,
    since: Option<Instant>,
}

impl BusyTimes {
    /// Sets whether the worker of a slot has jobs from now on.
    pub(crate) fn set(&mut self, slot: usize, is_busy: bool, now: Instant) {
        if self.0.len() <= slot {
            self.0.resize(slot + 1, Busy::default());
        }
        let busy = &mut self.0[slot];
        match busy.since {
            None if is_busy => busy.since = Some(now),
            Some(since) if !is_busy => {
                busy.before += now - since;
                busy.since = None;
            }
            _ => {}
        }
    }

    /// Returns the busy time up to `now` of every slot that has had a worker.
    pub(crate) fn totals(&self, now: Instant) -> Vec<Duration> {
        let since = |busy: &Busy| busy.since.map_or(Duration::ZERO, |since| now - since);
        self.0.iter().map(|busy| busy.before + since(busy)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_excludes_idle_time_and_includes_the_current_job() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut busy = BusyTimes::default();
        busy.set(1, true, start);
        busy.set(1, true, start + second);
        busy.set(1, false, start + 2 * second);
        assert_eq!(busy.totals(start + 9 * second), [Duration::ZERO, 2 * second]);
        busy.set(1, true, start + 9 * second);
        assert_eq!(busy.totals(start + 10 * second)[1], 3 * second);
    }
}
