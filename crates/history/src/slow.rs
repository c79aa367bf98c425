//! The sentence that says why an endpoint is slow.

use std::fmt::Write as _;

use litplex_core::Mode;

/// The share of its time above which a callee is the slow part of an endpoint.
const SLOW_SHARE: f64 = 0.5;

/// What is known of an endpoint now, and of its last minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Situation<'a> {
    /// What its operator has set.
    pub mode: Mode,
    /// Whether it has workers: pipelines have none.
    pub has_workers: bool,
    /// The number of jobs that wait.
    pub queued: usize,
    /// The number of jobs that workers hold.
    pub in_flight: usize,
    /// The number of workers that are ready.
    pub ready: usize,
    /// The number of workers that load the model.
    pub starting: usize,
    /// The number of wanted workers.
    pub wanted: usize,
    /// The number of jobs that the ready workers compute at the same time.
    pub places: usize,
    /// The number of workers that were replaced in the last minute.
    pub restarts: u64,
    /// The median latency of the last minute in seconds.
    pub p50: Option<f64>,
    /// The size and the window of its batches, if it batches.
    pub batch: Option<Batch>,
    /// The callee that took most of the time of its requests, and the share.
    pub callee: Option<(&'a str, f64)>,
}

/// The batches of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Batch {
    /// The most jobs in a batch.
    pub size: usize,
    /// The time in seconds that a batch may wait to fill.
    pub timeout: f64,
}

/// Returns why an endpoint is slow, as far as its situation shows it: the first cause that applies, those
/// that stop it before those that delay it.
pub fn explanation(now: &Situation<'_>) -> Option<String> {
    let jobs =
        format!("{} wait{}", count(now.queued, "job"), if now.queued == 1 { "s" } else { "" });
    let causes = [
        stopped(now, &jobs),
        without_worker(now, &jobs),
        restarts(now),
        callee(now),
        busy(now, &jobs),
        batch_window(now),
        few_callers(now),
    ];
    causes.into_iter().flatten().next()
}

fn stopped(now: &Situation<'_>, jobs: &str) -> Option<String> {
    match now.mode {
        Mode::Serving => None,
        Mode::Paused => Some(format!("paused: {jobs} until it is resumed")),
        Mode::Draining => Some("drained: new requests get 503 until it is resumed".into()),
    }
}

fn without_worker(now: &Situation<'_>, jobs: &str) -> Option<String> {
    if !now.has_workers || now.ready > 0 {
        return None;
    }
    Some(match (now.starting, now.wanted) {
        (1.., _) => format!("{jobs} for a worker that starts"),
        (0, 0) => "no worker runs: the next request waits until one has started".into(),
        (0, _) => "no worker is ready: `litplex ps` shows why".into(),
    })
}

fn restarts(now: &Situation<'_>) -> Option<String> {
    let workers = match now.restarts {
        0 => return None,
        1 => "a worker was".to_owned(),
        many => format!("{many} workers were"),
    };
    Some(format!("{workers} replaced in the last minute: `litplex events` shows why"))
}

fn callee(now: &Situation<'_>) -> Option<String> {
    let (name, share) = now.callee.filter(|(_, share)| *share >= SLOW_SHARE)?;
    let percent = (share.min(1.0) * 100.0).round();
    Some(format!("`{name}`, which it calls, takes {percent} % of its time"))
}

fn busy(now: &Situation<'_>, jobs: &str) -> Option<String> {
    if now.queued == 0 || now.in_flight < now.places || !now.has_workers {
        return None;
    }
    let mut text = match now.ready {
        1 => "its worker is busy".to_owned(),
        ready => format!("all {ready} workers are busy"),
    };
    let _ = match now.starting {
        0 => write!(text, ": {jobs}"),
        1 => write!(text, ": {jobs}, and one more worker starts"),
        more => write!(text, ": {jobs}, and {more} more workers start"),
    };
    Some(text)
}

fn batch_window(now: &Situation<'_>) -> Option<String> {
    let Batch { size, timeout } = now.batch?;
    let is_window = timeout > 0.0 && now.p50.is_some_and(|p50| timeout >= p50 / 2.0);
    let is_unfilled = size > 1 && now.in_flight + now.queued < size;
    let milliseconds = (timeout * 1e3).round();
    (is_window && is_unfilled).then(|| {
        format!(
            "requests wait up to {milliseconds} ms (`batch_timeout`) for a batch of {size} that does \
             not fill"
        )
    })
}

fn few_callers(now: &Situation<'_>) -> Option<String> {
    let is_idle = now.queued == 0 && now.in_flight > 0 && 2 * now.in_flight <= now.places;
    is_idle.then(|| {
        format!(
            "few callers: {} in {} places of workers; more requests at once would raise the rate",
            count(now.in_flight, "job"),
            now.places
        )
    })
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workers of one place each that are not busy.
    const CALM: Situation<'_> = Situation {
        mode: Mode::Serving,
        has_workers: true,
        queued: 0,
        in_flight: 0,
        ready: 2,
        starting: 0,
        wanted: 2,
        places: 2,
        restarts: 0,
        p50: Some(0.1),
        batch: None,
        callee: None,
    };

    fn said(now: &Situation<'_>) -> String {
        explanation(now).unwrap_or_default()
    }

    #[test]
    fn an_endpoint_that_is_not_slow_has_no_explanation() {
        assert_eq!(explanation(&CALM), None);
        assert_eq!(explanation(&Situation { in_flight: 2, ..CALM }), None);
        // A pipeline has no worker that could be missing.
        let pipeline = Situation { has_workers: false, ready: 0, wanted: 0, places: 0, ..CALM };
        assert_eq!(explanation(&Situation { in_flight: 9, ..pipeline }), None);
    }

    #[test]
    fn an_operator_comes_first() {
        let paused = Situation { mode: Mode::Paused, queued: 3, restarts: 1, ..CALM };
        assert_eq!(said(&paused), "paused: 3 jobs wait until it is resumed");
        let drained = said(&Situation { mode: Mode::Draining, ..CALM });
        assert_eq!(drained, "drained: new requests get 503 until it is resumed");
    }

    #[test]
    fn an_endpoint_without_a_ready_worker_waits_for_one() {
        let none = Situation { ready: 0, places: 0, queued: 1, ..CALM };
        let starts = said(&Situation { starting: 1, ..none });
        assert_eq!(starts, "1 job waits for a worker that starts");
        assert_eq!(said(&none), "no worker is ready: `litplex ps` shows why");
        let asleep = said(&Situation { wanted: 0, queued: 0, ..none });
        assert_eq!(asleep, "no worker runs: the next request waits until one has started");
    }

    #[test]
    fn workers_that_are_replaced_are_named_before_the_queue_that_they_cause() {
        let now = Situation { restarts: 1, queued: 9, in_flight: 2, ..CALM };
        let said_once = "a worker was replaced in the last minute: `litplex events` shows why";
        assert_eq!(said(&now), said_once);
        let twice = "2 workers were replaced in the last minute: `litplex events` shows why";
        assert_eq!(said(&Situation { restarts: 2, ..now }), twice);
    }

    #[test]
    fn a_callee_that_takes_most_of_the_time_is_the_slow_part() {
        let slow = Situation { callee: Some(("/ocr", 0.84)), queued: 4, in_flight: 2, ..CALM };
        assert_eq!(said(&slow), "`/ocr`, which it calls, takes 84 % of its time");
        // Calls that run side by side take more than the whole time together.
        let many = said(&Situation { callee: Some(("/ocr", 3.0)), ..CALM });
        assert_eq!(many, "`/ocr`, which it calls, takes 100 % of its time");
        assert_eq!(explanation(&Situation { callee: Some(("/ocr", 0.4)), ..CALM }), None);
    }

    #[test]
    fn a_queue_behind_busy_workers_says_so() {
        let busy = Situation { queued: 12, in_flight: 2, ..CALM };
        assert_eq!(said(&busy), "all 2 workers are busy: 12 jobs wait");
        let one = Situation { ready: 1, places: 1, queued: 1, ..busy };
        assert_eq!(said(&one), "its worker is busy: 1 job waits");
        let more = said(&Situation { starting: 1, ..busy });
        assert_eq!(more, "all 2 workers are busy: 12 jobs wait, and one more worker starts");
        let many = said(&Situation { starting: 3, ..busy });
        assert_eq!(many, "all 2 workers are busy: 12 jobs wait, and 3 more workers start");
    }

    #[test]
    fn a_batch_that_does_not_fill_costs_its_window() {
        let batch = Some(Batch { size: 8, timeout: 0.06 });
        let waiting = Situation { batch, in_flight: 1, places: 16, ..CALM };
        let window =
            "requests wait up to 60 ms (`batch_timeout`) for a batch of 8 that does not fill";
        assert_eq!(said(&waiting), window);
        let full = Situation { in_flight: 16, ..waiting };
        assert_eq!(explanation(&full), None);
        // The model takes much longer than the window.
        assert_eq!(explanation(&Situation { p50: Some(1.0), in_flight: 0, ..waiting }), None);
    }

    #[test]
    fn few_callers_leave_places_free() {
        let few = Situation { in_flight: 1, places: 8, ..CALM };
        let text =
            "few callers: 1 job in 8 places of workers; more requests at once would raise the rate";
        assert_eq!(said(&few), text);
    }
}
