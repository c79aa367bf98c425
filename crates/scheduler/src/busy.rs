use std::time::Duration;

use tokio::time::Instant;

/// For how long the workers of each slot have had something to compute. It stays when they go.
#[derive(Debug, Default)]
pub(crate) struct BusyTimes(Vec<Busy>);

#[derive(Debug, Clone, Default)]
struct Busy {
    before: Duration,
    since: Option<Instant>,
}

impl BusyTimes {
    /// Notes whether the worker of a slot has something to compute from now on.
    pub(crate) fn note(&mut self, slot: usize, is_busy: bool, now: Instant) {
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

    /// Returns the time of every slot that has had a worker.
    pub(crate) fn until(&self, now: Instant) -> Vec<Duration> {
        let since = |busy: &Busy| busy.since.map_or(Duration::ZERO, |since| now - since);
        self.0.iter().map(|busy| busy.before + since(busy)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_does_not_count_and_what_goes_on_does() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut busy = BusyTimes::default();
        busy.note(1, true, start);
        busy.note(1, true, start + second);
        busy.note(1, false, start + 2 * second);
        assert_eq!(busy.until(start + 9 * second), [Duration::ZERO, 2 * second]);
        busy.note(1, true, start + 9 * second);
        assert_eq!(busy.until(start + 10 * second)[1], 3 * second);
    }
}
