//! The cheapest set of workers whose eviction frees enough memory.

use crate::{Memory, WorkerId};

/// The most candidates of which every set is tried: 4096 sets, which takes less than a millisecond.
const EXACT: usize = 12;

/// A worker that may be evicted.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) worker: WorkerId,
    /// The memory that comes back with its eviction.
    pub(crate) memory: Memory,
    /// The reload seconds that it saves per second: arrival rate times time to load.
    pub(crate) value: f64,
}

/// Returns the candidates whose eviction frees at least `short` and costs least; `None` if all of them do not
/// free enough. Each of the chosen is needed: without it the others would not suffice.
///
/// GreedyDual-Size-Frequency (Cherkasova, HP Labs 1998) evicts one object after the other by value per byte, which
/// suits many small objects. Models are few and large: the best set is found by trying each. With
/// many candidates they are taken by value per byte, and those that turn out not to be needed are left out.
/// The aging term `L` is deliberately absent: the value has a decayed rate, so what is not used any more
/// loses it by itself.
pub(crate) fn cheapest(candidates: &[Candidate], short: &Memory) -> Option<Vec<Candidate>> {
    let useful: Vec<_> =
        candidates.iter().filter(|it| it.memory.shares_a_place(short)).cloned().collect();
    if !frees(&useful, short) {
        return None;
    }
    Some(if useful.len() <= EXACT { exact(&useful, short) } else { greedy(useful, short) })
}

fn frees(chosen: &[Candidate], short: &Memory) -> bool {
    short.fits_in(&chosen.iter().map(|it| &it.memory).collect())
}

fn exact(useful: &[Candidate], short: &Memory) -> Vec<Candidate> {
    let set = |bits: usize| -> Vec<_> {
        let chosen = useful.iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1);
        chosen.map(|(_, candidate)| candidate.clone()).collect()
    };
    let sets = (0..1_usize << useful.len()).map(set);
    let enough = sets.filter(|chosen| frees(chosen, short)).map(|chosen| minimal(chosen, short));
    enough
        .min_by(|a, b| cost(a).total_cmp(&cost(b)).then(a.len().cmp(&b.len())))
        .unwrap_or_default()
}

fn greedy(mut useful: Vec<Candidate>, short: &Memory) -> Vec<Candidate> {
    let freed = |it: &Candidate| it.memory.total() - it.memory.short_of(short).total();
    let density = |it: &Candidate| it.value / freed(it).max(1) as f64;
    useful.sort_by(|a, b| density(a).total_cmp(&density(b)));
    let enough = (1..=useful.len()).find(|count| frees(&useful[..*count], short));
    useful.truncate(enough.unwrap_or(useful.len()));
    minimal(useful, short)
}

/// Leaves out what is not needed, the most valuable first.
fn minimal(mut chosen: Vec<Candidate>, short: &Memory) -> Vec<Candidate> {
    chosen.sort_by(|a, b| b.value.total_cmp(&a.value));
    let mut index = 0;
    while index < chosen.len() {
        let candidate = chosen.remove(index);
        if !frees(&chosen, short) {
            chosen.insert(index, candidate);
            index += 1;
        }
    }
    chosen
}

fn cost(chosen: &[Candidate]) -> f64 {
    chosen.iter().map(|it| it.value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EndpointId;

    fn candidate(id: usize, memory: Memory, value: f64) -> Candidate {
        Candidate { worker: WorkerId { endpoint: EndpointId(id), slot: 0 }, memory, value }
    }

    fn host(id: usize, bytes: u64, value: f64) -> Candidate {
        candidate(id, Memory::on_host(bytes), value)
    }

    fn chosen(candidates: &[Candidate], short: &Memory) -> Option<Vec<usize>> {
        let mut ids: Vec<_> =
            cheapest(candidates, short)?.iter().map(|it| it.worker.endpoint.0).collect();
        ids.sort_unstable();
        Some(ids)
    }

    #[test]
    fn two_small_workers_go_if_they_are_worth_less_than_a_large_one() {
        let candidates = [host(0, 10, 5.0), host(1, 5, 1.0), host(2, 5, 1.0)];
        assert_eq!(chosen(&candidates, &Memory::on_host(10)), Some(vec![1, 2]));
        let candidates = [host(0, 10, 1.5), host(1, 5, 1.0), host(2, 5, 1.0)];
        assert_eq!(chosen(&candidates, &Memory::on_host(10)), Some(vec![0]));
    }

    #[test]
    fn a_worker_on_another_device_is_no_victim() {
        let gpu = |id, index, value| candidate(id, Memory::default().with_device(index, 8), value);
        let candidates = [gpu(0, 0, 9.0), gpu(1, 1, 0.0)];
        let short = Memory::default().with_device(0, 4);
        assert_eq!(chosen(&candidates, &short), Some(vec![0]));
        assert_eq!(chosen(&candidates[1..], &short), None);
    }

    #[test]
    fn a_set_that_frees_too_little_is_none() {
        assert_eq!(chosen(&[host(0, 3, 0.0), host(1, 3, 0.0)], &Memory::on_host(7)), None);
    }

    #[test]
    fn worthless_workers_stay_if_they_are_not_needed() {
        for count in [4, 40] {
            let candidates: Vec<_> = (0..count).map(|id| host(id, 10, 0.0)).collect();
            assert_eq!(cheapest(&candidates, &Memory::on_host(15)).unwrap().len(), 2);
        }
    }

    #[test]
    fn many_candidates_are_chosen_by_value_per_byte() {
        let mut candidates: Vec<_> = (0..40).map(|id| host(id, 10, 10.0 + id as f64)).collect();
        candidates.push(host(99, 20, 12.0));
        assert_eq!(chosen(&candidates, &Memory::on_host(18)), Some(vec![99]));
    }

    #[test]
    fn no_set_is_cheaper_than_the_exact_one() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300 {
            let candidates: Vec<_> =
                (0..6).map(|id| host(id, random.u64(1..10), random.f64())).collect();
            let short = Memory::on_host(random.u64(1..20));
            let Some(best) = cheapest(&candidates, &short) else { continue };
            for bits in 0..64_usize {
                let other: Vec<_> = (0..6)
                    .filter(|index| bits >> index & 1 == 1)
                    .map(|index| candidates[index].clone())
                    .collect();
                assert!(!frees(&other, &short) || cost(&other) >= cost(&best) - 1e-12);
            }
        }
    }
}
