use std::time::Duration;

use litplex_core::ServeError;
use litplex_metrics::Shed;
use tokio::time::Instant;

/// Jobs that may wait where nothing is known yet of how fast they are served.
const UNMEASURED_QUEUE: usize = 1024;

/// Jobs that may wait at most where nobody chose another limit.
const LARGEST_QUEUE: usize = 65_536;

/// The part of a time budget that may be spent by the estimate: it is one.
const SAFE_PART: f64 = 0.9;

/// What a job that arrives finds before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that workers hold.
    pub in_flight: usize,
    /// Jobs that workers would begin at once with.
    pub room: usize,
    /// Jobs that all workers compute at a time; 0 where there is no worker.
    pub at_a_time: usize,
    /// How long they take for so many, where that is known.
    pub time: Option<Duration>,
    /// How long until there is a worker, where there is none.
    pub until_ready: Duration,
    /// Jobs that workers hold and whose callers have left.
    pub abandoned: usize,
    /// Whether the endpoint sleeps until a job comes.
    pub is_asleep: bool,
}

impl Backlog {
    /// Returns how long a job that arrives now will take to be answered, where that is known.
    pub fn expected_time(&self) -> Option<Duration> {
        let Some(time) = self.time else {
            return (self.at_a_time == 0).then_some(self.until_ready);
        };
        let rounds = (self.queued + self.in_flight + 1).div_ceil(self.at_a_time.max(1));
        Some(self.until_ready + time * u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// Says what a job waits for longest, up to the seconds that it takes.
    fn what_takes_time(&self) -> String {
        let Self { queued, in_flight, abandoned, .. } = *self;
        if queued > 0 {
            return format!("the queue is too long: {}, which takes", wait(queued));
        }
        if self.at_a_time == 0 {
            let doing = if self.is_asleep { "is asleep" } else { "is starting" };
            return format!("the model {doing}: an answer takes");
        }
        match abandoned {
            0 if in_flight == 0 => "the model is too slow: an answer takes".into(),
            0 => format!("the model is busy with {}: an answer takes", requests(in_flight)),
            left if left < in_flight => format!(
                "the model is busy with {}, {left} of which nobody waits for: an answer takes",
                requests(in_flight)
            ),
            _ => format!(
                "the model still computes {} that nobody waits for: an answer takes",
                requests(in_flight)
            ),
        }
    }
}

/// Why a job may not join the queue: for those who watch, and for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the reasons it is.
    pub reason: Shed,
    /// What its client is told.
    pub error: ServeError,
}

impl Refusal {
    fn new(reason: Shed, detail: String, retry_after: Duration) -> Self {
        Self { reason, error: ServeError::unavailable(detail, whole_seconds(retry_after)) }
    }

    pub(crate) fn no_worker(reason: &str, retry_after: Duration) -> Self {
        let detail = format!("no worker of this endpoint is running: {reason}");
        Self::new(Shed::NoWorker, detail, retry_after)
    }
}

/// Returns how many jobs may wait at most; `is_measured`: whether it is known how fast they are
/// served.
pub(crate) fn largest_queue(max_queue: Option<usize>, is_measured: bool) -> usize {
    max_queue.unwrap_or(if is_measured { LARGEST_QUEUE } else { UNMEASURED_QUEUE })
}

/// Decides whether a job may join the queue, or why not and when to come back.
///
/// It may when a worker would begin with it at once. Else it may not when as many wait as may wait
/// (`max_queue`, where somebody chose), or when those before it will use up its time: it would be
/// computed for nobody.
///
/// # Errors
/// A 503 with `Retry-After`.
pub fn admit(
    backlog: &Backlog,
    max_queue: Option<usize>,
    now: Instant,
    deadline: Instant,
) -> Result<(), Refusal> {
    if backlog.queued < backlog.room {
        return Ok(());
    }
    let expected = backlog.expected_time();
    if backlog.queued >= largest_queue(max_queue, backlog.time.is_some()) {
        let full = format!("the queue is full: {}", wait(backlog.queued));
        return Err(Refusal::new(Shed::QueueFull, full, expected.unwrap_or_default() / 2));
    }
    let budget = deadline.saturating_duration_since(now).mul_f64(SAFE_PART);
    match expected {
        Some(expected) if expected > budget => {
            let detail = format!(
                "{} about {:.1} s, and this one has {:.1} s",
                backlog.what_takes_time(),
                expected.as_secs_f64(),
                deadline.saturating_duration_since(now).as_secs_f64(),
            );
            Err(Refusal::new(Shed::Deadline, detail, expected - budget))
        }
        _ => Ok(()),
    }
}

fn requests(count: usize) -> String {
    if count == 1 { "1 request".into() } else { format!("{count} requests") }
}

fn wait(count: usize) -> String {
    format!("{} wait{}", requests(count), if count == 1 { "s" } else { "" })
}

/// Returns the seconds of a `Retry-After`: rounded up, at least one.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Batches of 32 in 50 ms by one worker: 640 jobs a second.
    fn backlog(queued: usize) -> Backlog {
        Backlog {
            queued,
            in_flight: 32,
            room: 0,
            at_a_time: 32,
            time: Some(Duration::from_millis(50)),
            until_ready: Duration::ZERO,
            abandoned: 0,
            is_asleep: false,
        }
    }

    #[test]
    fn what_the_client_waits_for_is_said() {
        let slow = Backlog { time: Some(5 * SECOND), in_flight: 1, at_a_time: 1, ..backlog(0) };
        let starts = Backlog { at_a_time: 0, in_flight: 0, until_ready: 5 * SECOND, ..slow };
        for (backlog, says) in [
            (slow, "the model is busy with 1 request: an answer takes about 10.0 s"),
            (
                Backlog { abandoned: 1, ..slow },
                "the model still computes 1 request that nobody waits for: an answer takes about \
                 10.0 s, and this one has 1.0 s",
            ),
            (
                Backlog { abandoned: 1, in_flight: 2, ..slow },
                "the model is busy with 2 requests, 1 of which nobody waits for",
            ),
            (starts, "the model is starting: an answer takes about 10.0 s"),
            (Backlog { is_asleep: true, ..starts }, "the model is asleep: an answer takes"),
            (Backlog { queued: 1, ..slow }, "the queue is too long: 1 request waits, which takes"),
        ] {
            let error = verdict(&backlog, None).unwrap();
            assert!(error.detail.starts_with(says), "{error}");
        }
    }

    fn verdict(backlog: &Backlog, max_queue: Option<usize>) -> Option<ServeError> {
        let now = Instant::now();
        admit(backlog, max_queue, now, now + SECOND).err().map(|refusal| refusal.error)
    }

    #[test]
    fn a_job_is_let_in_as_long_as_its_time_suffices() {
        assert_eq!(verdict(&backlog(32 * 17 - 1), None), None);
        let error = verdict(&backlog(32 * 17), None).unwrap();
        assert_eq!((error.status, error.retry_after), (503, Some(1)));
        assert!(error.detail.contains("544 requests wait, which takes about 0.9 s"), "{error}");
    }

    #[test]
    fn twice_the_workers_take_twice_the_queue() {
        let two = Backlog { at_a_time: 64, ..backlog(32 * 34) };
        assert_eq!(verdict(&two, None), None);
    }

    #[test]
    fn a_job_that_is_begun_at_once_is_let_in_however_long_such_jobs_take() {
        let slow = Backlog { time: Some(60 * SECOND), in_flight: 0, ..backlog(0) };
        assert!(verdict(&slow, None).is_some());
        assert_eq!(verdict(&Backlog { room: 1, ..slow }, None), None);
    }

    #[test]
    fn retry_after_tells_when_the_queue_will_be_short_enough() {
        assert_eq!(verdict(&backlog(6400), None).unwrap().retry_after, Some(10));
    }

    #[test]
    fn a_chosen_limit_holds_whatever_the_estimate() {
        assert!(verdict(&backlog(4), Some(4)).unwrap().detail.contains("full: 4 requests"));
        assert_eq!(verdict(&backlog(3), Some(4)), None);
    }

    #[test]
    fn where_nothing_is_known_the_queue_is_bounded_all_the_same() {
        let unknown = |queued| Backlog { time: None, ..backlog(queued) };
        assert_eq!(verdict(&unknown(UNMEASURED_QUEUE - 1), None), None);
        assert!(verdict(&unknown(UNMEASURED_QUEUE), None).is_some());
        assert_eq!(verdict(&unknown(UNMEASURED_QUEUE), Some(9999)), None);
    }

    #[test]
    fn a_job_waits_for_a_worker_that_comes_in_its_time() {
        let coming = |until_ready| Backlog {
            at_a_time: 0,
            in_flight: 0,
            time: None,
            until_ready,
            ..backlog(0)
        };
        assert_eq!(verdict(&coming(SECOND / 2), None), None);
        assert_eq!(verdict(&coming(5 * SECOND), None).unwrap().retry_after, Some(5));
    }
}
