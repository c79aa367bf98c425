//! The asks that wait.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Ask, Memory};

/// An ask that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) ask: Ask,
    pub(crate) need: Memory,
    pub(crate) since: Instant,
    /// The instant from which it waits no longer for what is busy or worth more, if requests wait for it.
    pub(crate) urgent_at: Instant,
    /// The longest time until then, and the time to load.
    times: (Duration, Duration),
    /// Whether workers leave for it: then the memory that comes back is its own.
    pub(crate) is_paid: bool,
    /// The instant at which it pays, as the rates were when it was last considered.
    pub(crate) pays_at: Option<Instant>,
    /// The request-seconds until `counted_at`.
    waited: f64,
    counted_at: Instant,
}

impl Waiting {
    /// Returns an ask that begins to wait. It becomes urgent after
    /// `longest`, and early enough that the model can be loaded by its deadline.
    pub(crate) fn new(ask: Ask, need: Memory, times: (Duration, Duration), now: Instant) -> Self {
        let urgent_at = urgent_at(&ask, now, times).max(now);
        let (is_paid, pays_at, waited, counted_at) = (false, None, 0.0, now);
        Self { ask, need, since: now, urgent_at, times, is_paid, pays_at, waited, counted_at }
    }

    /// Takes a second ask of the same worker, which says what is true now.
    pub(crate) fn renew(&mut self, ask: Ask, now: Instant) {
        self.set_queued(ask.queued, now);
        self.urgent_at = urgent_at(&ask, self.since, self.times);
        self.ask = ask;
    }

    pub(crate) fn set_queued(&mut self, queued: usize, now: Instant) {
        self.waited = self.waited(now);
        self.counted_at = now;
        self.ask.queued = queued;
    }

    /// Returns the request-seconds that the requests have waited together.
    pub(crate) fn waited(&self, now: Instant) -> f64 {
        self.waited + (now - self.counted_at).as_secs_f64() * self.requests()
    }

    /// Returns the number of requests that wait; one that is required counts as one at least.
    fn requests(&self) -> f64 {
        self.ask.queued.max(usize::from(self.ask.is_required)) as f64
    }

    /// Returns whether none waits for the worker: it gets memory that is free, and no other leaves for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests() == 0.0 && self.ask.chain.is_empty()
    }

    /// Returns the time until the requests have waited for so many request-seconds.
    pub(crate) fn time_until(&self, waited: f64, now: Instant) -> Duration {
        let seconds = (waited - self.waited(now)).max(0.0) / self.requests();
        // A millisecond more, so that rounding does not wake the caller too early.
        Duration::from_secs_f64(seconds.min(86_400.0)) + Duration::from_millis(1)
    }

    /// Returns whether it waits no longer for what is busy or worth more. A blocked caller's work is half done
    /// and its memory is held: it goes before work that has not begun.
    pub(crate) fn is_urgent(&self, now: Instant) -> bool {
        !self.ask.chain.is_empty() || self.is_due(now)
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.is_idle() && now >= self.urgent_at
    }

    /// Returns the order in which asks get memory: calls first, then those for which workers leave, those that
    /// have waited long enough, and among the others those with the most waiting requests.
    pub(crate) fn order(&self, now: Instant) -> (bool, bool, Option<Instant>, u64) {
        let is_urgent = self.is_due(now);
        let waited = (self.waited(now) * 1e3) as u64;
        let bound = is_urgent.then_some(self.urgent_at);
        // `None` sorts before `Some`, therefore the far future stands for it.
        let bound = bound.or_else(|| now.checked_add(Duration::from_secs(86_400)));
        (self.ask.chain.is_empty(), !self.is_paid, bound, u64::MAX - waited)
    }
}

/// Returns the instant at which an ask that waits since then becomes urgent.
fn urgent_at(ask: &Ask, since: Instant, (longest, reload): (Duration, Duration)) -> Instant {
    let in_time = ask.deadline.checked_sub(reload).unwrap_or(since);
    in_time.min(since + longest)
}
