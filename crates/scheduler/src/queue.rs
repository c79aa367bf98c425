//! The jobs that wait at an endpoint, in their order.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use litplex_core::{Job, Priority};
use tokio::time::Instant;

/// The time after which a job of the class `batch` goes before interactive ones that came later.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The jobs that wait: deeper ones first, so that work half done is not behind work not begun; equally
/// deep ones by their class, and then in the order of their arrival. A request of a client has depth 0; a call has
/// a greater one.
#[derive(Default)]
pub(crate) struct JobQueue {
    jobs: VecDeque<Job>,
    /// The number of jobs whose request has further ones.
    parts: usize,
}

impl JobQueue {
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(crate) fn front(&self) -> Option<&Job> {
        self.jobs.front()
    }

    /// Returns the job at a place of [`order`](Self::order).
    pub(crate) fn job(&self, place: usize) -> &Job {
        &self.jobs[place]
    }

    /// Returns the place of a new job.
    pub(crate) fn position(&self, job: &Job) -> usize {
        match self.jobs.back() {
            Some(last) if group(last) > group(job) => {
                self.jobs.partition_point(|other| group(other) <= group(job))
            }
            _ => self.jobs.len(),
        }
    }

    /// Makes interactive jobs of those that have waited for long.
    pub(crate) fn promote(&mut self, now: Instant) {
        let has_waited =
            |job: &Job| job.priority == Priority::Batch && now - job.queued >= LONGEST_WAIT;
        // The last group has the jobs of clients; without one of the class `batch` there is nothing to do.
        if self.jobs.back().is_none_or(|last| last.priority == Priority::Interactive)
            && self.calls() == 0
        {
            return;
        }
        while let Some(job) = self.take_front(has_waited) {
            self.requeue(Job { priority: Priority::Interactive, ..job });
        }
    }

    /// Returns whether a request waits whose jobs must all be computed.
    pub(crate) fn has_parts(&self) -> bool {
        self.parts > 0
    }

    /// Adds a new job.
    pub(crate) fn insert(&mut self, job: Job) {
        self.insert_at(self.position(&job), job);
    }

    fn insert_at(&mut self, place: usize, job: Job) {
        self.parts += usize::from(job.is_part);
        self.jobs.insert(place, job);
    }

    fn remove(&mut self, place: usize) -> Option<Job> {
        let job = self.jobs.remove(place)?;
        self.parts -= usize::from(job.is_part);
        Some(job)
    }

    /// Returns a job to its place in the order of arrival.
    pub(crate) fn requeue(&mut self, job: Job) {
        let place = (group(&job), job.queued);
        let is_before = |other: &Job| (group(other), other.queued) < place;
        self.insert_at(self.jobs.partition_point(is_before), job);
    }

    /// Returns the number of calls, which are before all requests of clients.
    pub(crate) fn calls(&self) -> usize {
        self.jobs.partition_point(|job| job.depth() > 0)
    }

    /// Returns the oldest request of a client, of the higher class that is there.
    pub(crate) fn oldest_request(&self) -> Option<&Job> {
        self.jobs.get(self.calls())
    }

    pub(crate) fn take_oldest_request(&mut self) -> Option<Job> {
        self.remove(self.calls())
    }

    /// Returns whether a request of a client waits that is not above this class.
    pub(crate) fn has_request(&self, class: Priority) -> bool {
        self.jobs.back().is_some_and(|last| last.depth() == 0 && last.priority >= class)
    }

    /// Takes out the oldest request of a client of the lowest class, if that is not above this class.
    pub(crate) fn take_least_request(&mut self, class: Priority) -> Option<Job> {
        let last = self.jobs.back().filter(|last| last.depth() == 0 && last.priority >= class)?;
        self.remove(self.jobs.partition_point(|job| group(job) < group(last)))
    }

    /// Returns the time since which the oldest job waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.fronts().map(|at| self.jobs[at].queued).min()
    }

    /// Returns the place of the first job of each depth and class.
    fn fronts(&self) -> impl Iterator<Item = usize> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let front = at;
            let first = group(self.jobs.get(front)?);
            at = self.end_of(first);
            Some(front)
        })
    }

    /// Returns the end of the jobs of a depth and class.
    fn end_of(&self, wanted: Group) -> usize {
        match self.jobs.back() {
            Some(last) if group(last) > wanted => {
                self.jobs.partition_point(|job| group(job) <= wanted)
            }
            _ => self.jobs.len(),
        }
    }

    /// Returns the places of jobs in the order in which they are to be computed. Newest first concerns the
    /// requests of clients of one class.
    pub(crate) fn order(&self, newest_first: bool) -> impl Iterator<Item = usize> {
        let (first, end) = (self.calls(), self.jobs.len());
        let middle = self.end_of((Reverse(0), Priority::Interactive)).max(first);
        let in_order = move |from: usize, to: usize| {
            (from..to).map(move |at| if newest_first { from + to - 1 - at } else { at })
        };
        (0..first).chain(in_order(first, middle)).chain(in_order(middle, end))
    }

    /// Takes out the first jobs, at most this many.
    pub(crate) fn take_first(&mut self, jobs: usize) -> Vec<Job> {
        let taken: Vec<_> = self.jobs.drain(..jobs.min(self.jobs.len())).collect();
        self.parts -= parts(&taken);
        taken
    }

    /// Takes out the jobs at some places. They keep their order.
    pub(crate) fn take(&mut self, mut places: Vec<usize>) -> Vec<Job> {
        // From the back, so that the remaining places stay valid.
        places.sort_unstable_by_key(|place| Reverse(*place));
        let mut jobs: Vec<_> = places.iter().filter_map(|at| self.remove(*at)).collect();
        jobs.reverse();
        jobs
    }

    /// Takes out the first job of a depth and class, if one has a property.
    pub(crate) fn take_front(&mut self, has_property: impl Fn(&Job) -> bool) -> Option<Job> {
        let place = self.fronts().find(|at| has_property(&self.jobs[*at]))?;
        self.remove(place)
    }

    /// Takes out all jobs with a property.
    pub(crate) fn take_each(&mut self, has_property: impl Fn(&Job) -> bool) -> VecDeque<Job> {
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let (taken, rest): (VecDeque<_>, _) = jobs.partition(has_property);
        self.jobs = rest;
        self.parts -= parts(&taken);
        taken
    }

    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Job> {
        self.parts = 0;
        self.jobs.drain(..)
    }
}

/// The depth and the class of a job, in the order of the queue.
type Group = (Reverse<u32>, Priority);

fn group(job: &Job) -> Group {
    (Reverse(job.depth()), job.priority)
}

fn parts<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> usize {
    jobs.into_iter().filter(|job| job.is_part).count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use litplex_core::{Origin, Request, reply};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn job(class: Priority, depth: u32, queued: Instant) -> Job {
        let job = Job::new(Request::json("1"), queued, queued + 60 * SECOND, reply().0);
        let origin = (depth > 0).then(|| Arc::new(Origin { depth, ..Origin::default() }));
        Job { priority: class, origin, ..job }
    }

    /// Returns a queue of jobs that came one after the other, and their order as seconds of arrival.
    fn queue(start: Instant, jobs: &[(Priority, u32)]) -> JobQueue {
        let mut queue = JobQueue::default();
        for (second, (class, depth)) in (0..).zip(jobs) {
            queue.insert(job(*class, *depth, start + second * SECOND));
        }
        queue
    }

    fn seconds(queue: &JobQueue, start: Instant, newest_first: bool) -> Vec<u64> {
        queue.order(newest_first).map(|at| (queue.job(at).queued - start).as_secs()).collect()
    }

    const MIXED: [(Priority, u32); 6] = [
        (Priority::Batch, 0),
        (Priority::Interactive, 0),
        (Priority::Batch, 0),
        (Priority::Interactive, 0),
        (Priority::Batch, 1),
        (Priority::Interactive, 2),
    ];

    #[test]
    fn interactive_jobs_go_before_others_of_the_same_depth() {
        let start = Instant::now();
        let queue = queue(start, &MIXED);
        assert_eq!(seconds(&queue, start, false), [5, 4, 1, 3, 0, 2]);
        assert_eq!(seconds(&queue, start, true), [5, 4, 3, 1, 2, 0]);
        assert_eq!(queue.oldest(), Some(start));
    }

    #[test]
    fn a_job_that_has_waited_for_long_goes_before_later_ones() {
        let start = Instant::now();
        let mut queue = queue(start, &MIXED);
        queue.promote(start + LONGEST_WAIT);
        assert_eq!(seconds(&queue, start, false), [5, 4, 0, 1, 3, 2]);
        queue.promote(start + 20 * SECOND);
        assert_eq!(seconds(&queue, start, false), [5, 4, 0, 1, 2, 3]);
    }

    #[test]
    fn a_full_queue_gives_up_the_lowest_class_first() {
        let start = Instant::now();
        let mut queue = queue(start, &MIXED);
        let mut taken =
            |class| queue.take_least_request(class).map(|job| (job.queued - start).as_secs());
        assert_eq!(taken(Priority::Interactive), Some(0));
        assert_eq!(taken(Priority::Batch), Some(2));
        assert_eq!(taken(Priority::Batch), None, "no interactive one");
        assert_eq!(taken(Priority::Interactive), Some(1));
    }
}
