//! Random systems of endpoints whose hooks call each other, under random schedules. New generations of
//! endpoints start beside the old ones, or in their place, and take over calls that fail on others.
//!
//! The simulation keeps queues, workers and hooks itself, tells [`Deadlocks`] of the events as the server
//! does, and obeys its refusals. It checks that nothing hangs, that a refused call could not end,
//! and that every other one can: each of them against brute force, which knows nothing of the detector.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;

use fastrand::Rng;
use litplex_core::WorkerKey;

use super::brute::{self, Model};
use super::{Deadlocks, Parent, Reads, WatchedCall, WatchedQueue};

/// The number of systems; a longer run sets `LITPLEX_SIMULATIONS`.
const SYSTEMS: u64 = 100_000;
const STEPS: usize = 40;
const MOST_DEPTH: usize = 4;
/// The most reloads of a system.
const MOST_RELOADS: usize = 2;
/// The most states that brute force tries for a call.
const MOST_STATES: usize = 4_000;

/// A generation of an endpoint, or a pipeline.
struct Endpoint {
    /// The endpoint: the index of its first generation.
    first: usize,
    /// `None` once the generation has ended.
    watched: Option<WatchedQueue>,
    /// The generation whose workers must be gone before those of this one start.
    after: Option<usize>,
    is_pipeline: bool,
    places: usize,
    batch: usize,
    window: usize,
    most_workers: usize,
    queue: VecDeque<usize>,
    callees: Vec<usize>,
}

struct Worker {
    endpoint: usize,
    key: WorkerKey,
    is_retiring: bool,
    is_gone: bool,
    /// The batches that have not begun.
    held: VecDeque<Vec<usize>>,
    hooks: Vec<usize>,
}

/// A request of a client or a call; `caller` is the hook that made the call.
struct Job {
    endpoint: usize,
    depth: usize,
    caller: Option<usize>,
    watched: Option<WatchedCall>,
    reads: Reads,
    /// Whether its hook goes on only when it gets a part of the stream, or the end.
    is_wanted: bool,
    /// Whether the detector knows that the hook waits, and no part is on the way to it.
    waits: bool,
    /// The parts of its stream that have come, and those that the hook has taken.
    parts: u64,
    taken: u64,
    /// The parts that the hook had taken when it said that it waits, until that has come.
    said: Option<u64>,
    is_ended: bool,
    /// The item that it is in a worker.
    item: u64,
}

/// The next act of a hook.
#[derive(Clone, Copy)]
enum Step {
    Call(usize),
    Later(usize),
    /// Calls, and reads the parts of the stream.
    Stream(usize),
    /// Waits for its oldest call, or takes the next part of its stream.
    Wait,
    /// Waits for all its calls.
    Gather,
    /// Sends a part of a stream to the callers.
    Part,
}

struct Hook {
    /// The worker; `None` for a pipeline.
    worker: Option<usize>,
    jobs: Vec<usize>,
    steps: VecDeque<Step>,
    calls: Vec<usize>,
    has_returned: bool,
}

#[derive(Default)]
struct Counts {
    refused: usize,
    /// The refusals that brute force checked.
    tried: usize,
    /// The calls with too many states for it.
    too_large: usize,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.refused += other.refused;
        self.tried += other.tried;
        self.too_large += other.too_large;
    }
}

struct Simulation {
    random: Rng,
    deadlocks: Deadlocks,
    /// The generations of all endpoints.
    endpoints: Vec<Endpoint>,
    /// The generations of each endpoint that get its new requests: one, or two while one is on trial.
    current: Vec<Vec<usize>>,
    reloads: usize,
    workers: Vec<Worker>,
    jobs: Vec<Job>,
    /// The calls that have not ended.
    watched: Vec<usize>,
    hooks: Vec<Hook>,
    next_item: u64,
    /// Whether brute force checks each event.
    is_checked: bool,
    counts: Counts,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let deadlocks = Deadlocks::new();
        let count = 1 + random.usize(..4);
        let mut endpoints = Vec::new();
        for e in 0..count {
            let is_pipeline = e > 0 && random.usize(..6) == 0;
            let most_workers = if is_pipeline { 0 } else { 1 + random.usize(..2) };
            let places = [1, 1, 1, 2, 3][random.usize(..5)];
            let batch = if places == 1 { [1, 1, 3][random.usize(..3)] } else { 1 };
            let ahead = [1, 1, 2][random.usize(..3)];
            let watched = Some(deadlocks.watch(&format!("/{e}"), most_workers));
            let callees = (0..1 + random.usize(..3)).map(|_| random.usize(..count)).collect();
            let (window, queue) = (places * batch * ahead, VecDeque::new());
            endpoints.push(Endpoint {
                first: e,
                watched,
                after: None,
                is_pipeline,
                places,
                batch,
                window,
                most_workers,
                queue,
                callees,
            });
        }
        let mut simulation = Self {
            random,
            deadlocks,
            endpoints,
            current: (0..count).map(|e| vec![e]).collect(),
            reloads: 0,
            workers: Vec::new(),
            jobs: Vec::new(),
            watched: Vec::new(),
            hooks: Vec::new(),
            next_item: 0,
            is_checked: seed.is_multiple_of(128),
            counts: Counts::default(),
        };
        for e in 0..count {
            for _ in 0..simulation.random.usize(..simulation.endpoints[e].most_workers + 1) {
                simulation.start(e);
            }
        }
        simulation
    }

    fn run(mut self) -> Counts {
        for _ in 0..STEPS {
            match self.random.usize(..32) {
                0..=5 => self.arrive(),
                6 => self.leave(),
                7 => self.kill(),
                8 => self.scale(),
                9 => self.reload(),
                _ => drop(self.move_on()),
            }
        }
        while self.move_on() {}
        assert!(self.jobs.iter().all(|job| job.is_ended), "calls hang");
        assert_eq!(self.deadlocks.watched(), 0, "the detector keeps calls that have ended");
        let generations: usize = self.current.iter().map(Vec::len).sum();
        assert_eq!(
            self.deadlocks.queues(),
            generations,
            "the detector keeps queues that have ended"
        );
        self.counts
    }

    // Events that come from outside.

    fn arrive(&mut self) {
        let first = self.random.usize(..self.current.len());
        let endpoint = self.chosen(first);
        self.submit(endpoint, 0, None, None);
    }

    /// Returns the generation of an endpoint that gets a request.
    fn chosen(&mut self, first: usize) -> usize {
        let current = &self.current[first];
        current[self.random.usize(..current.len())]
    }

    /// A client or a hook gives a request up.
    fn leave(&mut self) {
        if !self.jobs.is_empty() {
            let job = self.random.usize(..self.jobs.len());
            self.end(job);
        }
    }

    fn kill(&mut self) {
        let alive: Vec<_> = (0..self.workers.len()).filter(|w| !self.workers[*w].is_gone).collect();
        if alive.is_empty() {
            return;
        }
        let w = alive[self.random.usize(..alive.len())];
        let worker = &mut self.workers[w];
        worker.is_gone = true;
        let hooks = std::mem::take(&mut worker.hooks);
        let held: Vec<_> = worker.held.drain(..).flatten().collect();
        self.deadlocks.gone(worker.key);
        let mut jobs = held;
        for hook in hooks {
            self.hooks[hook].has_returned = true;
            jobs.extend(self.hooks[hook].jobs.clone());
            for call in self.hooks[hook].calls.clone() {
                self.end(call);
            }
        }
        for job in jobs {
            // A stream that has begun breaks.
            if self.random.usize(..4) == 0 || self.jobs[job].parts > 0 {
                self.end(job);
            } else if !self.jobs[job].is_ended {
                let endpoint = self.jobs[job].endpoint;
                let live = self.current[self.endpoints[endpoint].first][0];
                let is_taken_over = live != endpoint && self.random.usize(..2) == 0;
                let to = if is_taken_over { live } else { endpoint };
                self.jobs[job].endpoint = to;
                self.endpoints[to].queue.push_front(job);
                if let Some(watched) = &self.jobs[job].watched {
                    match is_taken_over {
                        true => self.watched(to).take_over(watched.id()),
                        false => self.deadlocks.requeued(watched.id()),
                    }
                }
            }
        }
        self.obey();
    }

    /// Changes the number of workers that an endpoint may have, and lets the extra ones finish.
    fn scale(&mut self) {
        let e = self.random.usize(..self.endpoints.len());
        if self.endpoints[e].is_pipeline || self.endpoints[e].watched.is_none() {
            return;
        }
        let most = 1 + self.random.usize(..3);
        self.endpoints[e].most_workers = most;
        self.watched(e).set_most_workers(most);
        self.obey();
        if self.random.usize(..2) == 0 {
            while self.retire_extra() {}
        }
    }

    /// Starts a generation of an endpoint, in place of the one that is there or beside it; then it gets all
    /// new requests, or some of them. If two are there, one of them is chosen.
    fn reload(&mut self) {
        let first = self.random.usize(..self.current.len());
        if let [live, canary] = self.current[first][..] {
            self.current[first] = vec![if self.random.usize(..2) == 0 { live } else { canary }];
            return;
        }
        let live = self.current[first][0];
        let Endpoint { is_pipeline, places, batch, window, most_workers, after, .. } =
            self.endpoints[live];
        if is_pipeline || after.is_some() || self.reloads == MOST_RELOADS {
            return;
        }
        self.reloads += 1;
        let new = self.endpoints.len();
        self.endpoints.push(Endpoint {
            first,
            watched: Some(self.deadlocks.watch(&format!("/{first}"), most_workers)),
            after: None,
            is_pipeline,
            places,
            batch,
            window,
            most_workers,
            queue: VecDeque::new(),
            callees: self.endpoints[live].callees.clone(),
        });
        match self.random.usize(..3) {
            0 => {
                self.endpoints[new].after = Some(live);
                self.watched(new).start_after(self.watched(live));
                self.current[first] = vec![new];
            }
            kind => {
                (0..self.random.usize(..most_workers + 1)).for_each(|_| self.start(new));
                self.current[first] = if kind == 1 { vec![new] } else { vec![live, new] };
            }
        }
    }

    fn watched(&self, e: usize) -> &WatchedQueue {
        self.endpoints[e].watched.as_ref().expect("the generation has not ended")
    }

    /// Lets a worker finish that an endpoint has above its number.
    fn retire_extra(&mut self) -> bool {
        let has_extra = |e: &usize| self.taking(*e).count() > self.endpoints[*e].most_workers;
        let choices: Vec<_> = (0..self.endpoints.len()).filter(has_extra).collect();
        let Some(e) = self.choose(&choices) else { return false };
        let taking: Vec<_> = self.taking(e).collect();
        let w = taking[self.random.usize(..taking.len())];
        self.workers[w].is_retiring = true;
        self.deadlocks.retiring(self.workers[w].key);
        self.obey();
        true
    }

    // Events that bring the work on.

    /// Lets one thing happen that can, and returns whether any could.
    fn move_on(&mut self) -> bool {
        let first = self.random.usize(..7);
        (0..7).any(|kind| match (first + kind) % 7 {
            0 => self.dispatch(),
            1 => self.begin(),
            2 => self.step(),
            3 => self.retire_extra(),
            4 => self.deliver(),
            5 => self.tell(),
            _ => self.start_or_stop(),
        })
    }

    fn dispatch(&mut self) -> bool {
        let choices: Vec<_> = (0..self.workers.len()).filter(|w| self.has_room(*w)).collect();
        let Some(w) = self.choose(&choices) else { return false };
        let endpoint = &mut self.endpoints[self.workers[w].endpoint];
        let count = 1 + self.random.usize(..endpoint.batch.min(endpoint.queue.len()));
        let jobs: Vec<_> = endpoint.queue.drain(..count).collect();
        for job in &jobs {
            self.next_item += 1;
            self.jobs[*job].item = self.next_item;
        }
        self.workers[w].held.push_back(jobs.clone());
        for job in jobs {
            if let Some(watched) = &self.jobs[job].watched {
                self.deadlocks.held(watched.id(), self.workers[w].key, self.jobs[job].item);
            }
        }
        self.obey();
        true
    }

    fn has_room(&self, w: usize) -> bool {
        let worker = &self.workers[w];
        let Endpoint { batch, window, queue, .. } = &self.endpoints[worker.endpoint];
        let held: usize = worker.held.iter().map(Vec::len).sum();
        let running: usize = worker.hooks.iter().map(|hook| self.hooks[*hook].jobs.len()).sum();
        let takes = !worker.is_gone && !worker.is_retiring && !queue.is_empty();
        takes && held + running + batch <= *window
    }

    fn begin(&mut self) -> bool {
        let can_begin = |w: &usize| {
            let worker = &self.workers[*w];
            !worker.held.is_empty() && worker.hooks.len() < self.endpoints[worker.endpoint].places
        };
        let choices: Vec<_> = (0..self.workers.len()).filter(can_begin).collect();
        let Some(w) = self.choose(&choices) else { return false };
        if let Some(jobs) = self.workers[w].held.pop_front() {
            self.add_hook(Some(w), jobs);
        }
        true
    }

    fn add_hook(&mut self, worker: Option<usize>, jobs: Vec<usize>) {
        let endpoint = self.jobs[jobs[0]].endpoint;
        let depth = jobs.iter().map(|job| self.jobs[*job].depth).max().unwrap_or(0);
        let steps = if depth < MOST_DEPTH { self.random.usize(..5) } else { 0 };
        let steps = (0..steps).map(|_| self.random_step(endpoint)).collect();
        self.hooks.push(Hook { worker, jobs, steps, calls: Vec::new(), has_returned: false });
        if let Some(w) = worker {
            self.workers[w].hooks.push(self.hooks.len() - 1);
        }
    }

    fn random_step(&mut self, endpoint: usize) -> Step {
        let callees = &self.endpoints[endpoint].callees;
        let callee = callees[self.random.usize(..callees.len())];
        match self.random.usize(..10) {
            0 | 1 => Step::Call(callee),
            2 | 3 => Step::Later(callee),
            4 => Step::Stream(callee),
            5 | 6 => Step::Wait,
            7 => Step::Gather,
            _ => Step::Part,
        }
    }

    fn step(&mut self) -> bool {
        let runs = |h: &usize| {
            let hook = &self.hooks[*h];
            !hook.has_returned && !hook.calls.iter().any(|call| self.jobs[*call].is_wanted)
        };
        let choices: Vec<_> = (0..self.hooks.len()).filter(runs).collect();
        let Some(h) = self.choose(&choices) else { return false };
        match self.hooks[h].steps.pop_front() {
            None => self.return_from(h),
            Some(Step::Call(callee)) => self.call(h, callee, Reads::Whole, true),
            Some(Step::Later(callee)) => self.call(h, callee, Reads::Whole, false),
            Some(Step::Stream(callee)) => self.call(h, callee, Reads::Parts, true),
            Some(Step::Wait) => {
                let first = self.hooks[h].calls.first().copied();
                first.into_iter().for_each(|call| self.wait(call));
            }
            Some(Step::Gather) => {
                self.hooks[h].calls.clone().into_iter().for_each(|call| self.wait(call));
            }
            Some(Step::Part) => {
                self.hooks[h].jobs.clone().into_iter().for_each(|job| self.add_part(job));
            }
        }
        true
    }

    fn call(&mut self, h: usize, callee: usize, reads: Reads, waits: bool) {
        let depth = self.hooks[h].jobs.iter().map(|job| self.jobs[*job].depth).max().unwrap_or(0);
        let callee = self.chosen(callee);
        let queue = self.watched(callee).clone();
        let watched = match self.hooks[h].worker {
            Some(w) => {
                let jobs = &self.hooks[h].jobs;
                let mut items: Vec<_> = jobs.iter().map(|job| self.jobs[*job].item).collect();
                if self.endpoints[self.workers[w].endpoint].places == 1
                    && self.random.usize(..2) == 0
                {
                    // A hook for one item of a batch.
                    items = vec![items[self.random.usize(..items.len())]];
                }
                queue.begin(Parent::Hook(self.workers[w].key, &items), reads, waits)
            }
            None => match &self.jobs[self.hooks[h].jobs[0]].watched {
                Some(parent) => queue.begin(Parent::Call(parent.id()), reads, waits),
                None => queue.begin(Parent::Client, reads, waits),
            },
        };
        let call = self.submit(callee, depth + 1, Some(h), Some(watched));
        self.watched.push(call);
        let job = &mut self.jobs[call];
        (job.reads, job.is_wanted, job.waits) = (reads, waits, waits);
        self.hooks[h].calls.push(call);
        self.obey();
    }

    fn submit(
        &mut self,
        endpoint: usize,
        depth: usize,
        caller: Option<usize>,
        watched: Option<WatchedCall>,
    ) -> usize {
        self.jobs.push(Job {
            endpoint,
            depth,
            caller,
            watched,
            reads: Reads::Whole,
            is_wanted: false,
            waits: false,
            parts: 0,
            taken: 0,
            said: None,
            is_ended: false,
            item: 0,
        });
        let job = self.jobs.len() - 1;
        if self.endpoints[endpoint].is_pipeline {
            self.add_hook(None, vec![job]);
        } else {
            self.endpoints[endpoint].queue.push_back(job);
        }
        job
    }

    /// A hook waits for a call, or for the next part of its stream.
    fn wait(&mut self, call: usize) {
        let job = &mut self.jobs[call];
        if job.taken < job.parts {
            job.taken += 1;
        } else if job.watched.is_some() {
            (job.is_wanted, job.said) = (true, Some(job.taken));
        }
    }

    /// Tells the detector that a hook waits, some time after the hook said so.
    fn tell(&mut self) -> bool {
        let choices: Vec<_> =
            self.watched.iter().copied().filter(|job| self.jobs[*job].said.is_some()).collect();
        let Some(call) = self.choose(&choices) else { return false };
        let job = &mut self.jobs[call];
        if let (Some(taken), Some(watched)) = (job.said.take(), &job.watched) {
            job.waits = job.parts == taken;
            self.deadlocks.wait(watched.id(), taken);
            self.obey();
        }
        true
    }

    /// A worker or a pipeline sends a part of a stream.
    fn add_part(&mut self, call: usize) {
        let job = &mut self.jobs[call];
        let Some(watched) = &job.watched else { return };
        if job.reads == Reads::Parts {
            job.parts += 1;
            job.waits = false;
        }
        self.deadlocks.add_part(watched.id());
    }

    /// A part of a stream comes to the hook that waits for it.
    fn deliver(&mut self) -> bool {
        let has_come = |job: &usize| {
            let Job { is_wanted, taken, parts, said, .. } = &self.jobs[*job];
            // What a hook said comes before what it says next.
            *is_wanted && taken < parts && said.is_none()
        };
        let choices: Vec<_> = self.watched.iter().copied().filter(has_come).collect();
        let Some(call) = self.choose(&choices) else { return false };
        let job = &mut self.jobs[call];
        (job.is_wanted, job.taken) = (false, job.taken + 1);
        true
    }

    fn return_from(&mut self, h: usize) {
        self.hooks[h].has_returned = true;
        if let Some(w) = self.hooks[h].worker {
            self.workers[w].hooks.retain(|hook| *hook != h);
        }
        for call in self.hooks[h].calls.clone() {
            self.end(call);
        }
        for job in self.hooks[h].jobs.clone() {
            self.end(job);
        }
    }

    /// Ends a job, answered or not: its caller does not wait for it any longer.
    fn end(&mut self, job: usize) {
        self.jobs[job].is_ended = true;
        (self.jobs[job].waits, self.jobs[job].is_wanted) = (false, false);
        // The drop reports the end.
        if self.jobs[job].watched.take().is_some() {
            self.watched.retain(|other| *other != job);
        }
        if let Some(caller) = self.jobs[job].caller {
            self.hooks[caller].calls.retain(|call| *call != job);
        }
        let endpoint = self.jobs[job].endpoint;
        self.endpoints[endpoint].queue.retain(|other| *other != job);
    }

    fn start_or_stop(&mut self) -> bool {
        for w in 0..self.workers.len() {
            let Worker { is_retiring, is_gone, held, hooks, .. } = &self.workers[w];
            if *is_retiring && !is_gone && held.is_empty() && hooks.is_empty() {
                self.workers[w].is_gone = true;
                self.deadlocks.gone(self.workers[w].key);
                return true;
            }
        }
        if self.end_generation() {
            return true;
        }
        let can_start = |e: &usize| {
            let Endpoint { queue, most_workers, after, .. } = &self.endpoints[*e];
            after.is_none() && !queue.is_empty() && self.taking(*e).count() < *most_workers
        };
        let choices: Vec<_> = (0..self.endpoints.len()).filter(can_start).collect();
        let Some(e) = self.choose(&choices) else { return false };
        self.start(e);
        true
    }

    /// Ends a generation that has finished its requests and gets no more.
    fn end_generation(&mut self) -> bool {
        let is_unused = |e: &usize| {
            let Endpoint { first, watched, queue, .. } = &self.endpoints[*e];
            let mut workers = self.workers.iter().filter(|it| it.endpoint == *e && !it.is_gone);
            let is_idle = workers.all(|it| it.held.is_empty() && it.hooks.is_empty());
            is_idle && watched.is_some() && queue.is_empty() && !self.current[*first].contains(e)
        };
        let Some(e) = (0..self.endpoints.len()).find(is_unused) else { return false };
        for worker in self.workers.iter_mut().filter(|it| it.endpoint == e && !it.is_gone) {
            worker.is_gone = true;
            self.deadlocks.gone(worker.key);
        }
        self.endpoints[e].watched = None;
        for endpoint in self.endpoints.iter_mut().filter(|it| it.after == Some(e)) {
            endpoint.after = None;
        }
        true
    }

    fn start(&mut self, endpoint: usize) {
        let places = self.endpoints[endpoint].places;
        let key = self.watched(endpoint).attached(self.workers.len(), places);
        let (held, hooks) = (VecDeque::new(), Vec::new());
        let (is_retiring, is_gone) = (false, false);
        self.workers.push(Worker { endpoint, key, is_retiring, is_gone, held, hooks });
    }

    /// Returns the workers that take jobs of an endpoint.
    fn taking(&self, e: usize) -> impl Iterator<Item = usize> {
        let takes =
            move |worker: &Worker| worker.endpoint == e && !worker.is_gone && !worker.is_retiring;
        (0..self.workers.len()).filter(move |w| takes(&self.workers[*w]))
    }

    fn choose(&mut self, choices: &[usize]) -> Option<usize> {
        (!choices.is_empty()).then(|| choices[self.random.usize(..choices.len())])
    }

    // Refusals, and their check.

    /// Ends the calls that are refused, and checks that these and no others are stuck.
    fn obey(&mut self) {
        let mut refused = Vec::new();
        for job in &self.watched {
            let watched = &mut self.jobs[*job].watched;
            if watched.as_mut().is_some_and(|watched| watched.try_refused().is_some()) {
                refused.push(*job);
            }
        }
        for job in &refused {
            let unended = self.model().unended(&[*job]);
            assert!(!unended.is_empty(), "a call is refused that ends");
        }
        if self.is_checked {
            for job in &refused {
                match self.model().can_end(*job, MOST_STATES) {
                    Some(can_end) => assert!(!can_end, "a call is refused that could end"),
                    None => self.counts.too_large += 1,
                }
                self.counts.tried += 1;
            }
        }
        for job in refused {
            self.counts.refused += 1;
            assert!(self.jobs[job].waits, "a call is refused for which no hook waits");
            let caller = self.jobs[job].caller;
            self.end(job);
            // The hook catches the error, or fails.
            if let Some(caller) = caller
                && self.random.usize(..2) == 0
            {
                self.hooks[caller].steps.clear();
            }
        }
        if self.is_checked {
            let model = self.model();
            for call in model.clone().unended(&self.watched) {
                match model.clone().can_end(call, MOST_STATES) {
                    Some(can_end) => assert!(can_end, "a call is stuck and not refused"),
                    None => self.counts.too_large += 1,
                }
            }
        }
    }

    /// Returns the state of the simulation for brute force.
    fn model(&self) -> Model {
        let as_call = |job: &usize| self.jobs[*job].watched.is_some().then_some(*job);
        let as_hook = |hook: &Hook| brute::Hook {
            jobs: hook.jobs.iter().map(as_call).collect(),
            waits: hook.calls.iter().copied().filter(|call| self.jobs[*call].waits).collect(),
        };
        let in_server = |hook: &&Hook| hook.worker.is_none() && !hook.has_returned;
        let workers = self.workers.iter().filter(|worker| !worker.is_gone);
        Model {
            endpoints: self
                .endpoints
                .iter()
                .map(|endpoint| brute::Endpoint {
                    most_workers: endpoint.most_workers,
                    after: endpoint.after,
                    places: endpoint.places,
                    batch: endpoint.batch,
                    window: endpoint.window,
                    queue: endpoint.queue.iter().filter_map(as_call).collect(),
                })
                .collect(),
            workers: workers
                .map(|worker| brute::Worker {
                    endpoint: worker.endpoint,
                    is_retiring: worker.is_retiring,
                    held: worker
                        .held
                        .iter()
                        .map(|jobs| jobs.iter().map(as_call).collect())
                        .collect(),
                    running: worker.hooks.iter().map(|hook| as_hook(&self.hooks[*hook])).collect(),
                })
                .collect(),
            in_server: self.hooks.iter().filter(in_server).map(as_hook).collect(),
            ended: Default::default(),
        }
    }
}

/// Runs every `stride`-th system from `first`.
fn run(first: u64, stride: usize, systems: u64) -> Counts {
    let mut total = Counts::default();
    for seed in (first..systems).step_by(stride) {
        match std::panic::catch_unwind(AssertUnwindSafe(|| Simulation::new(seed).run())) {
            Ok(counts) => total.add(&counts),
            Err(_) => panic!("system {seed} violated a rule; see the message above"),
        }
    }
    total
}

#[test]
fn no_call_hangs_every_deadlock_is_refused_and_no_other_call_is() {
    let systems = std::env::var("LITPLEX_SIMULATIONS").ok().and_then(|n| n.parse().ok());
    let systems = systems.unwrap_or(SYSTEMS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut total = Counts::default();
    std::thread::scope(|scope| {
        let start = |first| scope.spawn(move || run(first as u64, threads, systems));
        let running: Vec<_> = (0..threads).map(start).collect();
        running
            .into_iter()
            .for_each(|thread| total.add(&thread.join().expect("a rule is violated")));
    });
    let Counts { refused, tried, too_large } = total;
    println!(
        "{refused} refused, {tried} of them tried by brute force; {too_large} too large for it"
    );
    assert!(refused as u64 > systems, "the systems hardly have deadlocks");
    assert!(tried > 100 && too_large * 20 < tried, "brute force tries too few");
}
