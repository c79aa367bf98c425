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
    /// The instant from which it waits no longer for what is busy or worth more.
    pub(crate) urgent_at: Instant,
    /// Whether workers leave for it: then the memory that comes back is its own.
    pub(crate) is_paid: bool,
    /// The instant at which it pays, as the rates were when it was last considered.
    pub(crate) pays_at: Option<Instant>,
    /// The request-seconds until `counted_at`.
    waited: f64,
    counted_at: Instant,
}

impl Waiting {
    /// Returns an ask that begins to wait, and has paid so many request-seconds. It becomes urgent after
    /// `longest`, and early enough that the model can be loaded by its deadline.
    pub(crate) fn new(
        ask: Ask,
        need: Memory,
        paid: f64,
        (longest, reload): (Duration, Duration),
        now: Instant,
    ) -> Self {
        let in_time = ask.deadline.checked_sub(reload).unwrap_or(now);
        let urgent_at = in_time.min(now + longest).max(now);
        let (is_paid, pays_at) = (false, None);
        Self { ask, need, since: now, urgent_at, is_paid, pays_at, waited: paid, counted_at: now }
    }

    /// Adds a second ask of the same worker.
    pub(crate) fn join(&mut self, ask: &Ask, now: Instant) {
        self.set_queued(self.ask.queued.max(ask.queued), now);
        self.ask.deadline = self.ask.deadline.max(ask.deadline);
        self.ask.chain.extend_from_slice(&ask.chain);
        self.ask.chain.sort_unstable();
        self.ask.chain.dedup();
    }

    pub(crate) fn set_queued(&mut self, queued: usize, now: Instant) {
        self.waited = self.waited(now);
        self.counted_at = now;
        self.ask.queued = queued;
    }

    /// Returns the request-seconds that the requests have waited together. An ask without a request, such as
    /// that of an operator, counts as one.
    pub(crate) fn waited(&self, now: Instant) -> f64 {
        self.waited + (now - self.counted_at).as_secs_f64() * self.ask.queued.max(1) as f64
    }

    /// Returns the time until the requests have waited for so many request-seconds.
    pub(crate) fn time_until(&self, waited: f64, now: Instant) -> Duration {
        let seconds = (waited - self.waited(now)).max(0.0) / self.ask.queued.max(1) as f64;
        // A millisecond more, so that rounding does not wake the caller too early.
        Duration::from_secs_f64(seconds.min(86_400.0)) + Duration::from_millis(1)
    }

    /// Returns whether it waits no longer for what is busy or worth more. A blocked caller's work is half done
    /// and its memory is held: it goes before work that has not begun.
    pub(crate) fn is_urgent(&self, now: Instant) -> bool {
        !self.ask.chain.is_empty() || now >= self.urgent_at
    }

    /// Returns the order in which asks get memory: calls first, then those for which workers leave, those that
    /// have waited long enough, and among the others those with the most waiting requests.
    pub(crate) fn order(&self, now: Instant) -> (bool, bool, Option<Instant>, u64) {
        let is_urgent = now >= self.urgent_at;
        let waited = (self.waited(now) * 1e3) as u64;
        let bound = is_urgent.then_some(self.urgent_at);
        // `None` sorts before `Some`, therefore the far future stands for it.
        let bound = bound.or_else(|| now.checked_add(Duration::from_secs(86_400)));
        (self.ask.chain.is_empty(), !self.is_paid, bound, u64::MAX - waited)
    }
}
