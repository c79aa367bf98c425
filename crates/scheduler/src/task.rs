//! The task of an endpoint: the clock and the inbox of its state.

use std::sync::Arc;

use litplex_metrics::Queue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::QueueSettings;
use crate::event::Event;
use crate::pace::PublishedPace;
use crate::state::EndpointState;
use crate::turn::Seats;

/// The most events that are applied before the next decisions.
const EVENTS_AT_ONCE: usize = 256;

/// The clock and the inbox of an endpoint's state.
pub(crate) struct EndpointTask {
    inbox: mpsc::UnboundedReceiver<Event>,
    state: EndpointState,
    pace: Arc<PublishedPace>,
    /// The time at which a filling batch is due, or the first job has waited for `queue_timeout`.
    due: Option<Instant>,
}

impl EndpointTask {
    pub(crate) fn new(
        inbox: mpsc::UnboundedReceiver<Event>,
        settings: QueueSettings,
        metrics: Queue,
        pace: Arc<PublishedPace>,
        seats: Seats,
    ) -> Self {
        let state = EndpointState::new(settings, metrics, Instant::now()).seated(seats);
        Self { inbox, state, pace, due: None }
    }

    pub(crate) async fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        while self.next_events(&mut events).await {
            let now = Instant::now();
            events.drain(..).for_each(|event| self.state.handle(event, now));
            self.due = self.state.act(now);
            self.state.publish(&self.pace);
        }
    }

    /// Waits for events, or until `due`. Returns false when every handle is gone.
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
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use litplex_core::{
        Answer, Answers, Attach, Done, Job, Mode, ModelInfo, Origin, Outcome, Progress, Request,
        Response, Unanswered, Worker, reply,
    };
    use litplex_metrics::{Metrics, UserFamilies};
    use tokio::sync::oneshot;

    use super::*;
    use crate::{Endpoint, Outlook, spawn_endpoint};

    /// A worker that sends its batches to the test; a cancellation is an empty batch.
    struct MockWorker(mpsc::UnboundedSender<Vec<Job>>);

    impl Worker for MockWorker {
        fn dispatch(&mut self, jobs: Vec<Job>) {
            let _ = self.0.send(jobs);
        }

        fn cancel_abandoned(&mut self) {
            let _ = self.0.send(Vec::new());
        }

        fn cost(&mut self, request: Request, answer: oneshot::Sender<Outcome<f64>>) {
            let _ = answer.send(Ok(request.body_len() as f64));
        }
    }

    struct Fixture {
        endpoint: Endpoint,
        metrics: Metrics,
        progress: Vec<Arc<dyn Progress>>,
        batches: Vec<mpsc::UnboundedReceiver<Vec<Job>>>,
    }

    impl Fixture {
        fn new(workers: usize, max_batch_size: usize, batch_timeout_ms: u64) -> Self {
            Self::with(workers, max_batch_size, batch_timeout_ms, QueueSettings::default())
        }

        fn with(
            workers: usize,
            max_batch_size: usize,
            batch_timeout_ms: u64,
            settings: QueueSettings,
        ) -> Self {
            let (progress, batches) = (vec![], vec![]);
            let metrics = Metrics::new();
            let endpoint = spawn_endpoint(settings, metrics.queue("/test"));
            let mut fixture = Self { endpoint, metrics, progress, batches };
            for slot in 0..workers {
                fixture.attach(slot, max_batch_size, batch_timeout_ms);
            }
            fixture
        }

        fn attach(&mut self, slot: usize, max_batch_size: usize, batch_timeout_ms: u64) {
            let (sender, receiver) = mpsc::unbounded_channel();
            let info = ModelInfo {
                max_batch_size,
                batch_timeout: Duration::from_millis(batch_timeout_ms),
                concurrency: 1,
                stream: false,
                context: false,
                has_cost: false,
                dialect: None,
                schema: Default::default(),
                tool: None,
                base64: Default::default(),
                watches_callers: false,
                places: 1,
                calls: Vec::new(),
            };
            let attachment = self.endpoint.attach(slot, info);
            self.progress.push(attachment.progress());
            attachment.complete(Box::new(MockWorker(sender)));
            self.batches.push(receiver);
        }

        fn submit(&self) -> Answers {
            self.submit_for(Duration::from_secs(30))
        }

        fn submit_for(&self, budget: Duration) -> Answers {
            self.submit_request_for(Request::json("1"), budget)
        }

        fn submit_request(&self, request: Request) -> Answers {
            self.submit_request_for(request, Duration::from_secs(30))
        }

        fn submit_request_for(&self, request: Request, budget: Duration) -> Answers {
            let (reply, answers) = reply();
            let now = Instant::now();
            self.endpoint.submit(Job::new(request, now, now + budget, reply));
            answers
        }

        /// Submits one of several jobs of a request.
        fn submit_part(&self) -> Answers {
            let (reply, answers) = reply();
            let now = Instant::now();
            let job = Job::new(Request::json("1"), now, now + Duration::from_secs(30), reply);
            self.endpoint.submit(Job { is_part: true, ..job });
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
            self.progress[worker].finished(Done { jobs: count, cut_short: 0 });
        }

        /// Ends a worker that may have started the first jobs and has not started the second ones.
        fn kill(&self, worker: usize, started: Vec<Job>, unstarted: Vec<Job>) {
            let lost = |started| move |job| Unanswered { job, started };
            let started = started.into_iter().map(lost(true));
            self.progress[worker]
                .gone(started.chain(unstarted.into_iter().map(lost(false))).collect());
        }
    }

    async fn status(mut answers: Answers) -> u16 {
        match answers.recv().await {
            Outcome::Ok(Answer::Whole(response)) => response.status,
            Outcome::Ok(Answer::Stream(..)) => panic!("not a stream"),
            Outcome::Err(error) => error.status(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_from_the_arrival_of_its_first_job() {
        let mut fixture = Fixture::new(1, 4, 5);
        let start = Instant::now();
        let _first = fixture.submit();
        tokio::time::sleep(Duration::from_millis(3)).await;
        let _second = fixture.submit();
        assert_eq!(fixture.batch(0).await.len(), 2);
        assert_eq!(start.elapsed(), Duration::from_millis(5));
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_that_waited_for_a_busy_worker_are_dispatched_as_soon_as_it_is_free() {
        let mut fixture = Fixture::new(1, 4, 5);
        let full: Vec<_> = (0..4).map(|_| fixture.submit()).collect();
        let running = fixture.batch(0).await;
        let _late = fixture.submit();
        tokio::time::sleep(Duration::from_millis(50)).await;
        fixture.answer(0, running);
        let freed = Instant::now();
        assert_eq!(fixture.batch(0).await.len(), 1);
        assert_eq!(freed.elapsed(), Duration::ZERO);
        assert_eq!(full.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_jobs_spread_over_idle_workers_and_wait_in_the_queue_behind_them() {
        let mut fixture = Fixture::new(2, 1, 0);
        let _answers: Vec<_> = (0..3).map(|_| fixture.submit()).collect();
        let first = fixture.batch(0).await;
        assert_eq!((first.len(), fixture.batch(1).await.len()), (1, 1));
        assert!(fixture.batches[0].try_recv().is_err(), "the third job waits for a free worker");
        fixture.answer(0, first);
        assert_eq!(fixture.batch(0).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_sent_to_the_only_worker_while_it_computes() {
        for (workers, given) in [(1, 2), (2, 1)] {
            let mut fixture = Fixture::new(workers, 1, 0);
            let large = || Request::json(vec![b'1'; 1 << 20]);
            let _answers: Vec<_> = (0..3).map(|_| fixture.submit_request(large())).collect();
            assert_eq!(fixture.batch(0).await.len(), given, "{workers} workers");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_caller_left_never_reaches_a_worker() {
        let mut fixture = Fixture::new(1, 1, 0);
        let _running = fixture.submit();
        let running = fixture.batch(0).await;
        drop(fixture.submit());
        let _third = fixture.submit();
        fixture.answer(0, running);
        let next = fixture.batch(0).await;
        assert!(!next[0].reply.is_abandoned());
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_waited_past_its_deadline_is_answered_with_504() {
        let mut fixture = Fixture::new(1, 1, 0);
        let _running = fixture.submit();
        let running = fixture.batch(0).await;
        let expired = fixture.submit();
        tokio::time::sleep(Duration::from_secs(31)).await;
        fixture.answer(0, running);
        assert_eq!(status(expired).await, 504);
    }

    fn with_queue_timeout(queue_timeout: u64) -> QueueSettings {
        let queue_timeout = Some(Duration::from_secs(queue_timeout));
        QueueSettings { queue_timeout, ..QueueSettings::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn queue_timeout_limits_the_wait_and_not_the_computation() {
        let mut fixture = Fixture::with(1, 1, 0, with_queue_timeout(2));
        let slow = fixture.submit();
        let running = fixture.batch(0).await;
        let start = Instant::now();
        assert_eq!(status(fixture.submit()).await, 504);
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        tokio::time::sleep(Duration::from_secs(20)).await;
        fixture.answer(0, running);
        assert_eq!(status(slow).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_will_start_within_queue_timeout_is_admitted() {
        let mut fixture = Fixture::with(1, 1, 0, with_queue_timeout(2));
        for _ in 0..3 {
            let answers = fixture.submit();
            let running = fixture.batch(0).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            fixture.answer(0, running);
            assert_eq!(status(answers).await, 200);
        }
        let _running = fixture.submit();
        let _held = fixture.batch(0).await;
        let _next = fixture.submit();
        assert_eq!(status(fixture.submit()).await, 503, "it would start after 2 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_refuses_at_once() {
        let settings = QueueSettings { max_queue: Some(8), ..QueueSettings::default() };
        let mut fixture = Fixture::with(1, 1, 0, settings);
        let _running = fixture.submit();
        let _held = fixture.batch(0).await;
        let mut waiting: Vec<_> = (0..9).map(|_| fixture.submit()).collect();
        assert_eq!(status(waiting.pop().unwrap()).await, 503);
    }

    #[tokio::test(start_paused = true)]
    async fn the_settings_of_a_queue_change_while_jobs_wait() {
        let mut fixture = Fixture::new(1, 1, 0);
        let _running = fixture.submit();
        let _held = fixture.batch(0).await;
        let waiting = [fixture.submit(), fixture.submit()];
        let limit = Some(Duration::from_secs(2));
        let settings =
            QueueSettings { max_queue: Some(2), queue_timeout: limit, ..QueueSettings::default() };
        let changed = fixture.endpoint.with_settings(settings);
        assert_eq!(changed.max_queue(), Some(2));
        assert_eq!(status(fixture.submit()).await, 503);
        let start = Instant::now();
        for answers in waiting {
            assert_eq!(status(answers).await, 504);
        }
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_would_miss_its_deadline_is_refused_at_once() {
        let mut fixture = Fixture::new(1, 1, 0);
        for _ in 0..3 {
            let answers = fixture.submit();
            let running = fixture.batch(0).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            fixture.answer(0, running);
            assert_eq!(status(answers).await, 200);
        }
        let _waiting: Vec<_> = (0..4).map(|_| fixture.submit()).collect();
        let asked = Instant::now();
        assert_eq!(status(fixture.submit_for(Duration::from_secs(4))).await, 503);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        let _fits = fixture.submit_for(Duration::from_secs(6));
        assert_eq!(fixture.endpoint.load().await.queued, 4);
        assert_eq!(fixture.endpoint.load().await.refused, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_does_not_wait_for_a_caller_that_left() {
        let mut fixture = Fixture::new(1, 4, 50);
        let left = fixture.submit();
        tokio::time::sleep(Duration::from_millis(30)).await;
        let _stays = fixture.submit();
        drop(left);
        fixture.endpoint.caller_left();
        assert!(fixture.batch(0).await.is_empty(), "the worker is told too");
        let start = Instant::now();
        assert_eq!(fixture.batch(0).await.len(), 1);
        assert_eq!(start.elapsed(), Duration::from_millis(50), "its own time counts");
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_that_a_lost_worker_had_not_started_are_first_in_the_queue_again() {
        let mut fixture = Fixture::new(1, 2, 0);
        let _first: Vec<_> = (0..2).map(|_| fixture.submit()).collect();
        let running = fixture.batch(0).await;
        let _second: Vec<_> = (0..3).map(|_| fixture.submit()).collect();
        fixture.kill(0, Vec::new(), running);
        fixture.attach(0, 2, 0);
        let next = fixture.batch(1).await;
        assert_eq!((next.len(), next[0].losses), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_that_a_lost_worker_may_have_started_are_retried_once_alone() {
        let mut fixture = Fixture::new(1, 4, 0);
        let both = [fixture.submit(), fixture.submit()];
        let running = fixture.batch(0).await;
        fixture.kill(0, running, Vec::new());
        fixture.attach(0, 4, 0);
        let mut suspect = fixture.batch(1).await;
        assert_eq!((suspect.len(), suspect[0].losses), (1, 1), "alone, to identify the cause");
        fixture.kill(1, vec![suspect.remove(0)], Vec::new());
        fixture.attach(0, 4, 0);
        let innocent = fixture.batch(2).await;
        assert_eq!(innocent.len(), 1);
        fixture.answer(2, innocent);
        let [poison, innocent] = both;
        assert_eq!((status(poison).await, status(innocent).await), (502, 200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_must_not_be_repeated_fails_at_once() {
        let settings = QueueSettings { idempotent: Some(false), ..QueueSettings::default() };
        let mut fixture = Fixture::with(1, 1, 0, settings);
        let running = fixture.submit();
        let held = fixture.batch(0).await;
        fixture.kill(0, held, Vec::new());
        assert_eq!(status(running).await, 502);
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_wait_for_a_coming_worker_and_are_refused_without_one() {
        let fixture = Fixture::new(1, 1, 0);
        fixture.kill(0, Vec::new(), Vec::new());
        fixture
            .endpoint
            .set_outlook(Outlook::Coming { within: Some(Duration::from_secs(5)), is_asleep: true });
        let waits = fixture.submit_for(Duration::from_secs(8));
        assert_eq!(status(fixture.submit_for(Duration::from_secs(2))).await, 503);
        let (reason, retry_after) = ("no weights".into(), Duration::from_secs(30));
        fixture.endpoint.set_outlook(Outlook::Down { reason, retry_after });
        assert_eq!(status(waits).await, 503);
        let (reply, mut answers) = reply();
        let now = Instant::now();
        fixture.endpoint.submit(Job::new(
            Request::json("1"),
            now,
            now + Duration::from_secs(9),
            reply,
        ));
        let refused = answers.recv().await.unwrap_err();
        assert!(refused.detail.contains("no weights"), "{refused}");
        assert_eq!(refused.retry_after, Some(30));
    }

    impl Fixture {
        /// Submits a call that is made for a request of a client, so many calls below it.
        fn submit_call(&self, body: &'static str, root: &Origin, depth: u32) -> Answers {
            let origin = (0..depth).fold(root.clone(), |origin, _| origin.child("/a#0".into()));
            let (reply, answers) = reply();
            let now = Instant::now();
            let deadline = now + Duration::from_secs(30);
            let origin = Some(Arc::new(origin));
            let job = Job { origin, ..Job::new(Request::json(body), now, deadline, reply) };
            self.endpoint.submit(job);
            answers
        }

        /// Returns the body of the only job of the next dispatch.
        async fn next_body(&mut self) -> String {
            let jobs = self.batch(0).await;
            let body = String::from_utf8(jobs[0].request.body[0].to_vec()).unwrap();
            self.answer(0, jobs);
            body
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_go_before_the_requests_of_clients_and_deeper_ones_first() {
        let settings = QueueSettings { max_queue: Some(2), ..QueueSettings::default() };
        let mut fixture = Fixture::with(1, 1, 0, settings);
        fixture.progress[0].calls();
        let root = Origin::default();
        let running = fixture.submit();
        let held = fixture.batch(0).await;
        let mut waiting = Vec::new();
        for (body, depth) in [("a", 0), ("b", 1), ("c", 0), ("d", 2), ("e", 1)] {
            waiting.push(fixture.submit_call(body, &root, depth));
        }
        fixture.answer(0, held);
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(fixture.next_body().await);
        }
        assert_eq!(order, ["d", "b", "e", "a"]);
        assert_eq!(status(running).await, 200);
        let refused = waiting.remove(2);
        assert_eq!(
            status(refused).await,
            503,
            "only a client's request is refused for `max_queue`"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn shallower_jobs_still_leave_the_queue_in_time() {
        let limit = Duration::from_secs(2);
        let settings = QueueSettings { queue_timeout: Some(limit), ..QueueSettings::default() };
        let mut fixture = Fixture::with(1, 1, 0, settings);
        let _running = fixture.submit();
        let _held = fixture.batch(0).await;
        let client = fixture.submit();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _call = fixture.submit_call("1", &Origin::default(), 1);
        let begun = Instant::now();
        assert_eq!(status(client).await, 504);
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn all_calls_for_one_request_share_its_retry() {
        let mut fixture = Fixture::new(2, 1, 0);
        let root = Origin::default();
        let calls = [fixture.submit_call("1", &root, 1), fixture.submit_call("2", &root, 1)];
        for worker in 0..2 {
            let held = fixture.batch(worker).await;
            fixture.kill(worker, held, Vec::new());
        }
        fixture.attach(2, 1, 0);
        let held = fixture.batch(2).await;
        fixture.answer(2, held);
        let [first, second] = calls;
        assert_eq!((status(first).await, status(second).await), (200, 502));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_calls_holds_no_job_that_it_does_not_compute() {
        let mut fixture = Fixture::new(1, 1, 0);
        let large = || Request::json(vec![b'1'; 1 << 20]);
        fixture.progress[0].calls();
        let _answers: Vec<_> = (0..3).map(|_| fixture.submit_request(large())).collect();
        assert_eq!(fixture.batch(0).await.len(), 1);
        assert!(fixture.batches[0].try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_retiring_worker_gets_no_more_jobs_and_finishes_its_own() {
        let mut fixture = Fixture::new(2, 1, 0);
        let first = fixture.submit();
        let held = fixture.batch(0).await;
        fixture.progress[0].retiring();
        let _second = fixture.submit();
        assert_eq!(fixture.batch(1).await.len(), 1);
        assert_eq!(
            fixture.batches[0].recv().await.map(|jobs| jobs.len()),
            None,
            "the endpoint dropped it"
        );
        fixture.answer(0, held);
        assert_eq!(status(first).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cost_of_a_request_comes_from_the_model() {
        let fixture = Fixture::new(1, 1, 0);
        assert_eq!(fixture.endpoint.cost(Request::json("four")).await, Ok(4.0));
    }

    /// Returns the current value of this series.
    async fn metric(fixture: &Fixture, series: &str) -> Option<f64> {
        fixture.endpoint.load().await;
        let text = fixture.metrics.render(&[], &[], &[], UserFamilies::default());
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_and_batches_are_recorded() {
        let mut fixture = Fixture::new(1, 4, 5);
        let _answers = [fixture.submit(), fixture.submit()];
        let batch = fixture.batch(0).await;
        for (series, value) in [
            ("litplex_queue_wait_seconds_count{endpoint=\"/test\"}", 2.0),
            ("litplex_queue_wait_seconds_sum{endpoint=\"/test\"}", 0.01),
            ("litplex_batch_size_sum{endpoint=\"/test\"}", 2.0),
            ("litplex_batch_size_count{endpoint=\"/test\"}", 1.0),
            ("litplex_request_body_bytes_sum{endpoint=\"/test\"}", 2.0),
        ] {
            assert_eq!(metric(&fixture, series).await, Some(value), "{series}");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        fixture.answer(0, batch);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(fixture.endpoint.load().await.busy, [Duration::from_secs(2)]);
        let _answer = fixture.submit();
        let batch = fixture.batch(0).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        fixture.answer(0, batch);
        let took = "litplex_batch_duration_seconds_sum{endpoint=\"/test\"}";
        assert_eq!(metric(&fixture, took).await, Some(1.0), "the first batch is ignored");
    }

    #[tokio::test(start_paused = true)]
    async fn shadows_are_in_no_metric_until_the_queue_has_requests_of_clients() {
        let settings = QueueSettings { is_shadow: true, ..Default::default() };
        let mut fixture = Fixture::with(1, 1, 0, settings);
        let _shadow = fixture.submit();
        let batch = fixture.batch(0).await;
        fixture.answer(0, batch);
        let count = "litplex_request_body_bytes_count{endpoint=\"/test\"}";
        let waits = "litplex_queue_wait_seconds_count{endpoint=\"/test\"}";
        assert_eq!((metric(&fixture, count).await, metric(&fixture, waits).await), NOTHING);
        fixture.endpoint = fixture.endpoint.with_settings(QueueSettings::default());
        let _request = fixture.submit();
        let batch = fixture.batch(0).await;
        fixture.answer(0, batch);
        let measured = (metric(&fixture, count).await, metric(&fixture, waits).await);
        assert_eq!(measured, (Some(1.0), Some(1.0)));
    }

    const NOTHING: (Option<f64>, Option<f64>) = (Some(0.0), Some(0.0));

    #[tokio::test(start_paused = true)]
    async fn jobs_of_a_paused_endpoint_wait_within_their_time() {
        let settings =
            QueueSettings { queue_timeout: Some(Duration::from_secs(9)), ..Default::default() };
        let mut fixture = Fixture::with(1, 1, 0, settings);
        let _first = fixture.submit();
        let running = fixture.batch(0).await;
        fixture.endpoint.set_mode(Mode::Paused);
        let (late, waiting) = (fixture.submit(), fixture.submit_for(Duration::from_secs(60)));
        fixture.answer(0, running);
        let load = fixture.endpoint.load().await;
        assert_eq!((load.mode, load.queued, load.in_flight), (Mode::Paused, 2, 0));
        drop(waiting);
        assert_eq!(status(late).await, 504);
        let waiting = fixture.submit();
        fixture.endpoint.set_mode(Mode::Serving);
        let batch = fixture.batch(0).await;
        fixture.answer(0, batch);
        assert_eq!(status(waiting).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn no_job_of_a_large_request_is_refused_because_the_others_take_time() {
        let settings =
            QueueSettings { adaptive_order: true, fixed_batches: true, ..Default::default() };
        let mut fixture = Fixture::with(1, 4, 0, settings);
        let compute = async |fixture: &mut Fixture, batches: usize| {
            for _ in 0..batches {
                let batch = fixture.batch(0).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                fixture.answer(0, batch);
            }
        };
        let left: Vec<_> = (0..400).map(|_| fixture.submit_part()).collect();
        compute(&mut fixture, 20).await;
        drop(left);
        fixture.endpoint.caller_left();
        let answers: Vec<_> = (0..200).map(|_| fixture.submit_part()).collect();
        let all = async {
            for answer in answers {
                assert_eq!(status(answer).await, 200);
            }
        };
        tokio::select! {
            () = all => {}
            () = compute(&mut fixture, usize::MAX) => unreachable!("it computes until all is read"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_drained_endpoint_finishes_what_was_let_in() {
        let mut fixture = Fixture::new(1, 1, 0);
        let (first, second) = (fixture.submit(), fixture.submit());
        let running = fixture.batch(0).await;
        fixture.endpoint.set_mode(Mode::Draining);
        let error = fixture.submit().recv().await.map(drop).unwrap_err();
        assert_eq!((error.status(), error.retry_after), (503, Some(5)));
        let (reply, call) = reply();
        let now = Instant::now();
        let origin = Some(Arc::new(Origin::default().child("/ask#0".into())));
        let job = Job::new(Request::json("1"), now, now + Duration::from_secs(9), reply);
        fixture.endpoint.submit(Job { origin, ..job });
        fixture.answer(0, running);
        let mut left = 2;
        while left > 0 {
            let batch = fixture.batch(0).await;
            left -= batch.len();
            fixture.answer(0, batch);
        }
        for answers in [first, second, call] {
            assert_eq!(status(answers).await, 200);
        }
        fixture.endpoint.set_mode(Mode::Serving);
        let _answer = fixture.submit();
        assert_eq!(fixture.batch(0).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_and_retries_are_counted_by_reason() {
        let settings = QueueSettings { max_queue: Some(1), ..QueueSettings::default() };
        let mut fixture = Fixture::with(2, 1, 0, settings);
        let _computed = [fixture.submit(), fixture.submit()];
        let (first, _second) = (fixture.batch(0).await, fixture.batch(1).await);
        let _waiting = [fixture.submit(), fixture.submit()];
        let shed = "litplex_shed_total{endpoint=\"/test\",reason=\"queue_full\"}";
        assert_eq!(metric(&fixture, shed).await, Some(1.0));
        fixture.kill(0, first, Vec::new());
        let again = "litplex_retries_total{endpoint=\"/test\",reason=\"maybe_begun\"}";
        assert_eq!(metric(&fixture, again).await, Some(1.0));
        let (reason, retry_after) = ("down".into(), Duration::from_secs(1));
        fixture.progress[1].gone(Vec::new());
        fixture.endpoint.set_outlook(Outlook::Down { reason, retry_after });
        let shed = "litplex_shed_total{endpoint=\"/test\",reason=\"no_worker\"}";
        assert_eq!(metric(&fixture, shed).await, Some(2.0));
    }
}
