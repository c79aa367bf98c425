//! The window of a worker: the number of jobs that it may hold at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::Rules;

/// The work that a worker may hold, so that a job waits only briefly inside a worker.
const WORK_AHEAD: Duration = Duration::from_millis(1);

/// The largest window for single jobs; measurements showed no gain beyond it.
const MAX_WINDOW: usize = 64;

/// The duration up to which a batch is dispatched ahead of time although the endpoint has several
/// workers. For a longer batch another worker may become idle first.
const SHORT_BATCH: Duration = Duration::from_millis(10);

/// The weight of a new sample in the mean.
const WEIGHT_OF_NEW: f64 = 0.2;

/// Returns the number of jobs that a worker may hold, given its mean time per job.
///
/// A fast model gets a deep window, so that one round trip to the worker serves many jobs. A slow
/// model gets one job or batch at a time, so that no job waits behind another while a different
/// worker is idle. Batches by cost are never dispatched ahead of time: a later choice has more jobs
/// to choose from.
pub fn window(rules: &Rules, per_job: Option<Duration>, workers: usize, by_cost: bool) -> usize {
    let Some(per_job) = per_job else { return rules.max_batch_size };
    if rules.max_batch_size == 1 {
        let jobs = WORK_AHEAD.as_nanos() / per_job.as_nanos().max(1);
        return (jobs as usize).clamp(1, MAX_WINDOW);
    }
    let per_batch = per_job * rules.max_batch_size as u32;
    if per_batch < SHORT_BATCH || (workers == 1 && !by_cost) {
        2 * rules.max_batch_size
    } else {
        rules.max_batch_size
    }
}

/// The mean time that a worker spends on a job, learned from the arrival of its responses.
#[derive(Debug, Default)]
pub struct ServiceTime {
    busy_since: Option<Instant>,
    mean: Option<Duration>,
}

impl ServiceTime {
    /// Returns the mean; `None` before the first sample.
    pub fn mean(&self) -> Option<Duration> {
        self.mean
    }

    /// Records that jobs were dispatched to the worker.
    pub fn started(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
    }

    /// Records `jobs` finished jobs; `whole` says that none was cut short, `idle` that the worker
    /// has no job left. Returns the time per job, except for the worker's first jobs: the first
    /// call of a model is slow and would distort estimates. Jobs that were cut short count only
    /// when they took longer than the mean.
    pub fn finished(
        &mut self,
        jobs: usize,
        whole: bool,
        idle: bool,
        now: Instant,
    ) -> Option<Duration> {
        let since = std::mem::replace(&mut self.busy_since, (!idle).then_some(now));
        let since = since.filter(|_| jobs > 0)?;
        let sample = (now - since).as_secs_f64() / jobs as f64;
        let old = self.mean;
        if !whole && old.is_none_or(|old| sample <= old.as_secs_f64()) {
            return None;
        }
        let mean = old
            .map_or(sample, |old| old.as_secs_f64() + WEIGHT_OF_NEW * (sample - old.as_secs_f64()));
        self.mean = Some(Duration::from_secs_f64(mean));
        old.map(|_| Duration::from_secs_f64(sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINGLES: Rules = Rules { max_batch_size: 1, batch_timeout: Duration::ZERO };
    const BATCHES: Rules = Rules { max_batch_size: 32, batch_timeout: Duration::ZERO };

    #[test]
    fn fast_models_have_a_deep_window_and_slow_models_a_single_job() {
        let window_of = |micros| window(&SINGLES, Some(Duration::from_micros(micros)), 2, false);
        assert_eq!(window(&SINGLES, None, 2, false), 1, "nothing is known yet");
        assert_eq!([window_of(5), window_of(100), window_of(50_000)], [64, 10, 1]);
    }

    #[test]
    fn a_batch_is_dispatched_ahead_when_no_other_worker_could_start_it_sooner() {
        let slow = Some(Duration::from_millis(2));
        assert_eq!(window(&BATCHES, slow, 1, false), 64);
        assert_eq!(window(&BATCHES, slow, 2, false), 32);
        assert_eq!(window(&BATCHES, slow, 1, true), 32);
        assert_eq!(window(&BATCHES, Some(Duration::from_micros(100)), 2, true), 64);
    }

    #[test]
    fn the_mean_excludes_idle_time() {
        let mut time = ServiceTime::default();
        let start = Instant::now();
        let ms = Duration::from_millis;
        time.started(start);
        time.finished(2, true, true, start + ms(10));
        assert_eq!(time.mean(), Some(ms(5)));
        time.started(start + ms(1000));
        time.finished(1, true, true, start + ms(1005));
        assert_eq!(time.mean(), Some(ms(5)), "the idle second between is not work");
    }

    #[test]
    fn jobs_that_are_cut_short_do_not_lower_the_mean() {
        let mut time = ServiceTime::default();
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut take = |whole, took| {
            time.started(start);
            time.finished(1, whole, true, start + ms(took))
        };
        assert_eq!(take(false, 0), None, "nothing is known yet");
        assert_eq!(take(true, 1000), None, "the first");
        assert_eq!(take(false, 1), None);
        assert_eq!(take(false, 2000), Some(ms(2000)), "it takes at least that");
        assert_eq!(time.mean(), Some(ms(1200)));
    }
}
