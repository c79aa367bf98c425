use std::time::Duration;

use tokio::time::Instant;

/// How an endpoint forms batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most jobs in a batch; 1 where the endpoint does not batch.
    pub max_batch_size: usize,
    /// How long a batch may wait to fill, from the arrival of its first job.
    pub batch_timeout: Duration,
}

/// How busy a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Jobs that it holds.
    pub in_flight: usize,
    /// Jobs that it may hold; see [`window`](crate::window).
    pub window: usize,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Give this worker that many jobs from the front of the queue.
    Dispatch {
        /// Its index in the view.
        worker: usize,
        /// At least 1.
        jobs: usize,
    },
    /// A batch is filling: look again then, or when something happens.
    WaitUntil(Instant),
    /// Nothing to do until something happens.
    Wait,
}

/// Decides what happens next to a queue of `queued` jobs whose first arrived at `oldest`.
///
/// Jobs go to the worker that holds the fewest. An idle worker takes a batch that is full or
/// whose first job has waited `batch_timeout`; a busy one only a full batch, ahead of time, and
/// only when no worker is idle, so that nothing waits behind a running batch that could run.
pub fn decide(
    rules: &Rules,
    queued: usize,
    oldest: Option<Instant>,
    workers: &[Load],
    now: Instant,
) -> Decision {
    let Some(oldest) = oldest.filter(|_| queued > 0) else { return Decision::Wait };
    let room = |load: &Load| load.in_flight + rules.max_batch_size <= load.window;
    let Some((worker, load)) = workers
        .iter()
        .enumerate()
        .filter(|(_, load)| room(load))
        .min_by_key(|(_, load)| load.in_flight)
    else {
        return Decision::Wait;
    };
    let jobs = queued.min(rules.max_batch_size);
    let full = jobs == rules.max_batch_size;
    if full {
        return Decision::Dispatch { worker, jobs };
    }
    if load.in_flight > 0 {
        return Decision::Wait;
    }
    let due = oldest + rules.batch_timeout;
    if now >= due { Decision::Dispatch { worker, jobs } } else { Decision::WaitUntil(due) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(5);

    fn batches(max_batch_size: usize) -> Rules {
        Rules { max_batch_size, batch_timeout: TIMEOUT }
    }

    fn load(in_flight: usize, window: usize) -> Load {
        Load { in_flight, window }
    }

    #[test]
    fn an_idle_worker_takes_a_full_batch_at_once_and_a_partial_one_when_it_is_due() {
        let start = Instant::now();
        let idle = [load(0, 8)];
        let at = |queued, now| decide(&batches(8), queued, Some(start), &idle, now);
        assert_eq!(at(9, start), Decision::Dispatch { worker: 0, jobs: 8 });
        assert_eq!(at(3, start), Decision::WaitUntil(start + TIMEOUT));
        assert_eq!(at(3, start + TIMEOUT), Decision::Dispatch { worker: 0, jobs: 3 });
    }

    #[test]
    fn a_busy_worker_takes_only_full_batches_ahead() {
        let start = Instant::now();
        let late = start + 2 * TIMEOUT;
        let busy = [load(8, 16)];
        assert_eq!(decide(&batches(8), 7, Some(start), &busy, late), Decision::Wait);
        assert_eq!(
            decide(&batches(8), 8, Some(start), &busy, late),
            Decision::Dispatch { worker: 0, jobs: 8 }
        );
    }

    #[test]
    fn an_idle_worker_goes_before_a_busy_one() {
        let now = Instant::now();
        let workers = [load(1, 64), load(0, 64)];
        let singles = Rules { max_batch_size: 1, batch_timeout: Duration::ZERO };
        assert_eq!(
            decide(&singles, 1, Some(now), &workers, now),
            Decision::Dispatch { worker: 1, jobs: 1 }
        );
    }

    proptest! {
        #[test]
        fn it_conserves_work_and_keeps_the_windows(
            max_batch_size in 1usize..40,
            queued in 0usize..100,
            waited_ms in 0u64..10,
            loads in prop::collection::vec((0usize..80, 0usize..80), 0..5),
        ) {
            let oldest = Instant::now();
            let now = oldest + Duration::from_millis(waited_ms);
            let rules = batches(max_batch_size);
            let workers: Vec<_> = loads
                .into_iter()
                .map(|(in_flight, window)| load(in_flight, window.max(max_batch_size)))
                .collect();
            let idle = workers.iter().any(|load| load.in_flight == 0);
            let due = queued >= max_batch_size || waited_ms >= 5;
            match decide(&rules, queued, Some(oldest), &workers, now) {
                Decision::Dispatch { worker, jobs } => {
                    prop_assert!(jobs >= 1 && jobs <= queued && jobs <= max_batch_size);
                    prop_assert!(workers[worker].in_flight + jobs <= workers[worker].window);
                    prop_assert!(workers[worker].in_flight == 0 || !idle);
                }
                Decision::WaitUntil(at) => prop_assert!(at > now && !due),
                Decision::Wait => prop_assert!(queued == 0 || !idle),
            }
        }
    }
}
