//! Calls of a target whose worker is the test, over paused time.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use litplex_calls::{
    Backend, Call, Composed, Deadlocks, Inherited, ItemStream, Lease, ObservedRequest, Output,
    Registry, ShadowPlan, Side, Target, Targets, TimeBudget, Trial, TrialReport,
};
use litplex_core::{
    Attach, BoxFuture, CallEnd, Called, Content, Cost, Done, Identity, Items, ItemsBuilder, Job,
    ModelInfo, ObservedCall, Outcome, Part, Progress, Request, Response, Root, ServeError,
    ShadowRoom, Shadows, StreamSender, Worker,
};
use litplex_metrics::Metrics;
use litplex_scheduler::{Endpoint, QueueSettings, spawn_endpoint};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, advance, sleep};

/// A command that reached the worker.
#[derive(Debug)]
enum Given {
    Jobs(Vec<Job>),
    Cancelled,
}

struct MockWorker(mpsc::UnboundedSender<Given>);

impl Worker for MockWorker {
    fn dispatch(&mut self, jobs: Vec<Job>) {
        let _ = self.0.send(Given::Jobs(jobs));
    }

    fn cancel_abandoned(&mut self) {
        let _ = self.0.send(Given::Cancelled);
    }

    fn cost(&mut self, request: Request, answer: oneshot::Sender<Outcome<f64>>) {
        let cost = request.body_len() as f64;
        let _ = answer.send(match cost {
            13.0 => Err(ServeError::new(422, "unlucky")),
            cost => Ok(cost),
        });
    }
}

/// A target, and what its worker is given.
struct Fixture {
    target: Target,
    given: mpsc::UnboundedReceiver<Given>,
    worker: Option<mpsc::UnboundedSender<Given>>,
    progress: Vec<Arc<dyn Progress>>,
}

impl Fixture {
    /// Returns a target without a worker.
    fn starting() -> Self {
        let metrics = Metrics::new();
        let endpoint = spawn_endpoint(QueueSettings::default(), metrics.queue("/test"));
        let identity = Identity {
            label: "/test".into(),
            path: "/test".into(),
            name: "test".into(),
            has_unique_name: true,
            aliases: vec!["alias".into()],
            is_default: false,
        };
        let target = Target {
            identity: Arc::new(identity),
            backend: Backend::Queue(endpoint),
            timeout: Duration::from_secs(30),
            chunk_timeout: Duration::from_secs(5),
            cost: None,
            waits_for_first_worker: false,
            scopes: Vec::new(),
            metrics: metrics.edge(Some("/test")),
            demand: Arc::default(),
            watched: Deadlocks::new().watch("/test", 1),
            lease: Lease::default(),
            trial: None,
        };
        let (worker, given) = mpsc::unbounded_channel();
        Self { target, given, worker: Some(worker), progress: Vec::new() }
    }

    fn ready() -> Self {
        let mut fixture = Self::starting();
        fixture.attach(false);
        fixture
    }

    fn attach(&mut self, has_cost: bool) {
        let worker = self.worker.take().expect("it is attached once");
        self.progress.push(attach(self.target.queue().expect("it has a queue"), has_cost, worker));
    }

    fn call(&self) -> Call {
        call(Arc::new(self.target.clone()))
    }

    async fn job(&mut self) -> Job {
        match self.given.recv().await {
            Some(Given::Jobs(mut jobs)) if jobs.len() == 1 => jobs.remove(0),
            given => panic!("expected a job, got {given:?}"),
        }
    }

    /// Notes that the worker is free again.
    fn finished(&self) {
        let progress = self.progress.last().expect("it is attached");
        progress.finished(Done { jobs: 1, cut_short: 0 });
    }

    async fn is_cancelled(&mut self) -> bool {
        // Longer than the endpoint takes to see who has left.
        sleep(Duration::from_secs(1)).await;
        matches!(self.given.try_recv(), Ok(Given::Cancelled))
    }
}

fn attach(
    endpoint: &Endpoint,
    has_cost: bool,
    worker: mpsc::UnboundedSender<Given>,
) -> Arc<dyn Progress> {
    let info = ModelInfo {
        max_batch_size: 1,
        batch_timeout: Duration::ZERO,
        concurrency: 1,
        stream: true,
        context: false,
        has_cost,
        dialect: None,
        schema: Default::default(),
        tool: None,
        base64: Default::default(),
        watches_callers: false,
        places: 1,
        calls: Vec::new(),
    };
    let attachment = endpoint.attach(0, info);
    let progress = attachment.progress();
    attachment.complete(Box::new(MockWorker(worker)));
    progress
}

fn call(target: Arc<Target>) -> Call {
    let budget = TimeBudget::new(Instant::now(), target.timeout);
    Call { target, budget, trace: None, origin: None, takes_items: false, is_split: false }
}

fn items(values: &[u8]) -> Items {
    let mut builder = ItemsBuilder::json();
    for value in values {
        builder
            .push_with(|out| std::io::Write::write_all(out, &[*value]))
            .expect("it is written to memory");
    }
    builder.finish()
}

fn whole(output: Outcome<Output>) -> Response {
    match output {
        Ok(Output::Whole(response)) => response,
        other => panic!("expected a whole response, got {other:?}"),
    }
}

fn status(output: Outcome<Output>) -> u16 {
    output.expect_err("an error").status()
}

/// Begins a stream of one item.
async fn stream(fixture: &mut Fixture) -> (ItemStream, StreamSender) {
    let call = fixture.call();
    let (output, sender) = tokio::join!(call.run(Request::json("1")), async {
        let mut sender = fixture.job().await.reply.into_stream();
        sender.try_send(Part::Items(items(b"1"))).expect("there is room");
        sender
    });
    match output {
        Ok(Output::Stream(first, rest)) => {
            assert_eq!(first.iter().collect::<Vec<_>>(), [b"1"]);
            (rest, sender)
        }
        other => panic!("expected a stream, got {other:?}"),
    }
}

async fn next(stream: &mut ItemStream) -> Part {
    poll_fn(|cx| stream.poll(cx)).await
}

#[tokio::test(start_paused = true)]
async fn a_call_returns_the_response_of_its_job() {
    let mut fixture = Fixture::ready();
    let call = fixture.call();
    let (output, ()) = tokio::join!(call.run(Request::json("1")), async {
        let job = fixture.job().await;
        assert_eq!((job.cost, job.deadline), (1.0, call.budget.deadline));
        job.reply.send(Ok(Response::json("2")));
    });
    assert_eq!(whole(output).body, "2");
    assert!(!fixture.is_cancelled().await, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_cancels_its_job() {
    let mut fixture = Fixture::ready();
    let (call, begun) = (fixture.call(), Instant::now());
    let (output, _job) = tokio::join!(call.run(Request::json("1")), fixture.job());
    assert_eq!(status(output), 504);
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
    assert!(fixture.is_cancelled().await);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_cancels_its_job() {
    let mut fixture = Fixture::ready();
    let call = fixture.call();
    let job = tokio::select! {
        output = call.run(Request::json("1")) => panic!("{output:?}"),
        job = fixture.job() => job,
    };
    assert!(job.reply.is_abandoned());
    assert!(fixture.is_cancelled().await);
}

#[tokio::test(start_paused = true)]
async fn a_target_without_a_worker_refuses_calls_or_lets_them_wait() {
    let mut fixture = Fixture::starting();
    let budget = fixture.call().budget;
    let refused = fixture.target.ready(budget).await.unwrap_err();
    assert_eq!((refused.status(), refused.retry_after), (503, Some(1)));
    fixture.target.waits_for_first_worker = true;
    let waiting = fixture.target.clone();
    let waiting = tokio::spawn(async move { waiting.ready(budget).await.map(|_| Instant::now()) });
    advance(Duration::from_secs(29)).await;
    fixture.attach(false);
    assert_eq!(waiting.await.unwrap().unwrap(), budget.arrived + Duration::from_secs(29));
    let never = Target { waits_for_first_worker: true, ..Fixture::starting().target };
    assert_eq!(never.ready(budget).await.unwrap_err().status(), 503);
    assert_eq!(Instant::now(), budget.deadline);
}

#[tokio::test(start_paused = true)]
async fn a_cost_is_read_off_the_body_or_computed_by_the_model() {
    let mut fixture = Fixture::starting();
    fixture.attach(true);
    let request = Request::json(r#"{"n": 5}"#);
    assert_eq!(fixture.call().cost(&request).await, Ok(8.0), "the model counts bytes");
    let unlucky = Request::json("thirteen byte");
    assert_eq!(status(fixture.call().run(unlucky).await), 422);
    fixture.target.cost = Cost::parse("n:value");
    assert_eq!(fixture.call().cost(&request).await, Ok(5.0));
    let large = Request {
        content: Content::Raw("image/png".into()),
        ..Request::json("x".repeat(1_000_000))
    };
    fixture.target.cost = Cost::parse("body:bytes");
    assert_eq!(fixture.call().cost(&large).await, Ok(1e6), "it is read on another thread");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_once_and_cancels_nothing() {
    let mut fixture = Fixture::ready();
    let (mut stream, mut sender) = stream(&mut fixture).await;
    sender.try_send(Part::Items(items(b"23"))).unwrap();
    sender.try_send(Part::End).unwrap();
    assert!(matches!(next(&mut stream).await, Part::Items(items) if items.iter().count() == 2));
    for _ in 0..2 {
        assert!(matches!(next(&mut stream).await, Part::End));
    }
    drop(stream);
    assert!(!fixture.is_cancelled().await);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_cancels_its_job() {
    let mut fixture = Fixture::ready();
    let (stream, sender) = stream(&mut fixture).await;
    drop(stream);
    assert!(sender.is_abandoned());
    assert!(fixture.is_cancelled().await);
}

#[tokio::test(start_paused = true)]
async fn a_stream_fails_where_its_next_part_is_late() {
    let mut fixture = Fixture::ready();
    let (mut stream, mut sender) = stream(&mut fixture).await;
    // The time that the caller takes does not count, nor that before another part.
    sleep(Duration::from_secs(60)).await;
    sender.try_send(Part::Items(items(b"2"))).unwrap();
    assert!(matches!(next(&mut stream).await, Part::Items(_)));
    let waits_since = Instant::now();
    match next(&mut stream).await {
        Part::Failed(error) => assert_eq!(error.status(), 504),
        part => panic!("{part:?}"),
    }
    assert_eq!(waits_since.elapsed(), Duration::from_secs(5));
    assert!(fixture.is_cancelled().await);
    assert!(matches!(next(&mut stream).await, Part::End));
}

#[tokio::test(start_paused = true)]
async fn targets_are_replaced_while_calls_run() {
    let (mut before, mut after) = (Fixture::ready(), Fixture::ready());
    let targets = |of: &Fixture| Targets::from_iter([Arc::new(of.target.clone())]);
    let registry = Registry::new(targets(&before));
    let (named, other) = (registry.labelled("/test"), registry.labelled("/other"));
    for reference in ["/test", "test", "alias"] {
        let found = registry.find_all(reference).expect("it is there");
        assert_eq!(found.iter().map(|it| &*it.identity.label).collect::<Vec<_>>(), ["/test"]);
    }
    let error = registry.find_all("/other").expect_err("no endpoint has it").to_string();
    assert_eq!(error, "there is no endpoint `/other`; there are `/test`");
    let running = call(named.get().expect("it is registered"));
    let (output, ()) = tokio::join!(running.run(Request::json("1")), async {
        let job = before.job().await;
        registry.replace(targets(&after));
        job.reply.send(Ok(Response::json("before")));
    });
    assert_eq!(whole(output).body, "before");
    let next = call(named.get().expect("it is registered"));
    let (output, ()) = tokio::join!(next.run(Request::json("1")), async {
        after.job().await.reply.send(Ok(Response::json("after")));
    });
    assert_eq!(whole(output).body, "after");
    assert!(other.get().is_none());
    registry.replace(Targets::default());
    assert!(named.get().is_none());
}

/// Answers jobs one by one, each after 100 ms, until the endpoint knows its pace.
async fn answer_until_the_pace_is_known(fixture: &mut Fixture) {
    while fixture.target.queue().expect("it has a queue").pace().is_none() {
        let call = fixture.call();
        let (output, ()) = tokio::join!(call.run(Request::json("1")), async {
            let job = fixture.job().await;
            sleep(Duration::from_millis(100)).await;
            job.reply.send(Ok(Response::json("2")));
            fixture.finished();
        });
        whole(output);
    }
}

/// A caller, a callee that takes 100 ms for a request, and requests to the caller with a second each.
struct Graph {
    registry: Registry,
    caller: Arc<Target>,
    _callee: Fixture,
}

impl Graph {
    async fn new() -> Self {
        let mut callee = Fixture::ready();
        answer_until_the_pace_is_known(&mut callee).await;
        let caller = Fixture::starting().target;
        let identity = Identity { label: "/caller".into(), ..(*caller.identity).clone() };
        let backend = Backend::Composed(Arc::new(Nothing));
        let timeout = Duration::from_secs(1);
        let caller = Target { identity: Arc::new(identity), backend, timeout, ..caller };
        let (callee_target, caller) = (Arc::new(callee.target.clone()), Arc::new(caller));
        let registry = Registry::new([callee_target, caller.clone()].into_iter().collect());
        Self { registry, caller, _callee: callee }
    }

    /// Admits a request to the caller.
    fn admit(&self) -> Outcome<Admitted> {
        let mut call = call(self.caller.clone());
        let observed = call.admit(&self.registry)?.expect("it makes calls");
        Ok(Admitted { root: call.origin.expect("it has a place").root.clone(), observed })
    }

    /// Lets a request fail because its callee has no time for it.
    fn fail(&self) {
        let request = self.admit().expect("it is admitted");
        request.call().end(CallEnd::Failed);
        request.observed.answered(503, Instant::now());
    }

    /// Returns the number of requests that are admitted, up to 100.
    fn admitted(&self) -> Vec<Admitted> {
        (0..100).map_while(|_| self.admit().ok()).collect()
    }
}

/// A request that was admitted.
struct Admitted {
    root: Arc<Root>,
    observed: Arc<ObservedRequest>,
}

impl Admitted {
    fn call(&self) -> ObservedCall {
        self.root.begin_call("/test").expect("it is observed")
    }
}

#[derive(Debug)]
struct Nothing;

impl Composed for Nothing {
    fn info(&self) -> &ModelInfo {
        unreachable!("the test does not ask")
    }

    fn run<'a>(&'a self, _: Inherited, _: Request) -> BoxFuture<'a, Outcome<Called>> {
        unreachable!("the test makes its calls")
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_refused_for_the_calls_that_those_before_them_will_make() {
    let graph = Graph::new().await;
    assert_eq!(graph.admitted().len(), 100, "nothing is known of their calls");
    graph.fail();
    let mut admitted = graph.admitted();
    assert_eq!(admitted.len(), 9, "in 90 % of a second");
    let error = graph.admit().err().expect("it is refused");
    assert_eq!((error.status(), error.retry_after), (503, Some(1)));
    assert!(error.detail.contains("`/test`, which this request needs"), "{error}");
    // A call that is done leaves its time to others, while its request goes on.
    admitted[0].call().end(CallEnd::Answered);
    admitted.extend(graph.admit());
    assert_eq!(admitted.len(), 10);
    assert!(graph.admit().is_err());
    // A stream lasts after its first items, and may make no call.
    admitted[1].observed.answered(200, Instant::now());
    admitted.extend(graph.admit());
    assert_eq!(admitted.len(), 11);
    drop(admitted);
    assert_eq!(graph.admitted().len(), 9, "requests that end leave nothing behind");
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_requests_can_do_without_is_no_reason_to_refuse_them() {
    let graph = Graph::new().await;
    let goes_on = graph.admit().unwrap();
    goes_on.call().end(CallEnd::Failed);
    goes_on.observed.answered(200, Instant::now());
    assert_eq!(graph.admitted().len(), 100);
    // It has caught that error, and fails for another reason.
    let other = graph.admit().unwrap();
    other.call().end(CallEnd::Failed);
    let call = other.root.begin_call("/other").unwrap();
    call.end(CallEnd::Failed);
    other.observed.answered(503, Instant::now());
    assert_eq!(graph.admitted().len(), 100);
    // A program that later does without it teaches so.
    graph.fail();
    assert_eq!(graph.admitted().len(), 9);
    let goes_on = graph.admit().unwrap();
    goes_on.call().end(CallEnd::Failed);
    goes_on.observed.answered(200, Instant::now());
    assert_eq!(graph.admitted().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn requests_claim_as_many_calls_as_those_before_them_made() {
    let graph = Graph::new().await;
    for _ in 0..100 {
        let request = graph.admit().unwrap();
        (0..3).for_each(|_| request.call().end(CallEnd::Answered));
        request.observed.answered(200, Instant::now());
    }
    graph.fail();
    assert_eq!(graph.admitted().len(), 3, "each takes 300 ms");
}

#[tokio::test(start_paused = true)]
async fn requests_leave_time_for_what_they_do_beside_their_calls() {
    let graph = Graph::new().await;
    for _ in 0..100 {
        let request = graph.admit().unwrap();
        sleep(Duration::from_millis(500)).await;
        request.call().end(CallEnd::Answered);
        request.observed.answered(200, Instant::now());
    }
    graph.fail();
    assert_eq!(graph.admitted().len(), 4, "half of their second is spent elsewhere");
}

#[tokio::test(start_paused = true)]
async fn calls_without_an_end_are_needed_by_a_request_whose_time_is_over() {
    let graph = Graph::new().await;
    let request = graph.admit().unwrap();
    let _open = request.call();
    request.observed.answered(504, Instant::now());
    drop(request);
    assert_eq!(graph.admitted().len(), 9);
}

/// A live target whose requests are copied for a shadow, and the reports of the trial.
struct ShadowedFixture {
    live: Fixture,
    shadow: Fixture,
    copies: Arc<Shadows>,
    reports: mpsc::Receiver<TrialReport>,
}

impl ShadowedFixture {
    fn new() -> Self {
        let (mut live, mut shadow) = (Fixture::ready(), Fixture::ready());
        let (sender, reports) = mpsc::channel(16);
        shadow.target.trial = Some(Trial::Shadow { reports: sender.clone() });
        let copies = Arc::new(Shadows::default());
        let shadow_target = Arc::new(shadow.target.clone());
        let plan = ShadowPlan {
            shadow: shadow_target.clone(),
            share: 1.0,
            copies: copies.clone(),
            room: ShadowRoom::default(),
            reports: sender.clone(),
        };
        live.target.trial = Some(Trial::Shadowed {
            shadow: shadow_target,
            copies: Arc::new(plan),
            reports: sender,
        });
        Self { live, shadow, copies, reports }
    }

    /// Answers a request on both sides, the client's first.
    async fn answer(&mut self, live: Outcome<Response>, shadow: Outcome<Response>) {
        let call = self.live.call();
        let (output, ()) = tokio::join!(call.run(Request::json("1")), async {
            self.live.job().await.reply.send(live);
        });
        drop(output);
        self.shadow.job().await.reply.send(shadow);
        [&self.live, &self.shadow].iter().for_each(|side| side.finished());
    }

    /// Returns whether the live job and that of the shadow failed, and whether their answers differ.
    async fn reported(&mut self) -> ([bool; 2], Option<bool>) {
        let (mut failed, mut answers) = ([false; 2], None);
        sleep(Duration::from_millis(1)).await;
        while let Ok(report) = self.reports.try_recv() {
            match report {
                TrialReport::Job(job) => {
                    failed[usize::from(job.side == Side::Tried)] = job.has_failed;
                }
                TrialReport::Answer { differs } => answers = Some(differs),
            }
        }
        (failed, answers)
    }
}

fn answer(status: u16, body: &'static str) -> Outcome<Response> {
    Ok(Response { status, ..Response::json(body) })
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_copy_is_compared_by_its_status_and_its_bytes() {
    let mut fixture = ShadowedFixture::new();
    let large: &'static str = "x".repeat(1_000_000).leak();
    for (live, shadow, expected) in [
        (answer(200, "1"), answer(200, "1"), ([false, false], Some(false))),
        (answer(200, "1"), answer(200, "2"), ([false, false], Some(true))),
        (answer(200, "1"), answer(201, "1"), ([false, false], Some(true))),
        (answer(200, large), answer(200, large), ([false, false], Some(false))),
        (answer(200, "1"), Err(ServeError::new(422, "no")), ([false, false], Some(true))),
        (answer(422, "no"), answer(422, "no"), ([false, false], Some(false))),
        (answer(200, "1"), answer(500, "1"), ([false, true], None)),
        (answer(200, "1"), Err(ServeError::new(500, "no")), ([false, true], None)),
        (Err(ServeError::new(500, "no")), answer(200, "1"), ([true, false], None)),
        // It comes after clients, and has not failed.
        (answer(200, "1"), Err(ServeError::overloaded("full", 1)), ([false, false], None)),
    ] {
        let case = format!("{live:?} {shadow:?}");
        fixture.answer(live, shadow).await;
        let mut reported = fixture.reported().await;
        // Large bodies are compared on another thread.
        while reported.1 != expected.1 {
            tokio::task::yield_now().await;
            reported = (reported.0, fixture.reported().await.1);
        }
        assert_eq!(reported, expected, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_client_waits_for_a_copy_which_has_its_own_time() {
    let mut fixture = ShadowedFixture::new();
    let (call, begun) = (fixture.live.call(), Instant::now());
    let request = Request { id: Some("7".into()), ..Request::json("1") };
    let (output, ()) = tokio::join!(call.run(request), async {
        sleep(Duration::from_secs(20)).await;
        fixture.live.job().await.reply.send(Ok(Response::json("2")));
    });
    assert_eq!((whole(output).body, begun.elapsed()), ("2".into(), Duration::from_secs(20)));
    let copy = fixture.shadow.job().await;
    assert_eq!(copy.request.id.as_deref(), Some("shadow-7"));
    assert_eq!(copy.deadline, begun + Duration::from_secs(30));
    assert!(copy.origin.as_ref().expect("it has a root").root.is_shadow);
    assert!(copy.request.reservation.grow(usize::MAX).is_ok(), "it is part of no budget");
    assert!(!copy.reply.is_abandoned());
    sleep(Duration::from_secs(11)).await;
    assert!(copy.reply.is_abandoned());
    assert_eq!(fixture.reported().await, ([false, true], None), "its time is over");
}

#[tokio::test(start_paused = true)]
async fn a_copy_ends_with_its_client_and_with_the_trial() {
    let mut fixture = ShadowedFixture::new();
    let call = fixture.live.call();
    let job = tokio::select! {
        output = call.run(Request::json("1")) => panic!("{output:?}"),
        job = fixture.live.job() => job,
    };
    let copy = fixture.shadow.job().await;
    assert!(job.reply.is_abandoned());
    sleep(Duration::from_secs(1)).await;
    assert!(copy.reply.is_abandoned());
    [&fixture.live, &fixture.shadow].iter().for_each(|side| side.finished());
    while !matches!(fixture.live.given.recv().await, Some(Given::Cancelled)) {}

    let call = fixture.live.call();
    let (output, ()) = tokio::join!(call.run(Request::json("1")), async {
        fixture.live.job().await.reply.send(Ok(Response::json("2")));
    });
    assert_eq!(whole(output).body, "2");
    while !matches!(fixture.shadow.given.recv().await, Some(Given::Cancelled)) {}
    let copy = fixture.shadow.job().await;
    fixture.copies.end();
    sleep(Duration::from_secs(1)).await;
    assert!(copy.reply.is_abandoned());
    assert_eq!(fixture.reported().await, ([false, false], None));
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_copy_is_read_to_its_end_and_not_compared() {
    let mut fixture = ShadowedFixture::new();
    let call = fixture.live.call();
    let (output, ()) = tokio::join!(call.run(Request::json("1")), async {
        fixture.live.job().await.reply.send(Ok(Response::json("1")));
    });
    assert_eq!(whole(output).body, "1");
    let mut sender = fixture.shadow.job().await.reply.into_stream();
    for _ in 0..100 {
        while sender.try_send(Part::Items(items(b"1"))).is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    }
    sender.try_send(Part::End).expect("there is room");
    assert_eq!(fixture.reported().await, ([false, false], None));
}

#[tokio::test(start_paused = true)]
async fn what_a_shadow_calls_is_for_shadows_and_is_not_copied() {
    let mut fixture = ShadowedFixture::new();
    let live = Arc::new(fixture.live.target.clone());
    let (client, shadow) = (Root::new(None), Root::new(None).shadow());
    assert!(Arc::ptr_eq(&live.clone().chosen(Some(&client)), &live));
    let chosen = live.chosen(Some(&shadow));
    assert!(matches!(chosen.trial, Some(Trial::Shadow { .. })));
    let call = call(chosen);
    let (output, ()) = tokio::join!(call.run(Request::json("1")), async {
        fixture.shadow.job().await.reply.send(Ok(Response::json("2")));
    });
    assert_eq!(whole(output).body, "2");
    sleep(Duration::from_secs(1)).await;
    assert!(fixture.shadow.given.try_recv().is_err() && fixture.live.given.try_recv().is_err());
}
