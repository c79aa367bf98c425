//! The number of workers of a generation, as the configuration or an operator sets it.

use std::time::Duration;

use litplex_config::{Endpoint, KeepAlive, Residency, Workers};
use litplex_residency::{Memory, ResidencySettings};
use litplex_supervisor::Limits;

/// The number of workers of a generation, until the load changes it within limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) workers: usize,
    /// The limits of the autoscaler.
    pub(crate) limits: Limits,
    /// Which workers stay in memory.
    pub(crate) residency: Residency,
}

impl Size {
    /// Returns the size that the configuration asks for.
    pub(crate) fn configured(config: &Endpoint, devices: usize) -> Self {
        let limits = match config.workers {
            Workers::PerDevice(_) => Limits::exactly(devices),
            Workers::Between { min, max } => Limits { min, max },
        };
        Self { workers: limits.min, limits, residency: config.residency }
    }

    /// Returns the size with at least one worker, so that an error shows at once and not at the first request.
    pub(crate) fn awake(self) -> Self {
        Self { workers: self.workers.max(1), ..self }
    }

    /// Returns the time without requests until workers stop, for the autoscaler.
    pub(crate) fn idle(self) -> Duration {
        self.residency.keep_alive.time().unwrap_or(Duration::MAX)
    }

    /// Returns the settings of the residency.
    pub(crate) fn settings(self, is_process: bool, gpus: &[Option<usize>]) -> ResidencySettings {
        let options = self.residency;
        ResidencySettings {
            declared: declared(options, is_process, gpus),
            // After a time without requests the autoscaler stops workers, which knows the load.
            is_kept: options.keep_alive == KeepAlive::Forever,
            is_pinned: options.is_pinned,
            hibernates: options.hibernates && is_process,
            min_workers: self.limits.min,
        }
    }

    /// Returns the size that an operator asks for. Without workers the endpoint sleeps until a request comes.
    pub(crate) fn by_hand(self, workers: usize) -> Self {
        let limits = match workers {
            0 => Limits { min: 0, max: self.limits.max },
            _ => Limits::exactly(workers),
        };
        Self { workers, limits, ..self }
    }

    /// Returns the size without workers, of which none hibernates either.
    pub(crate) fn cold(self) -> Self {
        let residency = Residency { hibernates: false, ..self.residency };
        Self { residency, ..self.by_hand(0) }
    }

    /// Returns the most workers at the same time.
    pub(crate) fn most(self) -> usize {
        self.limits.max.max(1)
    }
}

/// Returns the memory of a worker as declared. A model in Rust is a part of this process: its memory is not
/// measured, and is none if it is not declared.
fn declared(options: Residency, is_process: bool, gpus: &[Option<usize>]) -> Option<Memory> {
    if is_process && options.memory.is_none() && options.gpu_memory.is_none() {
        return None;
    }
    let host = Memory::on_host(options.memory.unwrap_or(0));
    let gpus = gpus.iter().flatten().filter_map(|gpu| Some((*gpu, options.gpu_memory?)));
    Some(gpus.fold(host, |memory, (gpu, bytes)| memory.with_device(gpu, bytes)))
}
