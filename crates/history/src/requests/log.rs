//! The requests of all endpoints that are remembered, shared by those that record and those that read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use litplex_core::Trace;
use tokio::time::Instant;

use super::record::RequestRecord;
use super::retained::{Choice, Retained};

/// The memory for the requests of all endpoints, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// The requests of an endpoint whose stages are recorded, per second. Recording takes about a
/// microsecond, so that this is a thousandth of a core.
const RECORDED_PER_SECOND: u32 = 1_000;

/// The failed requests of an endpoint that are remembered, per second: more push each other out at once.
const FAILED_PER_SECOND: u32 = 200;

/// The requests of all endpoints. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestLogs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The number of last requests of each endpoint.
    most: usize,
    /// The bytes of each body that are kept.
    body_bytes: usize,
    next: AtomicU64,
    logs: Mutex<BTreeMap<String, Arc<RequestLog>>>,
    /// The requests in progress that lead to others, by their numbers.
    leading: Mutex<BTreeMap<u64, Weak<Trace>>>,
}

/// The requests of one endpoint.
#[derive(Debug)]
pub struct RequestLog {
    label: String,
    path: String,
    created: Instant,
    recorded: Rate,
    failed: Rate,
    /// The nanoseconds that a request must exceed to be among the slowest.
    least_slow: AtomicU64,
    retained: Mutex<Retained>,
}

impl RequestLogs {
    /// Returns logs that remember this number of last requests of each endpoint, with this number of bytes of
    /// each body.
    pub fn new(most: usize, body_bytes: usize) -> Self {
        let (next, logs, leading) = (AtomicU64::new(1), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { most, body_bytes, next, logs, leading }))
    }

    /// Returns the log of the endpoint with this label and path, and creates it if it is new.
    pub fn log(&self, label: &str, path: &str) -> Arc<RequestLog> {
        let mut logs = lock(&self.0.logs);
        let make = || Arc::new(RequestLog::new(label.to_owned(), path.to_owned()));
        logs.entry(label.to_owned()).or_insert_with(make).clone()
    }

    /// Returns the log of the endpoint with this label, if there is one.
    pub fn get(&self, label: &str) -> Option<Arc<RequestLog>> {
        lock(&self.0.logs).get(label).cloned()
    }

    /// Returns the number of bytes of each body that are kept.
    pub fn body_bytes(&self) -> usize {
        self.0.body_bytes
    }

    /// Returns the number of the next request.
    pub fn next_number(&self) -> u64 {
        self.0.next.fetch_add(1, Relaxed)
    }

    /// Notes that a request in progress leads to others of the app host, which say its number.
    pub fn lead(&self, trace: &Arc<Trace>) {
        lock(&self.0.leading).insert(trace.request(), Arc::downgrade(trace));
    }

    /// Returns the request with this number that leads to others, if it is in progress.
    pub fn leading(&self, number: u64) -> Option<Arc<Trace>> {
        lock(&self.0.leading).get(&number)?.upgrade()
    }

    /// Notes that the request with this number has ended.
    pub fn end_lead(&self, number: u64) {
        lock(&self.0.leading).remove(&number);
    }

    /// Remembers a request that ended at `now`.
    pub fn keep(&self, log: &RequestLog, record: RequestRecord, now: Instant) {
        let endpoints = lock(&self.0.logs).len().max(1);
        let mut retained = lock(&log.retained);
        retained.keep(Arc::new(record), now, self.0.most, MAX_BYTES / endpoints);
        let least = retained.least_slow().unwrap_or_default();
        log.least_slow.store(least.as_nanos() as u64, Relaxed);
    }

    /// Returns the chosen requests of the endpoint with this label, or of all: each with the label of its
    /// endpoint.
    pub fn chosen(
        &self,
        label: Option<&str>,
        choice: Choice,
    ) -> Vec<(Arc<RequestLog>, Arc<RequestRecord>)> {
        let logs = self.logs().into_iter().filter(|log| label.is_none_or(|it| it == log.label));
        let mut chosen: Vec<_> = logs
            .flat_map(|log| {
                let records = lock(&log.retained).chosen(choice);
                records.into_iter().map(move |record| (log.clone(), record))
            })
            .collect();
        match choice.slowest {
            true => chosen.sort_by_key(|(_, record)| std::cmp::Reverse(record.duration)),
            false => chosen.sort_by_key(|(_, record)| std::cmp::Reverse(record.began)),
        }
        chosen.truncate(choice.limit);
        chosen
    }

    /// Returns the last request with this id, and the log of its endpoint.
    pub fn find(&self, id: &str) -> Option<(Arc<RequestLog>, Arc<RequestRecord>)> {
        self.last(|record| &*record.id == id)
    }

    /// Returns the id of the request with this number, if it is remembered.
    pub fn id(&self, number: u64) -> Option<Box<str>> {
        self.last(|record| record.number == number).map(|(_, record)| record.id.clone())
    }

    /// Returns the number of requests that are remembered.
    pub fn remembered(&self) -> usize {
        self.logs().iter().map(|log| lock(&log.retained).len()).sum()
    }

    fn last(
        &self,
        is_it: impl Fn(&RequestRecord) -> bool,
    ) -> Option<(Arc<RequestLog>, Arc<RequestRecord>)> {
        let logs = self.logs().into_iter();
        let found = logs.filter_map(|log| {
            let record = lock(&log.retained).find(&is_it)?;
            Some((log, record))
        });
        found.max_by_key(|(_, record)| record.number)
    }

    fn logs(&self) -> Vec<Arc<RequestLog>> {
        lock(&self.0.logs).values().cloned().collect()
    }
}

impl RequestLog {
    fn new(label: String, path: String) -> Self {
        Self {
            label,
            path,
            created: Instant::now(),
            recorded: Rate::default(),
            failed: Rate::default(),
            least_slow: AtomicU64::new(0),
            retained: Mutex::default(),
        }
    }

    /// Returns the label of the endpoint.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the path of the endpoint.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether the stages of a request that arrives now are recorded.
    pub fn records(&self, now: Instant) -> bool {
        self.recorded.takes(self.second(now), RECORDED_PER_SECOND)
    }

    /// Returns whether a request that ends now is remembered, although its stages were not recorded.
    pub fn wants(&self, duration: Duration, is_failed: bool, now: Instant) -> bool {
        duration.as_nanos() as u64 > self.least_slow.load(Relaxed)
            || (is_failed && self.failed.takes(self.second(now), FAILED_PER_SECOND))
    }

    fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.created).as_secs() as u32
    }
}

/// Counts to a limit within each second. Threads that count at the same time may exceed it by one each.
#[derive(Debug, Default)]
struct Rate(AtomicU64);

impl Rate {
    fn takes(&self, second: u32, limit: u32) -> bool {
        let state = self.0.load(Relaxed);
        let counted = if (state >> 32) as u32 == second { state as u32 } else { 0 };
        let is_taken = counted < limit;
        if is_taken {
            self.0.store(u64::from(second) << 32 | u64::from(counted + 1), Relaxed);
        }
        is_taken
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_begins_again_with_each_second() {
        let rate = Rate::default();
        let taken = |second| (0..10).filter(|_| rate.takes(second, 4)).count();
        assert_eq!([taken(0), taken(0), taken(1), taken(7)], [4, 0, 4, 4]);
    }

    fn record(logs: &RequestLogs, milliseconds: u64) -> RequestRecord {
        let number = logs.next_number();
        RequestRecord::sample(number, &format!("r{number}"), milliseconds)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_several_endpoints_are_found() {
        let logs = RequestLogs::new(200, 0);
        let (a, b) = (logs.log("/a", "/a"), logs.log("/b", "/b"));
        for (log, milliseconds) in [(&a, 5), (&b, 9), (&a, 7)] {
            logs.keep(log, record(&logs, milliseconds), Instant::now());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let ids = |label, slowest| {
            let choice = Choice { slowest, statuses: None, limit: 2 };
            let chosen = logs.chosen(label, choice);
            chosen.iter().map(|(_, record)| record.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, false), ["r3", "r2"]);
        assert_eq!(ids(None, true), ["r2", "r3"]);
        assert_eq!(ids(Some("/a"), true), ["r3", "r1"]);
        assert_eq!(logs.find("r2").unwrap().0.label(), "/b");
        assert!(logs.find("r9").is_none());
        assert_eq!((logs.id(1).as_deref(), logs.remembered()), (Some("r1"), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_rate_only_slow_and_failed_requests_are_wanted() {
        let logs = RequestLogs::new(200, 0);
        let log = logs.log("/a", "/a");
        let now = Instant::now();
        let recorded = (0..5_000).filter(|_| log.records(now)).count();
        assert_eq!(recorded, RECORDED_PER_SECOND as usize);
        let duration = Duration::from_millis(10);
        assert!(log.wants(duration, false, now), "there is room among the slowest");
        for _ in 0..super::super::retained::SLOWEST {
            logs.keep(&log, record(&logs, 10), now);
        }
        assert!(!log.wants(duration, false, now));
        assert!(log.wants(duration, true, now));
        assert!(log.wants(duration * 2, false, now));
    }
}
