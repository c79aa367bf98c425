//! Brute force: tries every order of events, to see whether one of them lets a call end.
//!
//! It is most hopeful about hooks: one that waits for nothing may return at any time.

use std::collections::{BTreeSet, HashSet};

/// A job: the number of its call, or `None` for a request of a client.
pub(super) type Job = Option<usize>;

/// The jobs and hooks of a system, as far as the end of calls depends on them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Model {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) workers: Vec<Worker>,
    /// The calls that the server computes.
    pub(super) in_server: Vec<Hook>,
    pub(super) ended: BTreeSet<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) most_workers: usize,
    /// The generation whose jobs must have ended before a worker starts.
    pub(super) after: Option<usize>,
    pub(super) places: usize,
    pub(super) batch: usize,
    pub(super) window: usize,
    pub(super) queue: BTreeSet<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Worker {
    pub(super) endpoint: usize,
    pub(super) is_retiring: bool,
    /// The batches that have not begun.
    pub(super) held: Vec<Vec<Job>>,
    pub(super) running: Vec<Hook>,
}

/// A hook that runs, and the calls that it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Hook {
    pub(super) jobs: Vec<Job>,
    pub(super) waits: Vec<usize>,
}

impl Worker {
    fn jobs(&self) -> usize {
        let held: usize = self.held.iter().map(Vec::len).sum();
        held + self.running.iter().map(|hook| hook.jobs.len()).sum::<usize>()
    }
}

impl Model {
    /// Returns whether any order of events lets a call end; `None` if there are too many to try.
    pub(super) fn can_end(self, call: usize, limit: usize) -> Option<bool> {
        let mut seen = HashSet::new();
        let mut todo = vec![self];
        while let Some(model) = todo.pop() {
            if model.ended.contains(&call) {
                return Some(true);
            }
            if seen.len() == limit {
                return None;
            }
            if !seen.contains(&model) {
                todo.extend(model.next());
                seen.insert(model);
            }
        }
        Some(false)
    }

    /// Returns the states after each possible event.
    fn next(&self) -> Vec<Self> {
        let mut next = Vec::new();
        for (at, hook) in self.in_server.iter().enumerate() {
            if self.can_return(hook) {
                next.push(self.after(|model| model.end(|model| model.in_server.remove(at))));
            }
        }
        for (w, worker) in self.workers.iter().enumerate() {
            for (at, hook) in worker.running.iter().enumerate() {
                if self.can_return(hook) {
                    let returned = |model: &mut Self| model.workers[w].running.remove(at);
                    next.push(self.after(|model| model.end(returned)));
                }
            }
            if self.can_begin(w) {
                next.push(self.after(|model| model.begin(w)));
            }
            for call in &self.endpoints[worker.endpoint].queue {
                if self.has_room(w) {
                    next.push(self.after(|model| model.dispatch(*call, w)));
                }
            }
        }
        for e in 0..self.endpoints.len() {
            if self.can_start(e) {
                next.push(self.after(|model| model.start(e)));
            }
        }
        next
    }

    /// Lets everything end that can in one order, without a choice that could be wrong, and returns the
    /// calls that have not ended.
    pub(super) fn unended(mut self, calls: &[usize]) -> Vec<usize> {
        while self.go_on() {}
        calls.iter().copied().filter(|call| !self.ended.contains(call)).collect()
    }

    fn go_on(&mut self) -> bool {
        if let Some(at) = self.in_server.iter().position(|hook| self.can_return(hook)) {
            self.end(|model| model.in_server.remove(at));
            return true;
        }
        for w in 0..self.workers.len() {
            let running = &self.workers[w].running;
            if let Some(at) = running.iter().position(|hook| self.can_return(hook)) {
                self.end(|model| model.workers[w].running.remove(at));
                return true;
            }
            if self.can_begin(w) {
                self.begin(w);
                return true;
            }
            let Worker { endpoint, running, held, .. } = &self.workers[w];
            let Endpoint { places, queue, .. } = &self.endpoints[*endpoint];
            if running.len() + held.len() < *places
                && let Some(call) = queue.first().copied()
                && self.has_room(w)
            {
                self.dispatch(call, w);
                return true;
            }
        }
        let start = (0..self.endpoints.len()).find(|e| self.can_start(*e));
        start.inspect(|e| self.start(*e)).is_some()
    }

    fn after(&self, event: impl FnOnce(&mut Self)) -> Self {
        let mut model = self.clone();
        event(&mut model);
        model
    }

    fn can_return(&self, hook: &Hook) -> bool {
        hook.waits.iter().all(|call| self.ended.contains(call))
    }

    fn end(&mut self, returned: impl FnOnce(&mut Self) -> Hook) {
        let hook = returned(self);
        self.ended.extend(hook.jobs.into_iter().flatten());
    }

    fn can_begin(&self, w: usize) -> bool {
        let worker = &self.workers[w];
        !worker.held.is_empty() && worker.running.len() < self.endpoints[worker.endpoint].places
    }

    fn begin(&mut self, w: usize) {
        let jobs = self.workers[w].held.remove(0);
        self.workers[w].running.push(Hook { jobs, waits: Vec::new() });
    }

    fn has_room(&self, w: usize) -> bool {
        let worker = &self.workers[w];
        let Endpoint { batch, window, .. } = self.endpoints[worker.endpoint];
        !worker.is_retiring && worker.jobs() + batch <= window
    }

    fn dispatch(&mut self, call: usize, w: usize) {
        let worker = &mut self.workers[w];
        self.endpoints[worker.endpoint].queue.remove(&call);
        worker.held.push(vec![Some(call)]);
    }

    fn can_start(&self, e: usize) -> bool {
        let counted = |worker: &&Worker| worker.endpoint == e && !worker.is_retiring;
        let workers = self.workers.iter().filter(counted).count();
        let Endpoint { most_workers, after, queue, .. } = &self.endpoints[e];
        !queue.is_empty() && workers < *most_workers && after.is_none_or(|e| self.is_drained(e))
    }

    fn is_drained(&self, e: usize) -> bool {
        let mut workers = self.workers.iter().filter(|worker| worker.endpoint == e);
        self.endpoints[e].queue.is_empty() && workers.all(|worker| worker.jobs() == 0)
    }

    fn start(&mut self, endpoint: usize) {
        let (held, running) = (Vec::new(), Vec::new());
        self.workers.push(Worker { endpoint, is_retiring: false, held, running });
    }
}
