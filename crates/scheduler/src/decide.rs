//! The dispatch decision: which worker gets how many jobs, and when.

use std::time::Duration;

use tokio::time::Instant;

/// The rules by which an endpoint forms batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most jobs in a batch; 1 for an endpoint without batching.
    pub max_batch_size: usize,
    /// The longest time that a batch waits to fill, from the arrival of its first job.
    pub batch_timeout: Duration,
}

/// The jobs that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// The number of jobs in the queue.
    pub queued: usize,
    /// The arrival of the first of them.
    pub oldest: Option<Instant>,
    /// The number of suspects: jobs that a lost worker may have been computing. Each is computed
    /// alone, so that a second loss identifies the job that caused it.
    pub suspects: usize,
}

/// The load of a worker, as far as dispatch depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The number of jobs that the worker holds.
    pub in_flight: usize,
    /// The number of jobs that the worker may hold; see [`window`](crate::window).
    pub window: usize,
    /// Whether the worker would start a dispatched job or batch at once.
    pub is_free: bool,
    /// Whether the worker computes a suspect; it gets no other job meanwhile.
    pub is_alone: bool,
}

/// The next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Dispatch jobs of the queue to this worker: the first ones, unless the endpoint batches by
    /// cost.
    Dispatch {
        /// The index of the worker in the view.
        worker: usize,
        /// The number of jobs, at least 1.
        jobs: usize,
    },
    /// Dispatch the first suspect to this worker.
    DispatchSuspect {
        /// The index of the worker in the view.
        worker: usize,
    },
    /// A batch is filling: decide again at this time, or at the next event.
    WaitUntil(Instant),
    /// Wait for the next event.
    Wait,
}

/// Returns the next action.
///
/// Jobs go to the worker that holds the fewest. A free worker gets a batch that is full, or whose
/// first job has waited for `batch_timeout`. A busy worker gets a full batch ahead of time, and
/// only while no worker is free, so that no job waits behind a running batch while another worker
/// could compute it.
///
/// While suspects wait, the least busy worker gets no other jobs until it is idle and takes a
/// suspect. Only one worker has a suspect at a time: a job that kills workers kills one after the
/// other, and the other workers continue.
pub fn decide(rules: &Rules, waiting: Waiting, workers: &[Load], now: Instant) -> Decision {
    let reserved = reserved_for_suspect(waiting.suspects, workers);
    if let Some(worker) = reserved.filter(|worker| workers[*worker].in_flight == 0) {
        return Decision::DispatchSuspect { worker };
    }
    let Some(oldest) = waiting.oldest.filter(|_| waiting.queued > 0) else {
        return Decision::Wait;
    };
    let has_room = |worker: usize, load: &Load| {
        reserved != Some(worker)
            && !load.is_alone
            && load.in_flight + rules.max_batch_size <= load.window
    };
    let Some((worker, load)) = workers
        .iter()
        .enumerate()
        .filter(|(worker, load)| has_room(*worker, load))
        .min_by_key(|(_, load)| (!load.is_free, load.in_flight))
    else {
        return Decision::Wait;
    };
    let jobs = waiting.queued.min(rules.max_batch_size);
    if jobs == rules.max_batch_size {
        return Decision::Dispatch { worker, jobs };
    }
    if !load.is_free {
        return Decision::Wait;
    }
    let due = oldest + rules.batch_timeout;
    if now >= due { Decision::Dispatch { worker, jobs } } else { Decision::WaitUntil(due) }
}

fn reserved_for_suspect(suspects: usize, workers: &[Load]) -> Option<usize> {
    if suspects == 0 || workers.iter().any(|load| load.is_alone) {
        return None;
    }
    let least_busy = workers.iter().enumerate().min_by_key(|(_, load)| load.in_flight);
    least_busy.map(|(worker, _)| worker)
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
        Load { in_flight, window, is_free: in_flight == 0, is_alone: false }
    }

    fn waiting(queued: usize, oldest: Instant) -> Waiting {
        Waiting { queued, oldest: Some(oldest), suspects: 0 }
    }

    #[test]
    fn a_free_worker_takes_a_full_batch_at_once_and_a_partial_one_when_it_is_due() {
        let start = Instant::now();
        let at = |queued, now| decide(&batches(8), waiting(queued, start), &[load(0, 8)], now);
        assert_eq!(at(9, start), Decision::Dispatch { worker: 0, jobs: 8 });
        assert_eq!(at(3, start), Decision::WaitUntil(start + TIMEOUT));
        assert_eq!(at(3, start + TIMEOUT), Decision::Dispatch { worker: 0, jobs: 3 });
    }

    #[test]
    fn a_busy_worker_takes_only_full_batches_ahead() {
        let start = Instant::now();
        let late = start + 2 * TIMEOUT;
        let at = |queued| decide(&batches(8), waiting(queued, start), &[load(8, 16)], late);
        assert_eq!(at(7), Decision::Wait);
        assert_eq!(at(8), Decision::Dispatch { worker: 0, jobs: 8 });
    }

    #[test]
    fn a_worker_that_computes_several_at_a_time_takes_partial_batches_while_it_has_room() {
        let start = Instant::now();
        let late = start + TIMEOUT;
        let at = |load| decide(&batches(8), waiting(3, start), &[load], late);
        let free = Load { is_free: true, ..load(8, 32) };
        assert_eq!(at(free), Decision::Dispatch { worker: 0, jobs: 3 });
        assert_eq!(at(Load { in_flight: 25, ..free }), Decision::Wait);
    }

    #[test]
    fn a_free_worker_goes_before_a_busy_one() {
        let now = Instant::now();
        let workers = [load(1, 64), load(0, 64)];
        let singles = Rules { max_batch_size: 1, batch_timeout: Duration::ZERO };
        assert_eq!(
            decide(&singles, waiting(1, now), &workers, now),
            Decision::Dispatch { worker: 1, jobs: 1 }
        );
    }

    #[test]
    fn a_suspect_has_a_worker_alone_and_the_other_workers_continue() {
        let now = Instant::now();
        let singles = Rules { max_batch_size: 1, batch_timeout: Duration::ZERO };
        let both = Waiting { suspects: 1, ..waiting(5, now) };
        let at = |workers: &[Load]| decide(&singles, both, workers, now);
        assert_eq!(at(&[load(3, 9), load(0, 9)]), Decision::DispatchSuspect { worker: 1 });
        assert_eq!(
            at(&[load(3, 9), load(2, 9)]),
            Decision::Dispatch { worker: 0, jobs: 1 },
            "the less busy worker is reserved for the suspect"
        );
        assert_eq!(at(&[load(2, 9)]), Decision::Wait);
        let alone = Load { is_alone: true, ..load(1, 9) };
        assert_eq!(
            at(&[alone, load(0, 9)]),
            Decision::Dispatch { worker: 1, jobs: 1 },
            "one suspect at a time"
        );
    }

    proptest! {
        #[test]
        fn decisions_are_work_conserving_and_respect_the_windows(
            max_batch_size in 1usize..40,
            queued in 0usize..100,
            suspects in 0usize..2,
            waited_ms in 0u64..10,
            loads in prop::collection::vec((0usize..80, 0usize..80, any::<bool>()), 0..5),
        ) {
            let oldest = Instant::now();
            let now = oldest + Duration::from_millis(waited_ms);
            let rules = batches(max_batch_size);
            let workers: Vec<_> = loads
                .into_iter()
                .map(|(in_flight, window, alone)| Load {
                    is_alone: alone && in_flight > 0,
                    ..load(in_flight, window.max(max_batch_size))
                })
                .collect();
            let idle = workers.iter().filter(|load| load.in_flight == 0).count();
            let due = queued >= max_batch_size || waited_ms >= 5;
            match decide(&rules, Waiting { suspects, ..waiting(queued, oldest) }, &workers, now) {
                Decision::Dispatch { worker, jobs } => {
                    prop_assert!(jobs >= 1 && jobs <= queued && jobs <= max_batch_size);
                    prop_assert!(workers[worker].in_flight + jobs <= workers[worker].window);
                    prop_assert!(workers[worker].in_flight == 0 || idle == 0);
                    prop_assert!(!workers[worker].is_alone);
                }
                Decision::DispatchSuspect { worker } => {
                    prop_assert!(suspects > 0 && workers[worker].in_flight == 0);
                    prop_assert!(workers.iter().all(|load| !load.is_alone));
                }
                Decision::WaitUntil(at) => prop_assert!(at > now && !due),
                Decision::Wait => prop_assert!(queued == 0 || idle == 0),
            }
        }
    }
}
