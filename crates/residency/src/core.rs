//! The core: the models that stay in memory while the others take turns.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::residency::Residency;
use crate::victims::Candidate;
use crate::{EndpointId, Memory, WorkerId};

/// The most workers of which every set is tried: 1024 sets, which takes less than a millisecond.
const EXACT: usize = 10;

/// The workers that a core is chosen from. Those that are never evicted come first.
struct Known<'a> {
    workers: Vec<Candidate>,
    /// The number of workers that are never evicted.
    floors: usize,
    budget: &'a Memory,
}

impl Residency {
    /// Returns the core: the set of workers that is worth most and leaves room for any one of the others. A model that
    /// has no worker counts with its next one, and one without any request does not count.
    ///
    /// With two models outside the core, only these two are reloaded. A rule that takes the least valuable
    /// set for each load may instead evict a model of the core while the others load or serve, and each load of
    /// that one evicts something again.
    pub(crate) fn core(&self, now: Instant) -> BTreeSet<WorkerId> {
        let ids = self.endpoints.keys();
        let workers = ids.flat_map(|id| self.known_workers(*id, now));
        let workers = workers.filter(|it| it.value > 0.0 && it.memory.fits_in(&self.budget));
        let (mut known, others): (Vec<_>, Vec<_>) =
            workers.partition(|it| self.is_floor(it.worker));
        let floors = known.len();
        known.extend(others);
        Known { workers: known, floors, budget: &self.budget }.most_valuable()
    }

    /// Returns the workers of an endpoint that load or are ready, or else the next one.
    fn known_workers(&self, id: EndpointId, now: Instant) -> Vec<Candidate> {
        let workers = self.workers_of(id).filter(|(_, it)| !it.is_leaving() && !it.hibernates());
        let mut known: Vec<_> = workers.map(|(worker, it)| (*worker, it.memory.clone())).collect();
        if let (true, Some((memory, _))) = (known.is_empty(), self.prediction(id)) {
            known.push((WorkerId { endpoint: id, slot: 0 }, memory));
        }
        let value = self.worth(id, known.len(), now).value;
        let candidate = |(worker, memory)| Candidate { worker, memory, value };
        known.into_iter().map(candidate).collect()
    }
}

impl Known<'_> {
    fn most_valuable(&self) -> BTreeSet<WorkerId> {
        let chosen = if self.workers.len() <= EXACT { self.exact() } else { self.greedy() };
        let workers = self.workers.iter().zip(chosen);
        workers.filter(|(_, is_in)| *is_in).map(|(it, _)| it.worker).collect()
    }

    fn exact(&self) -> Vec<bool> {
        let count = self.workers.len();
        let is_in = |bits: usize, index: usize| bits >> index & 1 == 1;
        let value = |bits: usize| -> f64 {
            let values = self.workers.iter().enumerate();
            values.map(|(index, it)| f64::from(is_in(bits, index)) * it.value).sum()
        };
        let floors = (1_usize << self.floors) - 1;
        let (mut best, mut most) = (self.only_floors(), 0.0);
        for bits in (0..1_usize << count).filter(|bits| bits & floors == floors) {
            let chosen = || (0..count).map(|index| is_in(bits, index)).collect::<Vec<_>>();
            if value(bits) > most && self.leaves_room(&chosen()) {
                (best, most) = (chosen(), value(bits));
            }
        }
        best
    }

    /// Adds one worker after the other by value per byte.
    fn greedy(&self) -> Vec<bool> {
        let density = |index: &usize| {
            let it = &self.workers[*index];
            it.value / it.memory.total().max(1) as f64
        };
        let mut order: Vec<_> = (self.floors..self.workers.len()).collect();
        order.sort_by(|a, b| density(b).total_cmp(&density(a)));
        let mut chosen = self.only_floors();
        for index in order {
            chosen[index] = true;
            chosen[index] = self.leaves_room(&chosen);
        }
        chosen
    }

    fn only_floors(&self) -> Vec<bool> {
        (0..self.workers.len()).map(|index| index < self.floors).collect()
    }

    fn leaves_room(&self, chosen: &[bool]) -> bool {
        let (core, others): (Vec<_>, Vec<_>) =
            self.workers.iter().zip(chosen).partition(|(_, is_in)| **is_in);
        let core: Memory = core.into_iter().map(|(it, _)| &it.memory).collect();
        let fits = |(it, _): &(&Candidate, &bool)| core.plus(&it.memory).fits_in(self.budget);
        core.fits_in(self.budget) && others.iter().all(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(budget: u64, floors: usize, workers: &[(u64, f64)]) -> Vec<usize> {
        let candidate = |(id, (bytes, value)): (usize, &(u64, f64))| {
            let worker = WorkerId { endpoint: EndpointId(id), slot: 0 };
            Candidate { worker, memory: Memory::on_host(*bytes), value: *value }
        };
        let workers: Vec<_> = workers.iter().enumerate().map(candidate).collect();
        let known = Known { workers, floors, budget: &Memory::on_host(budget) };
        known.most_valuable().iter().map(|it| it.endpoint.0).collect()
    }

    #[test]
    fn the_core_leaves_room_for_any_other_model() {
        assert_eq!(core(10, 0, &[(4, 9.0), (4, 8.0), (4, 7.0), (2, 1.0)]), [0, 3]);
        assert_eq!(core(12, 0, &[(4, 9.0), (4, 8.0), (4, 7.0), (2, 1.0)]), [0, 1]);
        assert_eq!(core(10, 0, &[(9, 5.0), (2, 1.0), (2, 1.0)]), [] as [usize; 0]);
    }

    #[test]
    fn all_models_are_the_core_if_they_fit() {
        assert_eq!(core(10, 0, &[(4, 9.0), (4, 8.0), (2, 7.0)]), [0, 1, 2]);
    }

    #[test]
    fn what_is_never_evicted_is_of_the_core_whatever_it_is_worth() {
        assert_eq!(core(10, 1, &[(4, 0.1), (4, 8.0), (2, 7.0), (2, 6.0)]), [0, 1]);
        assert_eq!(core(10, 1, &[(9, 0.1), (4, 8.0), (2, 7.0)]), [0]);
    }

    #[test]
    fn the_core_of_many_models_is_chosen_by_value_per_byte() {
        let mut workers = vec![(2, 1.0); 20];
        workers.extend([(4, 9.0), (4, 1.5)]);
        assert_eq!(core(10, 0, &workers)[..], [0, 20]);
    }
}
