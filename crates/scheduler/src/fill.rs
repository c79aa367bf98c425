/// Jobs that are looked at, in batches: those that came first, so that nobody is passed over by
/// an endless stream of better company.
const LOOK_AT: usize = 8;

/// An overhead beyond which only the number of batches counts.
const ALL_OVERHEAD: f64 = 1e9;

/// Chooses a batch out of a queue, like with like.
///
/// `costs` are those of the queue in its order, none negative. A batch is padded to its most
/// expensive job: it takes as long as `overhead` units of work and its number of jobs times the
/// highest cost among them. All that waits is divided into the batches that take the least time
/// together, none larger than `max_jobs` or, padded, more expensive than `max_cost` (unless one job
/// alone is). The batch that has the first job of the queue is chosen: whoever waits longest is
/// next, whatever it costs.
///
/// Jobs of neighbouring costs belong together, so the batches are a partition of the sorted costs,
/// found by dynamic programming from the most expensive end.
///
/// Returns the places of the batch in the queue, in ascending order; never none of a queue that
/// has some.
pub fn fill(costs: &[f64], max_jobs: usize, max_cost: f64, overhead: f64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..costs.len().min(LOOK_AT * max_jobs)).collect();
    // Stable: of equal costs those that came first stay first.
    places.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]));
    let sorted: Vec<f64> = places.iter().map(|place| costs[*place]).collect();
    let ends = divide(&sorted, max_jobs, max_cost, overhead.min(ALL_OVERHEAD));
    let mut start = 0;
    while start < places.len() {
        let batch = &mut places[start..ends[start]];
        if batch.contains(&0) {
            batch.sort_unstable();
            return batch.to_vec();
        }
        start = ends[start];
    }
    Vec::new()
}

/// Returns for each place of the sorted costs where a batch that begins there best ends.
fn divide(sorted: &[f64], max_jobs: usize, max_cost: f64, overhead: f64) -> Vec<usize> {
    let mut ends = vec![0; sorted.len()];
    let mut times = vec![0.0; sorted.len() + 1];
    for start in (0..sorted.len()).rev() {
        let (mut best_end, mut best_time) = (start + 1, f64::INFINITY);
        for end in start + 1..=sorted.len().min(start + max_jobs) {
            let padded = (end - start) as f64 * sorted[end - 1];
            if padded > max_cost && end > start + 1 {
                break;
            }
            let time = overhead + padded + times[end];
            // Of equals the largest: those that came first are in the first.
            if time <= best_time {
                (best_end, best_time) = (end, time);
            }
        }
        (ends[start], times[start]) = (best_end, best_time);
    }
    ends
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_LIMIT: f64 = f64::INFINITY;

    #[test]
    fn like_goes_with_like_and_the_first_is_always_in() {
        let costs = [10.0, 200.0, 11.0, 190.0, 9.0, 210.0];
        assert_eq!(fill(&costs, 16, NO_LIMIT, 50.0), [0, 2, 4]);
        assert_eq!(fill(&costs[1..], 16, NO_LIMIT, 50.0), [0, 2, 4]);
    }

    #[test]
    fn company_that_costs_more_than_it_saves_is_left_out() {
        assert_eq!(fill(&[10.0, 200.0], 16, NO_LIMIT, 50.0), [0]);
        assert_eq!(fill(&[200.0, 10.0], 16, NO_LIMIT, 50.0), [0]);
        assert_eq!(fill(&[10.0, 40.0], 16, NO_LIMIT, 50.0), [0, 1]);
    }

    #[test]
    fn where_the_overhead_is_all_a_batch_is_as_large_as_can_be() {
        let costs = [10.0, 200.0, 11.0, 190.0, 9.0, 210.0];
        assert_eq!(fill(&costs, 16, NO_LIMIT, f64::INFINITY).len(), 6);
        assert_eq!(fill(&costs, 4, NO_LIMIT, f64::INFINITY), [0, 2, 4], "two of three are cheaper");
        assert_eq!(fill(&costs, 16, NO_LIMIT, 1e9).len(), 6);
    }

    #[test]
    fn a_batch_keeps_within_its_cost_but_for_one_job_that_alone_exceeds_it() {
        assert_eq!(fill(&[8.0; 10], 16, 33.0, 100.0).len(), 4);
        assert_eq!(fill(&[80.0, 1.0], 16, 33.0, 100.0), [0]);
    }

    #[test]
    fn jobs_of_one_cost_are_served_in_their_order() {
        assert_eq!(fill(&[5.0; 10], 4, NO_LIMIT, 1.0), [0, 1, 2, 3]);
    }

    #[test]
    fn work_without_cost_is_filled_up() {
        assert_eq!(fill(&[0.0; 3], 4, NO_LIMIT, 0.0), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn a_batch_is_legal(
            costs in prop::collection::vec(0.0f64..1000.0, 0..200),
            max_jobs in 1usize..40,
            max_cost in 1.0f64..5000.0,
            overhead in 0.0f64..1e4,
        ) {
            let batch = fill(&costs, max_jobs, max_cost, overhead);
            prop_assert!(batch.len() <= max_jobs);
            prop_assert!(batch.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(batch.first().copied(), (!costs.is_empty()).then_some(0));
            let most = batch.iter().map(|place| costs[*place]).fold(0.0, f64::max);
            prop_assert!(batch.len() <= 1 || batch.len() as f64 * most <= max_cost);
        }
    }
}
