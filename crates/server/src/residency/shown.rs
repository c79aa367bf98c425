//! The state of the task as operators and metrics see it.

use litplex_admin::{NextLoad, PlannedMemory, ResidencyStatus};
use litplex_residency::{EndpointId, Plan, WorkerId};
use tokio::time::Instant;

use super::report::MemoryReport;
use super::task::{JoinedMember, ResidencyTask};

impl ResidencyTask {
    /// Returns what a request for each endpoint would lead to now.
    pub(super) fn plan(&self) -> Vec<PlannedMemory> {
        let now = Instant::now();
        let planned = self.members.iter().filter_map(|(id, member)| {
            let gpu = self.gpu(WorkerId { endpoint: *id, slot: 0 });
            let plan = self.residency.plan(*id, gpu, now)?;
            let (predicted, reload) = self.residency.prediction(*id)?;
            let label = |id: &EndpointId| Some(self.members.get(id)?.membership.label.to_string());
            let (evicts, reason) = match &plan {
                Plan::Evicts(ids) => (ids.iter().filter_map(label).collect(), None),
                Plan::Never(refusal) => (Vec::new(), Some(refusal.to_string())),
                Plan::Resident | Plan::Fits | Plan::Waits => (Vec::new(), None),
            };
            let held = self.residency.held_by(*id);
            Some(PlannedMemory {
                endpoint: member.membership.label.to_string(),
                needs: predicted.host,
                needs_gpu: predicted.most_on_a_device(),
                is_measured: self.residency.is_measured(*id),
                load_seconds: reload.as_secs_f64(),
                held: held.host,
                held_gpu: held.devices.values().sum(),
                stays: self.residency.stays(*id),
                next: match plan {
                    Plan::Resident => NextLoad::InMemory,
                    Plan::Fits => NextLoad::Fits,
                    Plan::Evicts(_) => NextLoad::Evicts,
                    Plan::Waits => NextLoad::Waits,
                    Plan::Never(_) => NextLoad::Never,
                },
                evicts,
                reason,
            })
        });
        planned.collect()
    }

    /// Publishes the state, if it has changed.
    pub(super) fn publish(&self) {
        let endpoints =
            self.members.iter().filter_map(|(id, member)| Some((*id, self.status(*id, member)?)));
        let report = MemoryReport {
            budget: self.budget.clone(),
            held: self.held(),
            templates: self.template_memory,
            endpoints: endpoints.collect(),
        };
        self.publish.send_if_modified(|published| {
            let has_changed = *published != report;
            *published = report;
            has_changed
        });
    }

    /// Returns the memory of a generation's workers for operators.
    fn status(&self, id: EndpointId, member: &JoinedMember) -> Option<ResidencyStatus> {
        let (predicted, reload) = self.residency.prediction(id)?;
        let counts = self.counts.get(&member.membership.label).copied().unwrap_or_default();
        Some(ResidencyStatus {
            predicted: predicted.host,
            predicted_gpu: predicted.most_on_a_device(),
            is_measured: self.residency.is_measured(id),
            load_seconds: reload.as_secs_f64(),
            is_waiting: self.asks.keys().any(|worker| worker.endpoint == id),
            loads: counts.loads,
            loading_seconds: counts.load_seconds,
            may_hibernate: self.residency.may_hibernate(id),
            hibernated: self.residency.hibernated(id),
            wakes: counts.wakes,
            waking_seconds: counts.waking_seconds,
            evictions: counts.evictions,
            last_eviction: member.last_eviction.clone(),
            hits: counts.hits,
            misses: counts.misses,
            refusals: counts.refusals,
        })
    }
}
