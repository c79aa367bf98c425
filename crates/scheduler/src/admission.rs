//! Admission: whether a job may join the queue, and the refusal when it may not.

use std::time::Duration;

use litplex_core::ServeError;
use litplex_metrics::Shed;
use tokio::time::Instant;

/// The default limit of waiting jobs while their service time is unknown.
const UNMEASURED_QUEUE: usize = 1024;

/// The default limit of waiting jobs.
const LARGEST_QUEUE: usize = 65_536;

/// The part of a job's remaining time that the expected time may fill; the rest allows for its
/// error.
const SAFE_PART: f64 = 0.9;

/// The `Retry-After` of an endpoint that is drained: only its operator knows when that ends.
const AFTER_DRAIN: Duration = Duration::from_secs(5);

/// The work in front of a job that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The number of jobs that wait.
    pub waiting: usize,
    /// The number of those that are computed before the job.
    pub queued: usize,
    /// The number of jobs that workers hold.
    pub in_flight: usize,
    /// The number of further jobs that workers would start at once.
    pub free_capacity: usize,
    /// The number of jobs that all workers compute at the same time; 0 without a worker.
    pub capacity: usize,
    /// The time in which they compute so many; `None` while that is unknown.
    pub batch_time: Option<Duration>,
    /// The time until a worker is ready; zero when one is.
    pub until_ready: Duration,
    /// The number of jobs in workers whose callers have left.
    pub abandoned: usize,
    /// Whether the endpoint is scaled to zero until a job arrives.
    pub is_asleep: bool,
    /// Whether the job that arrives is a call, for which work was done already.
    pub is_for_call: bool,
}

impl Backlog {
    /// Returns the expected time until a job that arrives now is answered; `None` while that is
    /// unknown.
    pub fn expected_time(&self) -> Option<Duration> {
        let Some(time) = self.batch_time else {
            return (self.capacity == 0).then_some(self.until_ready);
        };
        let rounds = (self.queued + self.in_flight + 1).div_ceil(self.capacity.max(1));
        Some(self.until_ready + time * u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// Describes the main cause of the expected time, up to the number of seconds.
    fn delay_cause(&self) -> String {
        let Self { queued, in_flight, abandoned, .. } = *self;
        if queued > 0 {
            return format!("the queue is too long: {}, which takes", wait(queued));
        }
        if self.capacity == 0 {
            let state = if self.is_asleep { "is asleep" } else { "is starting" };
            return format!("the model {state}: a response takes");
        }
        match abandoned {
            0 if in_flight == 0 => "the model is too slow: a response takes".into(),
            0 => format!("the model is busy with {}: a response takes", requests(in_flight)),
            left if left < in_flight => format!(
                "the model is busy with {}, {left} of them without a client: a response takes",
                requests(in_flight)
            ),
            _ => format!(
                "the model still computes {} without a client: a response takes",
                requests(in_flight)
            ),
        }
    }
}

/// The refusal of a job: a reason for metrics, and an error for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason that metrics count.
    pub reason: Shed,
    /// The error that the client receives.
    pub error: ServeError,
}

impl Refusal {
    fn new(reason: Shed, detail: String, retry_after: Duration) -> Self {
        let retry_after = whole_seconds(retry_after);
        let error = match reason {
            Shed::NoWorker | Shed::Draining => ServeError::not_ready(detail, retry_after),
            _ => ServeError::overloaded(detail, retry_after),
        };
        Self { reason, error }
    }

    /// The refusal of a request that has waited for so long that its caller has most likely given up.
    pub(crate) fn given_up(waited: Duration) -> Self {
        let detail = format!(
            "the endpoint is overloaded: this request has waited in the queue for {:.1} s, and newer ones go first",
            waited.as_secs_f64()
        );
        Self::new(Shed::Deadline, detail, Duration::from_secs(1))
    }

    pub(crate) fn queue_full(waiting: usize, retry_after: Duration) -> Self {
        let detail = format!("the queue is full: {}", wait(waiting));
        Self::new(Shed::QueueFull, detail, retry_after)
    }

    pub(crate) fn draining() -> Self {
        let detail = "this endpoint takes no new requests: its operator drains it".into();
        Self::new(Shed::Draining, detail, AFTER_DRAIN)
    }

    pub(crate) fn no_worker(reason: &str, retry_after: Duration) -> Self {
        let detail = format!("no worker of this endpoint is running: {reason}");
        Self::new(Shed::NoWorker, detail, retry_after)
    }
}

/// Returns the limit of waiting jobs; `is_measured` says whether their service time is known.
pub(crate) fn largest_queue(max_queue: Option<usize>, is_measured: bool) -> usize {
    max_queue.unwrap_or(if is_measured { LARGEST_QUEUE } else { UNMEASURED_QUEUE })
}

/// Admits a job to the queue, or returns the reason for its refusal.
///
/// A job is admitted when a worker would start it at once. Otherwise it is refused when the queue
/// is full (`max_queue`, or a default), or when the jobs before it will take longer than it has:
/// the response would come after its client gave up. A call may use all of its time: its refusal would
/// waste the work of its callers.
///
/// # Errors
/// A 503 with `Retry-After`.
pub fn admit(
    backlog: &Backlog,
    max_queue: Option<usize>,
    now: Instant,
    deadline: Instant,
) -> Result<(), Refusal> {
    if backlog.queued < backlog.free_capacity {
        return Ok(());
    }
    let expected = backlog.expected_time();
    if backlog.waiting >= largest_queue(max_queue, backlog.batch_time.is_some()) {
        return Err(Refusal::queue_full(backlog.waiting, expected.unwrap_or_default() / 2));
    }
    let part = if backlog.is_for_call { 1.0 } else { SAFE_PART };
    let budget = deadline.saturating_duration_since(now).mul_f64(part);
    match expected {
        Some(expected) if expected > budget => {
            let detail = format!(
                "{} about {:.1} s, and this request has {:.1} s",
                backlog.delay_cause(),
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
            waiting: queued,
            queued,
            in_flight: 32,
            free_capacity: 0,
            capacity: 32,
            batch_time: Some(Duration::from_millis(50)),
            until_ready: Duration::ZERO,
            abandoned: 0,
            is_asleep: false,
            is_for_call: false,
        }
    }

    #[test]
    fn a_refusal_names_the_cause_of_the_delay() {
        let slow =
            Backlog { batch_time: Some(5 * SECOND), in_flight: 1, capacity: 1, ..backlog(0) };
        let starts = Backlog { capacity: 0, in_flight: 0, until_ready: 5 * SECOND, ..slow };
        for (backlog, says) in [
            (slow, "the model is busy with 1 request: a response takes about 10.0 s"),
            (
                Backlog { abandoned: 1, ..slow },
                "the model still computes 1 request without a client: a response takes about \
                 10.0 s, and this request has 1.0 s",
            ),
            (
                Backlog { abandoned: 1, in_flight: 2, ..slow },
                "the model is busy with 2 requests, 1 of them without a client",
            ),
            (starts, "the model is starting: a response takes about 10.0 s"),
            (Backlog { is_asleep: true, ..starts }, "the model is asleep: a response takes"),
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
    fn a_job_is_admitted_while_its_time_suffices() {
        assert_eq!(verdict(&backlog(32 * 17 - 1), None), None);
        let error = verdict(&backlog(32 * 17), None).unwrap();
        assert_eq!((error.status(), error.retry_after), (503, Some(1)));
        assert!(error.detail.contains("544 requests wait, which takes about 0.9 s"), "{error}");
    }

    #[test]
    fn a_call_may_use_all_of_its_time() {
        let call = |queued| Backlog { is_for_call: true, ..backlog(queued) };
        assert_eq!(verdict(&call(32 * 19 - 1), None), None);
        assert!(verdict(&call(32 * 19), None).is_some());
    }

    #[test]
    fn twice_the_workers_take_twice_the_queue() {
        let two = Backlog { capacity: 64, ..backlog(32 * 34) };
        assert_eq!(verdict(&two, None), None);
    }

    #[test]
    fn a_job_that_starts_at_once_is_admitted_however_long_jobs_take() {
        let slow = Backlog { batch_time: Some(60 * SECOND), in_flight: 0, ..backlog(0) };
        assert!(verdict(&slow, None).is_some());
        assert_eq!(verdict(&Backlog { free_capacity: 1, ..slow }, None), None);
    }

    #[test]
    fn retry_after_is_the_time_until_the_queue_is_short_enough() {
        assert_eq!(verdict(&backlog(6400), None).unwrap().retry_after, Some(10));
    }

    #[test]
    fn a_configured_limit_holds_whatever_the_estimate() {
        assert!(verdict(&backlog(4), Some(4)).unwrap().detail.contains("full: 4 requests"));
        assert_eq!(verdict(&backlog(3), Some(4)), None);
    }

    #[test]
    fn an_unmeasured_queue_is_bounded_too() {
        let unknown = |queued| Backlog { batch_time: None, ..backlog(queued) };
        assert_eq!(verdict(&unknown(UNMEASURED_QUEUE - 1), None), None);
        assert!(verdict(&unknown(UNMEASURED_QUEUE), None).is_some());
        assert_eq!(verdict(&unknown(UNMEASURED_QUEUE), Some(9999)), None);
    }

    #[test]
    fn a_job_waits_for_a_worker_that_is_ready_before_its_deadline() {
        let coming = |until_ready| Backlog {
            capacity: 0,
            in_flight: 0,
            batch_time: None,
            until_ready,
            ..backlog(0)
        };
        assert_eq!(verdict(&coming(SECOND / 2), None), None);
        assert_eq!(verdict(&coming(5 * SECOND), None).unwrap().retry_after, Some(5));
    }
}
