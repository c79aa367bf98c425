//! A run of periods of one length, encoded.
//!
//! A period is a byte of flags, and then only what is not zero: its counts as varints behind a bitmap, and
//! its levels if they differ from those of the period before. A second without requests is one byte.

use crate::period::{BUCKETS, ErrorCounts, Period};
use crate::varint;

/// The lengths that periods may have, in seconds. Each is a multiple of the one before, so that periods of
/// one are made of those of another.
const LENGTHS: [u32; 7] = [1, 5, 10, 20, 60, 300, 600];

/// The length of a whole block in seconds: the longest period.
pub(crate) const BLOCK_SECONDS: u32 = 600;

/// The most bytes of an encoded period, which is more than those of 29 varints.
const PERIOD_BYTES: usize = 300;

/// The bytes by which the memory of a block grows: doubling it would waste half.
const GROWTH: usize = 1024;

const LEVELS: u8 = 1;
const LATENCIES: u8 = 2;
const ERRORS: u8 = 4;
const JOBS: u8 = 8;
const RESTARTS: u8 = 16;

/// Periods of one length, encoded, and the seconds after them that are no whole period yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// The index of the length of the encoded periods.
    length: u8,
    /// The seconds of all periods.
    seconds: u32,
    /// The levels of the last encoded period.
    levels: [u64; 3],
    /// The period that is not whole yet.
    partial: Option<Box<Period>>,
}

impl Block {
    /// Returns the number of seconds in the block.
    pub(crate) fn seconds(&self) -> u32 {
        self.seconds
    }

    /// Returns the bytes that the block takes.
    pub(crate) fn size(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |_| size_of::<Period>());
        size_of::<Self>() + self.bytes.capacity() + partial
    }

    /// Appends a period of a second. While the encoded periods take more than `limit` bytes, they become
    /// longer.
    pub(crate) fn push(&mut self, second: &Period, limit: usize) {
        self.seconds += second.seconds;
        self.append(second);
        self.shrink_to(limit);
    }

    /// Makes periods longer until they take at most `limit` bytes, and frees what they do not take.
    pub(crate) fn shrink_to(&mut self, limit: usize) {
        while self.bytes.len() > limit && usize::from(self.length) + 1 < LENGTHS.len() {
            let mut longer = Self { length: self.length + 1, ..Self::default() };
            self.periods().for_each(|period| {
                longer.seconds += period.seconds;
                longer.append(&period);
            });
            *self = longer;
        }
    }

    /// Frees the memory that no byte takes.
    pub(crate) fn close(&mut self, limit: usize) {
        self.shrink_to(limit);
        self.bytes.shrink_to_fit();
    }

    /// Returns the periods, the oldest first.
    pub(crate) fn periods(&self) -> impl Iterator<Item = Period> + use<'_> {
        let mut rest = &self.bytes[..];
        let mut levels = [0; 3];
        let seconds = LENGTHS[usize::from(self.length)];
        let whole = std::iter::from_fn(move || {
            let (flags, after) = rest.split_first()?;
            rest = after;
            Some(decode(*flags, &mut rest, &mut levels, seconds))
        });
        whole.chain(self.partial.as_deref().copied())
    }

    fn append(&mut self, period: &Period) {
        let partial = self.partial.get_or_insert_default();
        partial.extend(period);
        if partial.seconds >= LENGTHS[usize::from(self.length)]
            && let Some(whole) = self.partial.take()
        {
            if self.bytes.capacity() - self.bytes.len() < PERIOD_BYTES {
                self.bytes.reserve_exact(GROWTH);
            }
            encode(&mut self.bytes, &whole, &mut self.levels);
        }
    }
}

fn encode(bytes: &mut Vec<u8>, period: &Period, before: &mut [u64; 3]) {
    let levels = [period.in_flight, period.queued, period.ready];
    let (errors, restarts) = (period.errors.counts(), period.restarts);
    let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
    bytes.push(
        flag(levels != *before, LEVELS)
            | flag(period.answered() > 0, LATENCIES)
            | flag(period.errors.total() > 0, ERRORS)
            | flag(period.jobs > 0, JOBS)
            | flag(restarts > 0, RESTARTS),
    );
    if levels != *before {
        levels.iter().for_each(|level| varint::put(bytes, *level));
        *before = levels;
    }
    if period.answered() > 0 {
        put_counts(bytes, &period.latencies);
    }
    if period.errors.total() > 0 {
        put_counts(bytes, &errors);
    }
    if period.jobs > 0 {
        varint::put(bytes, period.jobs);
    }
    if restarts > 0 {
        varint::put(bytes, restarts);
    }
}

fn decode(flags: u8, rest: &mut &[u8], levels: &mut [u64; 3], seconds: u32) -> Period {
    if flags & LEVELS != 0 {
        levels.iter_mut().for_each(|level| *level = varint::take(rest));
    }
    let [in_flight, queued, ready] = *levels;
    let mut period = Period { seconds, in_flight, queued, ready, ..Period::default() };
    if flags & LATENCIES != 0 {
        period.latencies = take_counts::<BUCKETS>(rest);
    }
    if flags & ERRORS != 0 {
        period.errors = ErrorCounts::from_counts(take_counts(rest));
    }
    if flags & JOBS != 0 {
        period.jobs = varint::take(rest);
    }
    if flags & RESTARTS != 0 {
        period.restarts = varint::take(rest);
    }
    period
}

/// Appends the bitmap of the counts that are not zero, and those.
fn put_counts(bytes: &mut Vec<u8>, counts: &[u64]) {
    let bitmap = counts.iter().enumerate().map(|(at, count)| u64::from(*count > 0) << at).sum();
    varint::put(bytes, bitmap);
    counts.iter().filter(|count| **count > 0).for_each(|count| varint::put(bytes, *count));
}

fn take_counts<const N: usize>(rest: &mut &[u8]) -> [u64; N] {
    let bitmap = varint::take(rest);
    std::array::from_fn(|at| if bitmap >> at & 1 == 1 { varint::take(rest) } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_without_requests_takes_a_byte() {
        let mut block = Block::default();
        let idle = Period { seconds: 1, ready: 3, ..Period::default() };
        (0..BLOCK_SECONDS).for_each(|_| block.push(&idle, 10_000));
        // The levels are said once.
        assert_eq!(block.bytes.len(), BLOCK_SECONDS as usize + 3);
        assert!(block.periods().all(|period| period == idle));
    }
}
