//! The memory of all workers, as operators and metrics read it.

use std::collections::BTreeMap;

use litplex_admin::{GpuBudget, MemoryStatus, ResidencyStatus};
use litplex_residency::{EndpointId, Memory, Place};

/// The memory of all workers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MemoryReport {
    /// The memory that all workers together may have.
    pub(super) budget: Memory,
    /// The memory that they and their templates have, those that load or leave included.
    pub(super) held: Memory,
    /// The bytes of it that templates have.
    pub(super) templates: u64,
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
        let MemoryReport { templates, .. } = *self;
        MemoryStatus { held: self.held.host, templates, budget: self.budget.host, gpus }
    }
}
