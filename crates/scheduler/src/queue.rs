//! The jobs that wait at an endpoint, in their order.

use std::cmp::Reverse;
use std::collections::VecDeque;

use litplex_core::Job;
use tokio::time::Instant;

/// The jobs that wait: deeper ones first, so that work half done is not behind work not begun, and
/// equally deep ones in the order of their arrival. A request of a client has depth 0; a call has a greater one.
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
            Some(last) if last.depth() < job.depth() => {
                self.jobs.partition_point(|other| other.depth() >= job.depth())
            }
            _ => self.jobs.len(),
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
        let place = (Reverse(job.depth()), job.queued);
        let is_before = |other: &Job| (Reverse(other.depth()), other.queued) < place;
        self.insert_at(self.jobs.partition_point(is_before), job);
    }

    /// Returns the number of calls, which are before all requests of clients.
    pub(crate) fn calls(&self) -> usize {
        self.jobs.partition_point(|job| job.depth() > 0)
    }

    /// Returns the oldest request of a client.
    pub(crate) fn oldest_request(&self) -> Option<&Job> {
        self.jobs.get(self.calls())
    }

    pub(crate) fn take_oldest_request(&mut self) -> Option<Job> {
        self.remove(self.calls())
    }

    /// Returns the time since which the oldest job waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.fronts().map(|at| self.jobs[at].queued).min()
    }

    /// Returns the place of the first job of each depth.
    fn fronts(&self) -> impl Iterator<Item = usize> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let front = at;
            let depth = self.jobs.get(front)?.depth();
            at = match self.jobs.back() {
                Some(last) if last.depth() < depth => {
                    self.jobs.partition_point(|job| job.depth() >= depth)
                }
                _ => self.jobs.len(),
            };
            Some(front)
        })
    }

    /// Returns the places of jobs in the order in which they are to be computed.
    pub(crate) fn order(&self, newest_first: bool) -> impl Iterator<Item = usize> {
        let (first, end) = (self.calls(), self.jobs.len());
        (0..first)
            .chain((first..end).map(move |at| if newest_first { first + end - 1 - at } else { at }))
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

    /// Takes out the first job of a depth, if one has a property.
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

fn parts<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> usize {
    jobs.into_iter().filter(|job| job.is_part).count()
}
