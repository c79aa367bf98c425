use std::collections::VecDeque;
use std::fmt;

use litmux_core::{Job, ServeError, Traits, Worker};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::handle::WorkerId;
use crate::{Decision, Load, Rules, ServiceTime, decide, window};

/// Events that are taken in one go: decisions are made once for all of them.
const EVENTS_AT_ONCE: usize = 256;

/// Seconds after which a refused client may try again.
const RETRY_AFTER: u64 = 1;

/// All that can happen to an endpoint.
pub(crate) enum Event {
    Job(Job),
    Attached { id: WorkerId, traits: Traits, worker: Box<dyn Worker> },
    Finished { id: WorkerId, jobs: usize },
    Gone { id: WorkerId },
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Job(_) => "Job",
            Self::Attached { .. } => "Attached",
            Self::Finished { .. } => "Finished",
            Self::Gone { .. } => "Gone",
        })
    }
}

/// Owns an endpoint's queue and its view of the workers.
pub(crate) struct EndpointTask {
    inbox: mpsc::UnboundedReceiver<Event>,
    queue: VecDeque<Job>,
    max_queue: usize,
    rules: Rules,
    workers: Vec<Member>,
    /// When a batch that is filling must go.
    due: Option<Instant>,
}

/// One worker, as the task sees it.
struct Member {
    id: WorkerId,
    worker: Box<dyn Worker>,
    in_flight: usize,
    service_time: ServiceTime,
    /// Single jobs that one round of decisions gave it, handed over together at its end.
    outbox: Vec<Job>,
}

impl EndpointTask {
    pub(crate) fn new(inbox: mpsc::UnboundedReceiver<Event>, max_queue: usize) -> Self {
        let rules = Rules { max_batch_size: 1, batch_timeout: std::time::Duration::ZERO };
        Self { inbox, queue: VecDeque::new(), max_queue, rules, workers: Vec::new(), due: None }
    }

    pub(crate) async fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        while self.next_events(&mut events).await {
            let now = Instant::now();
            events.drain(..).for_each(|event| self.handle_event(event, now));
            self.dispatch_what_may_go(now);
        }
    }

    /// Waits for events, or for a batch to be due. Returns false when every handle is gone.
    async fn next_events(&mut self, events: &mut Vec<Event>) -> bool {
        let inbox = self.inbox.recv_many(events, EVENTS_AT_ONCE);
        match self.due {
            None => inbox.await > 0,
            Some(due) => tokio::select! {
                received = inbox => received > 0,
                () = sleep_until(due) => true,
            },
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Job(job) => self.admit(job),
            Event::Attached { id, traits, worker } => self.add_worker(id, &traits, worker),
            Event::Finished { id, jobs } => self.free(id, jobs, now),
            Event::Gone { id } => self.remove_worker(id),
        }
    }

    fn admit(&mut self, job: Job) {
        if self.workers.is_empty() {
            job.reply.send(Err(no_worker()));
        } else if self.queue.len() >= self.max_queue {
            let detail = format!("the queue is full ({} requests wait)", self.queue.len());
            job.reply.send(Err(ServeError::unavailable(detail, RETRY_AFTER)));
        } else {
            self.queue.push_back(job);
        }
    }

    fn add_worker(&mut self, id: WorkerId, traits: &Traits, worker: Box<dyn Worker>) {
        let Traits { max_batch_size, batch_timeout, .. } = *traits;
        self.rules = Rules { max_batch_size, batch_timeout };
        let service_time = ServiceTime::default();
        self.workers.push(Member { id, worker, in_flight: 0, service_time, outbox: Vec::new() });
    }

    fn free(&mut self, id: WorkerId, jobs: usize, now: Instant) {
        if let Some(member) = self.workers.iter_mut().find(|member| member.id == id) {
            member.in_flight = member.in_flight.saturating_sub(jobs);
            member.service_time.finished(jobs, member.in_flight == 0, now);
        }
    }

    fn remove_worker(&mut self, id: WorkerId) {
        self.workers.retain(|member| member.id != id);
        if self.workers.is_empty() {
            for job in self.queue.drain(..) {
                job.reply.send(Err(no_worker()));
            }
        }
    }

    fn dispatch_what_may_go(&mut self, now: Instant) {
        self.due = loop {
            self.drop_void_jobs(now);
            let oldest = self.queue.front().map(|job| job.arrived);
            match decide(&self.rules, self.queue.len(), oldest, &self.loads(), now) {
                Decision::Dispatch { worker, jobs } => self.dispatch(worker, jobs, now),
                Decision::WaitUntil(due) => break Some(due),
                Decision::Wait => break None,
            }
        };
        for member in &mut self.workers {
            if !member.outbox.is_empty() {
                member.worker.dispatch(std::mem::take(&mut member.outbox));
            }
        }
    }

    fn drop_void_jobs(&mut self, now: Instant) {
        while self.queue.front().is_some_and(|job| job.is_void(now)) {
            self.queue.pop_front().into_iter().for_each(answer_void);
        }
    }

    fn loads(&self) -> Vec<Load> {
        let workers = self.workers.len();
        let load = |member: &Member| Load {
            in_flight: member.in_flight,
            window: window(&self.rules, member.service_time.mean(), workers),
        };
        self.workers.iter().map(load).collect()
    }

    fn dispatch(&mut self, worker: usize, jobs: usize, now: Instant) {
        let (void, batch): (Vec<_>, Vec<_>) =
            self.queue.drain(..jobs).partition(|job| job.is_void(now));
        void.into_iter().for_each(answer_void);
        if batch.is_empty() {
            return;
        }
        let member = &mut self.workers[worker];
        member.in_flight += batch.len();
        member.service_time.started(now);
        if self.rules.max_batch_size == 1 {
            member.outbox.extend(batch);
        } else {
            member.worker.dispatch(batch);
        }
    }
}

/// Its caller left, or waits no longer: nobody else may say that a worker died.
fn answer_void(job: Job) {
    job.reply.send(Err(ServeError::deadline()));
}

fn no_worker() -> ServeError {
    ServeError::unavailable("no worker of this endpoint is running", RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use litmux_core::{Answer, Answers, Attach, Outcome, Progress, Request, Response, reply};

    use super::*;
    use crate::{Endpoint, spawn_endpoint};

    /// Hands its batches to the test.
    struct MockWorker(mpsc::UnboundedSender<Vec<Job>>);

    impl Worker for MockWorker {
        fn dispatch(&mut self, jobs: Vec<Job>) {
            let _ = self.0.send(jobs);
        }
    }

    struct Bench {
        endpoint: Endpoint,
        progress: Vec<Arc<dyn Progress>>,
        batches: Vec<mpsc::UnboundedReceiver<Vec<Job>>>,
    }

    impl Bench {
        fn new(workers: usize, max_batch_size: usize, batch_timeout_ms: u64) -> Self {
            let endpoint = spawn_endpoint(8);
            let (mut progress, mut batches) = (vec![], vec![]);
            for _ in 0..workers {
                let (sender, receiver) = mpsc::unbounded_channel();
                let batch_timeout = Duration::from_millis(batch_timeout_ms);
                let traits =
                    Traits { max_batch_size, batch_timeout, stream: false, context: false };
                let make = |to| {
                    progress.push(to);
                    Box::new(MockWorker(sender)) as Box<dyn Worker>
                };
                endpoint.attach(traits, Box::new(make));
                batches.push(receiver);
            }
            Self { endpoint, progress, batches }
        }

        fn submit(&self) -> Answers {
            let (reply, answers) = reply();
            let arrived = Instant::now();
            let deadline = arrived + Duration::from_secs(30);
            self.endpoint.submit(Job { request: Request::json("1"), arrived, deadline, reply });
            answers
        }

        async fn batch(&mut self, worker: usize) -> Vec<Job> {
            self.batches[worker].recv().await.unwrap()
        }

        fn answer(&self, worker: usize, jobs: Vec<Job>) {
            let count = jobs.len();
            for job in jobs {
                job.reply.send(Ok(Response::json("2")));
            }
            self.progress[worker].finished(count);
        }
    }

    async fn status(mut answers: Answers) -> u16 {
        match answers.recv().await {
            Outcome::Ok(Answer::Whole(response)) => response.status,
            Outcome::Ok(Answer::Stream(..)) => panic!("not a stream"),
            Outcome::Err(error) => error.status,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_from_the_arrival_of_its_first_job() {
        let mut bench = Bench::new(1, 4, 5);
        let start = Instant::now();
        let _first = bench.submit();
        tokio::time::sleep(Duration::from_millis(3)).await;
        let _second = bench.submit();
        assert_eq!(bench.batch(0).await.len(), 2);
        assert_eq!(start.elapsed(), Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_that_waited_for_a_busy_worker_go_at_once_when_it_is_free() {
        let mut bench = Bench::new(1, 4, 5);
        let full: Vec<_> = (0..4).map(|_| bench.submit()).collect();
        let running = bench.batch(0).await;
        let _late = bench.submit();
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.answer(0, running);
        let freed = Instant::now();
        assert_eq!(bench.batch(0).await.len(), 1);
        assert_eq!(freed.elapsed(), Duration::ZERO);
        assert_eq!(full.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_jobs_spread_over_idle_workers_and_wait_in_the_queue_behind_them() {
        let mut bench = Bench::new(2, 1, 0);
        let _answers: Vec<_> = (0..3).map(|_| bench.submit()).collect();
        let first = bench.batch(0).await;
        assert_eq!((first.len(), bench.batch(1).await.len()), (1, 1));
        assert!(bench.batches[0].try_recv().is_err(), "the third job waits for whoever is free");
        bench.answer(0, first);
        assert_eq!(bench.batch(0).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_caller_left_never_reaches_a_worker() {
        let mut bench = Bench::new(1, 1, 0);
        let _running = bench.submit();
        let running = bench.batch(0).await;
        drop(bench.submit());
        let _third = bench.submit();
        bench.answer(0, running);
        let next = bench.batch(0).await;
        assert!(!next[0].reply.is_abandoned());
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_waited_past_its_deadline_is_answered_so() {
        let mut bench = Bench::new(1, 1, 0);
        let _running = bench.submit();
        let running = bench.batch(0).await;
        let expired = bench.submit();
        tokio::time::sleep(Duration::from_secs(31)).await;
        bench.answer(0, running);
        assert_eq!(status(expired).await, 504);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once() {
        let mut bench = Bench::new(1, 1, 0);
        let _running = bench.submit();
        let _held = bench.batch(0).await;
        let mut waiting: Vec<_> = (0..9).map(|_| bench.submit()).collect();
        assert_eq!(status(waiting.pop().unwrap()).await, 503);
    }

    #[tokio::test(start_paused = true)]
    async fn losing_the_last_worker_answers_everybody() {
        let mut bench = Bench::new(1, 1, 0);
        let running = bench.submit();
        let held = bench.batch(0).await;
        let queued = bench.submit();
        drop(held);
        bench.progress[0].gone();
        assert_eq!((status(running).await, status(queued).await), (502, 503));
        assert_eq!(status(bench.submit()).await, 503);
    }
}
