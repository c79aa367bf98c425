//! The memory of all workers, as operators and metrics read it.

use std::collections::BTreeMap;

use litplex_admin::{GpuBudget, MemoryStatus, ResidencyStatus};
use litplex_residency::{EndpointId, Memory, Place};

/// The memory of all workers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MemoryReport {
    /// The memory that all workers together may have.
    pub(super) budget: Memory,
    /// The memory that they have, those that load or leave included.
    pub(super) held: Memory,
    /// The generations of endpoints with workers, as operators see them.
    pub(super) endpoints: BTreeMap<EndpointId, ResidencyStatus>,
}

impl MemoryReport {
    /// Returns it for operators.
    pub(super) fn status(&self) -> MemoryStatus {
        let gpu = |index: &usize| {
            let at = |memory: &Memory| memory.at(Place::Device(*index));
            GpuBudget { index: *index, held: at(&self.held), budget: at(&self.budget) }
        };
        let gpus = self.budget.devices.keys().map(gpu).collect();
        MemoryStatus { held: self.held.host, budget: self.budget.host, gpus }
    }
}
