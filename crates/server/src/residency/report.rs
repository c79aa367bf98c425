//! The memory of all workers, as operators and metrics read it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use litplex_admin::{GpuBudget, MemoryStatus, ResidencyStatus};
use litplex_residency::{EndpointId, Memory, Place};

/// The memory of all workers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MemoryReport {
    /// The memory that all workers together may have.
    pub(crate) budget: Memory,
    /// The memory that they have, those that load or leave included.
    pub(crate) held: Memory,
    /// The generations of endpoints with workers.
    pub(crate) endpoints: BTreeMap<EndpointId, EndpointMemory>,
    /// The counts by the label of the endpoint, over all its generations.
    pub(crate) counts: BTreeMap<Arc<str>, Counts>,
}

/// The memory of a generation's workers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EndpointMemory {
    /// The label of the endpoint.
    pub(crate) label: Arc<str>,
    /// The memory that a worker is expected to need.
    pub(crate) predicted: Memory,
    /// Whether that was measured, and not declared or assumed.
    pub(crate) is_measured: bool,
    /// The time that a worker is expected to take to load.
    pub(crate) reload: Duration,
    /// Whether a worker waits for memory.
    pub(crate) is_waiting: bool,
    /// The last eviction: which endpoint needed the memory, or why else.
    pub(crate) last_eviction: Option<String>,
}

/// The counts of an endpoint since the server started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counts {
    /// The workers that were loaded.
    pub(crate) loads: u64,
    /// The time that they took to load, in seconds.
    pub(crate) load_seconds: f64,
    /// The workers that left because others needed their memory.
    pub(crate) evictions: u64,
    /// The requests that came while a worker was in memory.
    pub(crate) hits: u64,
    /// The requests that came while none was.
    pub(crate) misses: u64,
    /// The asks for memory that were refused.
    pub(crate) refusals: u64,
}

impl MemoryReport {
    /// Returns it for operators.
    pub(crate) fn status(&self) -> MemoryStatus {
        let gpu = |index: &usize| {
            let at = |memory: &Memory| memory.at(Place::Device(*index));
            GpuBudget { index: *index, held: at(&self.held), budget: at(&self.budget) }
        };
        let gpus = self.budget.devices.keys().map(gpu).collect();
        MemoryStatus { held: self.held.host, budget: self.budget.host, gpus }
    }

    /// Returns the memory of a generation's workers for operators.
    pub(super) fn endpoint_status(&self, id: EndpointId) -> Option<ResidencyStatus> {
        let memory = self.endpoints.get(&id)?;
        let counts = self.counts.get(&memory.label).copied().unwrap_or_default();
        Some(ResidencyStatus {
            predicted: memory.predicted.host,
            predicted_gpu: memory.predicted.devices.values().copied().max().unwrap_or(0),
            is_measured: memory.is_measured,
            load_seconds: memory.reload.as_secs_f64(),
            is_waiting: memory.is_waiting,
            loads: counts.loads,
            loading_seconds: counts.load_seconds,
            evictions: counts.evictions,
            last_eviction: memory.last_eviction.clone(),
            hits: counts.hits,
            misses: counts.misses,
            refusals: counts.refusals,
        })
    }
}
