//! A sliding maximum.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The largest value observed within a time window.
#[derive(Debug)]
pub(crate) struct Peak {
    within: Duration,
    /// The values larger than every later one, so in decreasing order, each with the time at which
    /// it last held.
    seen: VecDeque<(Instant, usize)>,
    last: usize,
}

impl Peak {
    pub(crate) fn new(within: Duration) -> Self {
        Self { within, seen: VecDeque::new(), last: 0 }
    }

    /// Adds a value and returns the largest. A value holds until the next one is added.
    pub(crate) fn observe(&mut self, value: usize, now: Instant) -> usize {
        self.push(self.last, now);
        self.push(value, now);
        self.last = value;
        let too_old = |at: Instant| now.saturating_duration_since(at) >= self.within;
        while self.seen.len() > 1 && self.seen.front().is_some_and(|(at, _)| too_old(*at)) {
            self.seen.pop_front();
        }
        self.seen.front().map_or(value, |(_, largest)| *largest)
    }

    fn push(&mut self, value: usize, now: Instant) {
        while self.seen.back().is_some_and(|(_, smaller)| *smaller <= value) {
            self.seen.pop_back();
        }
        self.seen.push_back((now, value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[test]
    fn a_value_counts_until_the_window_after_it_last_held() {
        let start = Instant::now();
        let mut peak = Peak::new(WITHIN);
        let mut at = |seconds, value| peak.observe(value, start + Duration::from_secs(seconds));
        assert_eq!([at(0, 5), at(1, 2), at(10, 2), at(11, 2)], [5, 5, 5, 2]);
        assert_eq!([at(100, 1), at(109, 1), at(110, 1)], [2, 2, 1], "2 held until 100 s");
    }

    proptest! {
        #[test]
        fn the_peak_is_the_largest_value_in_the_window(values in prop::collection::vec((0u64..5, 0usize..9), 1..50)) {
            let (mut now, mut peak, mut seen) = (Instant::now(), Peak::new(WITHIN), Vec::new());
            let mut last = 0;
            for (seconds, value) in values {
                now += Duration::from_secs(seconds);
                seen.extend([(now, last), (now, value)]);
                last = value;
                let largest = seen.iter().filter(|(at, _)| now - *at < WITHIN).map(|(_, value)| *value).max();
                prop_assert_eq!(Some(peak.observe(value, now)), largest);
            }
        }
    }
}
