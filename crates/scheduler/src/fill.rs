//! Batches by cost: which jobs of a queue are computed together.

/// The number of full batches at the front of the queue from which a batch is chosen. The bound
/// keeps later jobs of a better fit from delaying an earlier one without end.
pub(crate) const CANDIDATE_BATCHES: usize = 8;

/// The overhead beyond which only the number of batches counts.
const ALL_OVERHEAD: f64 = 1e9;

/// Returns a batch of jobs of similar cost, as ascending positions in the queue; empty only for an
/// empty queue.
///
/// `costs` has the cost of each job in the order of the queue, none negative. A batch is padded to
/// its most expensive job: it takes `overhead` units of work, plus its number of jobs times the
/// highest cost among them. The waiting jobs are partitioned into the batches that take the least
/// time in total, each with at most `max_jobs` jobs and a padded cost of at most `max_cost` (except
/// for a single job that exceeds it alone). The result is the batch that contains the first job of
/// the queue: the job that has waited longest is always next.
///
/// An optimal batch is a range of the sorted costs, so the partition is found by dynamic
/// programming from the most expensive end.
pub fn fill(costs: &[f64], max_jobs: usize, max_cost: f64, overhead: f64) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..costs.len().min(CANDIDATE_BATCHES * max_jobs)).collect();
    // The sort is stable: jobs of equal cost keep their order of arrival.
    positions.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]));
    let sorted: Vec<f64> = positions.iter().map(|position| costs[*position]).collect();
    let ends = divide(&sorted, max_jobs, max_cost, overhead.min(ALL_OVERHEAD));
    let mut start = 0;
    while start < positions.len() {
        let batch = &mut positions[start..ends[start]];
        if batch.contains(&0) {
            batch.sort_unstable();
            return batch.to_vec();
        }
        start = ends[start];
    }
    Vec::new()
}

/// Returns, for each start position in the sorted costs, the best end of a batch that starts there.
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
            // Among equals the largest batch wins, so that earlier jobs are in the first batch.
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
    fn a_batch_has_jobs_of_similar_cost_and_the_first_job() {
        let costs = [10.0, 200.0, 11.0, 190.0, 9.0, 210.0];
        assert_eq!(fill(&costs, 16, NO_LIMIT, 50.0), [0, 2, 4]);
        assert_eq!(fill(&costs[1..], 16, NO_LIMIT, 50.0), [0, 2, 4]);
    }

    #[test]
    fn a_job_whose_padding_exceeds_the_saved_overhead_is_left_out() {
        assert_eq!(fill(&[10.0, 200.0], 16, NO_LIMIT, 50.0), [0]);
        assert_eq!(fill(&[200.0, 10.0], 16, NO_LIMIT, 50.0), [0]);
        assert_eq!(fill(&[10.0, 40.0], 16, NO_LIMIT, 50.0), [0, 1]);
    }

    #[test]
    fn with_a_dominant_overhead_batches_are_as_large_as_possible() {
        let costs = [10.0, 200.0, 11.0, 190.0, 9.0, 210.0];
        assert_eq!(fill(&costs, 16, NO_LIMIT, f64::INFINITY).len(), 6);
        assert_eq!(fill(&costs, 4, NO_LIMIT, f64::INFINITY), [0, 2, 4], "two of three are cheaper");
        assert_eq!(fill(&costs, 16, NO_LIMIT, 1e9).len(), 6);
    }

    #[test]
    fn a_batch_respects_the_cost_limit_except_for_a_single_job_above_it() {
        assert_eq!(fill(&[8.0; 10], 16, 33.0, 100.0).len(), 4);
        assert_eq!(fill(&[80.0, 1.0], 16, 33.0, 100.0), [0]);
    }

    #[test]
    fn jobs_of_equal_cost_keep_their_order() {
        assert_eq!(fill(&[5.0; 10], 4, NO_LIMIT, 1.0), [0, 1, 2, 3]);
    }

    #[test]
    fn jobs_of_zero_cost_fill_the_batch() {
        assert_eq!(fill(&[0.0; 3], 4, NO_LIMIT, 0.0), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn a_batch_respects_every_limit(
            costs in prop::collection::vec(0.0f64..1000.0, 0..200),
            max_jobs in 1usize..40,
            max_cost in 1.0f64..5000.0,
            overhead in 0.0f64..1e4,
        ) {
            let batch = fill(&costs, max_jobs, max_cost, overhead);
            prop_assert!(batch.len() <= max_jobs);
            prop_assert!(batch.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(batch.first().copied(), (!costs.is_empty()).then_some(0));
            let most = batch.iter().map(|position| costs[*position]).fold(0.0, f64::max);
            prop_assert!(batch.len() <= 1 || batch.len() as f64 * most <= max_cost);
        }
    }
}
