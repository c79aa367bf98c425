//! The number of workers of a generation, as the configuration or an operator sets it.

use std::time::Duration;

use litplex_config::{Endpoint, Workers};
use litplex_supervisor::Limits;

/// The number of workers of a generation, until the load changes it within limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) workers: usize,
    /// The limits of the autoscaler.
    pub(crate) limits: Limits,
    /// The time without requests after which the workers above the least number stop.
    pub(crate) keep_alive: Duration,
}

impl Size {
    /// Returns the size that the configuration asks for.
    pub(crate) fn configured(config: &Endpoint, devices: usize) -> Self {
        let limits = match config.workers {
            Workers::PerDevice(_) => Limits::exactly(devices),
            Workers::Between { min, max } => Limits { min, max },
        };
        // An endpoint with `min_workers = 0` starts one worker, so that an error shows at the start
        // and not at the first request.
        Self { workers: limits.min.max(1), limits, keep_alive: config.keep_alive }
    }

    /// Returns the size that an operator asks for. Without workers the endpoint sleeps until a request comes.
    pub(crate) fn by_hand(self, workers: usize) -> Self {
        let limits = match workers {
            0 => Limits { min: 0, max: self.limits.max },
            _ => Limits::exactly(workers),
        };
        Self { workers, limits, ..self }
    }

    /// Returns the most workers at the same time.
    pub(crate) fn most(self) -> usize {
        self.limits.max.max(1)
    }
}
