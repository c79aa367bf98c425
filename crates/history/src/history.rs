//! The history of one endpoint.

use std::collections::VecDeque;

use crate::block::{BLOCK_SECONDS, Block};
use crate::period::Period;

/// The time that is kept, in seconds: 24 hours.
const KEPT_SECONDS: u64 = 24 * 3600;

/// The bytes of the encoded periods of a block that is complete. With what a block takes beside, six of
/// them are an hour in less than 8 kB.
const CLOSED_BYTES: usize = 1_080;

/// The bytes of the encoded periods of the block that grows: 30 for each of its seconds, so that the last
/// ten minutes are there second by second under load, too.
const OPEN_BYTES: usize = 18_000;

/// The last 24 hours of an endpoint, in at most [`History::MAX_BYTES`].
///
/// The newest block of ten minutes has a period for each second. When it is complete, its periods are made
/// longer until they fit a budget: an endpoint without requests keeps its seconds for the whole day, and a
/// busy one has periods of ten seconds, or of a minute if its requests are of many latencies. Counts are
/// exact in each case. Databases of time series roll up by age alone (as `RRDtool` does); here the size
/// decides, since most endpoints are idle at most times.
#[derive(Debug, Clone, Default)]
pub struct History {
    closed: VecDeque<Block>,
    open: Block,
}

/// A period, and when it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// The seconds between the start of the period and the end of the history.
    pub age: u64,
    /// The period.
    pub period: Period,
}

impl History {
    /// The most bytes that a history takes: 8 kB an hour.
    pub const MAX_BYTES: usize = 24 * 8_192;

    /// Returns a history without periods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a period of one second.
    pub fn push(&mut self, second: &Period) {
        self.open.push(&Period { seconds: 1, ..*second }, OPEN_BYTES);
        if self.open.seconds() >= BLOCK_SECONDS {
            self.open.close(CLOSED_BYTES);
            self.closed.push_back(std::mem::take(&mut self.open));
        }
        let blocks = usize::try_from(KEPT_SECONDS / u64::from(BLOCK_SECONDS)).unwrap_or(usize::MAX);
        if self.closed.len() > blocks {
            self.closed.pop_front();
        }
    }

    /// Returns the bytes that the history takes.
    pub fn size(&self) -> usize {
        let unused = self.closed.capacity() - self.closed.len();
        let closed: usize = self.closed.iter().map(Block::size).sum();
        closed + unused * size_of::<Block>() + self.open.size() + size_of::<VecDeque<Block>>()
    }

    /// Returns the periods that cover the last `seconds`, the oldest first, each of at least `step` seconds
    /// except the last. They are longer where the history is.
    pub fn last(&self, seconds: u64, step: u32) -> Vec<Located> {
        let blocks = || self.closed.iter().chain([&self.open]);
        let mut age: u64 = blocks().map(|block| u64::from(block.seconds())).sum();
        let mut found: Vec<Located> = Vec::new();
        for block in blocks() {
            if age.saturating_sub(block.seconds().into()) >= seconds {
                age -= u64::from(block.seconds());
                continue;
            }
            for period in block.periods() {
                let is_wanted = age.saturating_sub(period.seconds.into()) < seconds;
                match found.last_mut().filter(|last| last.period.seconds < step) {
                    _ if !is_wanted => {}
                    Some(last) => last.period.extend(&period),
                    None => found.push(Located { age, period }),
                }
                age -= u64::from(period.seconds);
            }
        }
        found
    }

    /// Returns the last `seconds` as one period; they are more where the history has longer ones.
    pub fn sum(&self, seconds: u32) -> Period {
        let found = self.last(seconds.into(), u32::MAX);
        found.first().map(|located| located.period).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::period::{BUCKETS, ErrorCounts};

    /// Seconds of an endpoint, from idle to far more than a server can do.
    fn second() -> impl Strategy<Value = Period> {
        let count = prop_oneof![4 => Just(0), 4 => 0..50u64, 1 => 0..1_000_000u64];
        let errors = prop_oneof![6 => Just(0), 1 => 0..1_000_000u64];
        let level = prop_oneof![0..4u64, 0..100_000u64];
        (
            proptest::array::uniform16(count),
            proptest::array::uniform6(errors),
            (level.clone(), level, 0..9u64, 0..2u64, 0..900u64),
        )
            .prop_map(|(latencies, errors, (in_flight, queued, ready, restarts, jobs))| {
                Period {
                    seconds: 1,
                    latencies,
                    errors: ErrorCounts::from_counts(errors),
                    restarts,
                    jobs,
                    in_flight,
                    queued,
                    ready,
                }
            })
    }

    fn sum<'a>(periods: impl IntoIterator<Item = &'a Period>) -> Period {
        periods.into_iter().fold(Period::default(), |mut all, period| {
            all.extend(period);
            all
        })
    }

    fn history_of(seconds: &[Period], length: usize) -> History {
        let mut history = History::new();
        seconds.iter().cycle().take(length).for_each(|second| history.push(second));
        history
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_history_is_small_and_keeps_its_sums(
            seconds in proptest::collection::vec(second(), 1..40),
            length in 1..5_000usize,
        ) {
            let history = history_of(&seconds, length);
            // 8 kB an hour, and the block that grows.
            let limit = length * 8_192 / 3_600 + OPEN_BYTES + 4_096;
            prop_assert!(history.size() <= limit, "{} bytes of {limit}", history.size());
            let all: Vec<_> = seconds.iter().cycle().take(length).collect();
            prop_assert_eq!(history.sum(u32::MAX), sum(all.iter().copied()));
            for step in [1, 7, 60] {
                let found = history.last(u64::MAX, step);
                let of = found.iter().map(|located| &located.period);
                prop_assert_eq!(sum(of), sum(all.iter().copied()));
                let ages: Vec<_> = found.iter().map(|located| located.age).collect();
                prop_assert_eq!(ages[0], length as u64);
                let ends = found.iter().map(|it| it.age - u64::from(it.period.seconds));
                prop_assert_eq!(Vec::from_iter(ends), Vec::from_iter(ages[1..].iter().copied().chain([0])));
            }
        }
    }

    #[test]
    fn a_day_at_any_load_is_at_most_eight_kilobytes_an_hour() {
        let busiest: fn(u64) -> Period = |at| Period {
            seconds: 1,
            latencies: std::array::from_fn(|bucket| at * 31 % 977 + bucket as u64 * 1_000_000),
            errors: ErrorCounts::from_counts([at, 1 << 40, at % 3, 9, at * at, 1]),
            restarts: at % 2,
            jobs: at * at,
            in_flight: at,
            queued: at * 7,
            ready: at % 5,
        };
        let usual: fn(u64) -> Period = |at| {
            let mut period =
                Period { seconds: 1, in_flight: at % 9, ready: 2, ..Period::default() };
            period.jobs = 181;
            period.latencies[2..6].copy_from_slice(&[at % 7, 120 + at % 40, 60 + at % 11, at % 2]);
            period
        };
        let idle: fn(u64) -> Period = |_| Period { seconds: 1, ready: 1, ..Period::default() };
        // The longest period that each has after a day, and after a minute.
        let loads = [busiest, usual, idle].into_iter().zip([(300, 5), (10, 1), (1, 1)]);
        for (load, (oldest, newest)) in loads {
            let mut history = History::new();
            for at in 0..2 * KEPT_SECONDS + 599 {
                history.push(&load(at));
                if at % 97 == 0 {
                    assert!(history.size() <= History::MAX_BYTES, "{} bytes", history.size());
                }
            }
            let found = history.last(u64::MAX, 1);
            assert!(found[0].age >= KEPT_SECONDS, "{}", found[0].age);
            let longest = |found: &[Located]| found.iter().map(|it| it.period.seconds).max();
            assert_eq!(longest(&found), Some(oldest));
            assert_eq!(longest(&history.last(60, 1)), Some(newest));
        }
    }

    #[test]
    fn the_last_seconds_are_those_asked_for() {
        let mut history = History::new();
        for at in 0..700 {
            let mut second = Period { ready: 1, ..Period::default() };
            second.latencies[BUCKETS - 1] = at;
            history.push(&second);
        }
        let found = history.last(3, 1);
        let of = |located: &Located| (located.age, located.period.answered());
        assert_eq!(Vec::from_iter(found.iter().map(of)), [(3, 697), (2, 698), (1, 699)]);
        assert_eq!(history.sum(10).answered(), (690..700).sum::<u64>());
        let steps = history.last(25, 10);
        let lengths: Vec<_> = steps.iter().map(|it| (it.age, it.period.seconds)).collect();
        assert_eq!(lengths, [(25, 10), (15, 10), (5, 5)]);
        assert_eq!(History::new().last(10, 1), []);
    }
}
