//! The decision which requests are remembered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::record::RequestRecord;

/// The number of requests that are remembered because they failed.
const FAILED: usize = 50;

/// The number of requests that are remembered because they were slow.
pub(crate) const SLOWEST: usize = 20;

/// The time for which a request is remembered because it was slow.
const SLOW_TIME: Duration = Duration::from_secs(900);

/// The requests of an endpoint that are remembered: the last ones, the last that failed, and the slowest.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    recent: VecDeque<Arc<RequestRecord>>,
    failed: VecDeque<Arc<RequestRecord>>,
    /// The slowest first.
    slowest: Vec<Arc<RequestRecord>>,
    /// The memory of all lists; a record in two of them counts twice.
    bytes: usize,
}

/// A choice among the requests that are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Choice {
    /// Whether the slowest are chosen, instead of the last ones.
    pub slowest: bool,
    /// The range of the statuses.
    pub statuses: Option<(u16, u16)>,
    /// The most requests.
    pub limit: usize,
}

impl Choice {
    fn chooses(&self, record: &RequestRecord) -> bool {
        self.statuses.is_none_or(|(least, most)| {
            let status = record.broken.or(record.status).unwrap_or(499);
            (least..=most).contains(&status)
        })
    }
}

impl Retained {
    /// Remembers a request that ended at `now`, among `most` last ones and in `max_bytes` of memory.
    pub(crate) fn keep(
        &mut self,
        record: Arc<RequestRecord>,
        now: Instant,
        most: usize,
        max_bytes: usize,
    ) {
        self.forget_slow(now);
        let least = self.least_slow();
        if least.is_none_or(|least| record.duration > least) {
            if least.is_some() {
                self.forgotten(self.slowest.len() - 1, |it| &mut it.slowest);
            }
            let at = self.slowest.partition_point(|other| other.duration >= record.duration);
            self.bytes += record.bytes();
            self.slowest.insert(at, record.clone());
        }
        self.bytes += record.bytes();
        let (list, most) = match record.is_failed() {
            true => (&mut self.failed, FAILED),
            false => (&mut self.recent, most),
        };
        list.push_back(record);
        if list.len() > most {
            let oldest = list.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.bytes());
        }
        while self.bytes > max_bytes && self.forget_one() {}
    }

    /// Returns the duration that a request must exceed to be among the slowest; `None` if there is room.
    pub(crate) fn least_slow(&self) -> Option<Duration> {
        let last = self.slowest.last().filter(|_| self.slowest.len() >= SLOWEST);
        last.map(|last| last.duration)
    }

    /// Returns the number of requests that are remembered.
    pub(crate) fn len(&self) -> usize {
        let is_elsewhere = |record: &&Arc<RequestRecord>| {
            let lists = self.recent.iter().chain(&self.failed);
            !lists.into_iter().any(|other| Arc::ptr_eq(other, record))
        };
        let slowest = self.slowest.iter().filter(is_elsewhere).count();
        self.recent.len() + self.failed.len() + slowest
    }

    /// Returns the chosen requests: the slowest first, or the last to arrive first.
    pub(crate) fn chosen(&self, choice: Choice) -> Vec<Arc<RequestRecord>> {
        let fits = |record: &&Arc<RequestRecord>| choice.chooses(record);
        if choice.slowest {
            return self.slowest.iter().filter(fits).take(choice.limit).cloned().collect();
        }
        let all = self.recent.iter().chain(&self.failed).chain(&self.slowest);
        let mut chosen: Vec<_> = all.filter(fits).cloned().collect();
        chosen.sort_by_key(|record| std::cmp::Reverse((record.began, record.number)));
        chosen.dedup_by_key(|record| record.number);
        chosen.truncate(choice.limit);
        chosen
    }

    /// Returns the last request for which this is true.
    pub(crate) fn find(
        &self,
        is_it: impl Fn(&RequestRecord) -> bool,
    ) -> Option<Arc<RequestRecord>> {
        let all = self.recent.iter().chain(&self.failed).chain(&self.slowest);
        all.filter(|record| is_it(record)).max_by_key(|record| record.number).cloned()
    }

    fn forget_slow(&mut self, now: Instant) {
        let mut freed = 0;
        self.slowest.retain(|record| {
            let is_kept = now.saturating_duration_since(record.began) < SLOW_TIME;
            freed += if is_kept { 0 } else { record.bytes() };
            is_kept
        });
        self.bytes -= freed;
    }

    fn forgotten(&mut self, at: usize, list: impl Fn(&mut Self) -> &mut Vec<Arc<RequestRecord>>) {
        let record = list(self).remove(at);
        self.bytes -= record.bytes();
    }

    /// Forgets the oldest of the longer list; the slowest last. Returns whether there was one.
    fn forget_one(&mut self) -> bool {
        let longer = match self.recent.len() >= self.failed.len() {
            true => &mut self.recent,
            false => &mut self.failed,
        };
        let Some(record) = longer.pop_front().or_else(|| self.slowest.pop()) else { return false };
        self.bytes -= record.bytes();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, milliseconds: u64, status: u16) -> Arc<RequestRecord> {
        let record = RequestRecord::sample(number, &number.to_string(), milliseconds);
        Arc::new(RequestRecord { status: Some(status), ..record })
    }

    fn numbers(retained: &Retained, choice: Choice) -> Vec<u64> {
        retained.chosen(choice).iter().map(|record| record.number).collect()
    }

    const ALL: Choice = Choice { slowest: false, statuses: None, limit: usize::MAX };
    const MUCH: usize = 1 << 30;

    #[tokio::test(start_paused = true)]
    async fn the_last_the_failed_and_the_slowest_are_kept() {
        let mut retained = Retained::default();
        for number in 0..1_000 {
            // Slow and failed requests are at the start, so that later ones would push them out.
            let status = if number < 3 { 500 } else { 200 };
            let milliseconds = if (10..15).contains(&number) { 1_000 + number } else { 1 };
            retained.keep(record(number, milliseconds, status), Instant::now(), 4, MUCH);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let slowest = numbers(&retained, Choice { slowest: true, limit: 5, ..ALL });
        assert_eq!(slowest, [14, 13, 12, 11, 10]);
        assert_eq!(numbers(&retained, Choice { statuses: Some((500, 599)), ..ALL }), [2, 1, 0]);
        assert_eq!(numbers(&retained, Choice { limit: 4, ..ALL }), [999, 998, 997, 996]);
        // Four of the last, three that failed, and the slowest, some of which failed.
        assert_eq!(retained.len(), numbers(&retained, ALL).len());
        assert!(retained.find(|record| record.number == 12).is_some());
        assert!(retained.find(|record| record.number == 500).is_none());
        // After a quarter of an hour the slowest are those of that time.
        tokio::time::advance(SLOW_TIME).await;
        retained.keep(record(1_000, 1, 200), Instant::now(), 4, MUCH);
        assert_eq!(numbers(&retained, Choice { slowest: true, ..ALL }), [1_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let mut retained = Retained::default();
        let most = 30 * record(0, 1, 200).bytes();
        for number in 0..1_000 {
            let status = if number % 2 == 0 { 500 } else { 200 };
            retained.keep(record(number, number, status), Instant::now(), 100, most);
            let lists = retained.recent.iter().chain(&retained.failed).chain(&retained.slowest);
            assert_eq!(retained.bytes, lists.map(|record| record.bytes()).sum::<usize>());
            assert!(retained.bytes <= most);
        }
        assert_eq!(retained.slowest.len(), SLOWEST, "the slowest are forgotten last");
        retained.keep(record(1_000, 1, 200), Instant::now(), 100, 0);
        assert_eq!((retained.len(), retained.bytes), (0, 0));
    }
}
