//! The state of an endpoint and of its workers.

use std::time::Duration;

use tokio::time::Instant;

use crate::rate::ArrivalRate;
use crate::{EndpointId, Memory, ResidencySettings, StartHistory, Usage};

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) settings: ResidencySettings,
    pub(crate) history: StartHistory,
    pub(crate) rate: ArrivalRate,
    pub(crate) usage: Usage,
}

impl Endpoint {
    pub(crate) fn new(settings: ResidencySettings, history: StartHistory, now: Instant) -> Self {
        let (rate, usage) = (ArrivalRate::new(now), Usage::Idle);
        Self { settings, history, rate, usage }
    }

    /// Returns the memory of the next start: measured, declared or assumed.
    pub(crate) fn need(&self, assumed: &Memory) -> Memory {
        self.known_need().unwrap_or_else(|| assumed.clone())
    }

    /// Returns the time in which a worker that leaves is back.
    pub(crate) fn reload(&self) -> Duration {
        let wake = self.history.wake().filter(|_| self.settings.hibernates);
        wake.unwrap_or_else(|| self.history.reload())
    }

    /// Returns the memory of the next start as measured or declared.
    pub(crate) fn known_need(&self) -> Option<Memory> {
        self.history.memory().or_else(|| self.settings.declared.clone())
    }
}

/// A worker that has memory.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) phase: Phase,
    /// The predicted memory, and what was measured once it is.
    pub(crate) memory: Memory,
    /// The instant at which the phase began.
    pub(crate) since: Instant,
}

/// The phase of a worker that has memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The worker was granted, and loads its model or wakes, for which these endpoints are blocked.
    Loading { chain: Vec<EndpointId>, wakes: bool },
    /// The worker is ready.
    Resident { has_served: bool },
    /// The worker gets no more jobs, and finishes those that it has.
    Leaving,
    /// Its process is stopped, and most of its memory is in swap.
    Hibernated,
    /// Its process is gone, and its memory is not back yet.
    Gone,
}

impl Worker {
    /// Returns whether the memory comes back without a further decision.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving | Phase::Gone)
    }

    /// Returns whether the worker may get jobs.
    pub(crate) fn is_resident(&self) -> bool {
        matches!(self.phase, Phase::Resident { .. })
    }

    /// Returns whether the worker hibernates: it has no jobs, and its slot is free for the next grant.
    pub(crate) fn hibernates(&self) -> bool {
        self.phase == Phase::Hibernated
    }

    /// Returns the instant until which the worker stays because it has not served yet.
    pub(crate) fn stays_until(&self, least: Duration, reload: Duration) -> Instant {
        match self.phase {
            Phase::Resident { has_served: false } => self.since + least.max(reload),
            _ => self.since,
        }
    }
}
