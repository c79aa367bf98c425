//! Graphs that call mock endpoints.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use litplex_core::{
    Answer, BoxFuture, Called, Content, ItemsBuilder, MediaType, Outcome, Part, PartStream, Reply,
    Request, Response, ServeError, StreamReceiver, reply,
};
use litplex_pipelines::{Caller, Ended, Graph, StepCall, StepReport};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

type Handler = Box<dyn Fn(&Mock, Request, Reply) + Send + Sync>;

/// Endpoints by path, and what was noted of calls and steps.
#[derive(Default)]
struct Mock {
    endpoints: HashMap<&'static str, Handler>,
    /// The calls of each endpoint, with their bodies.
    calls: Mutex<Vec<(String, String)>>,
    steps: Mutex<Vec<String>>,
    running: Arc<AtomicUsize>,
    most_running: AtomicUsize,
    /// The number of calls for shadows.
    shadows: AtomicUsize,
    /// The number of times that work was left to another thread.
    off_thread: AtomicUsize,
}

/// Counts a call until it is dropped.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Mock {
    fn with(
        mut self,
        path: &'static str,
        handler: impl Fn(&Self, Request, Reply) + Send + Sync + 'static,
    ) -> Self {
        self.endpoints.insert(path, Box::new(handler));
        self
    }

    /// Adds an endpoint that answers with this JSON.
    fn json(self, path: &'static str, body: &'static str) -> Self {
        self.with(path, move |_, _, reply| reply.send(Ok(Response::json(body))))
    }

    /// Adds an endpoint that answers with its own body, named.
    fn echo(self, path: &'static str) -> Self {
        self.with(path, move |_, request, reply| {
            let body = format!("{{\"{}\":{}}}", &path[1..], text(&request));
            reply.send(Ok(Response::json(body)));
        })
    }

    fn fails(self, path: &'static str, status: u16) -> Self {
        self.with(path, move |_, _, reply| reply.send(Err(ServeError::new(status, "no"))))
    }

    /// Adds an endpoint that answers with `1` after a time.
    fn slow(self, path: &'static str, time: Duration) -> Self {
        self.with(path, move |_, _, reply| {
            tokio::spawn(async move {
                sleep(time).await;
                reply.send(Ok(Response::json("1")));
            });
        })
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }

    fn bodies(&self, path: &str) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(called, _)| called == path).map(|(_, body)| body.clone()).collect()
    }

    fn steps(&self) -> Vec<String> {
        self.steps.lock().unwrap().clone()
    }
}

fn text(request: &Request) -> String {
    String::from_utf8(request.body.concat()).unwrap()
}

struct Rest(StreamReceiver);

impl PartStream for Rest {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        self.0.poll_part(cx)
    }
}

struct Mocked(Arc<Mock>);

impl Caller for Mocked {
    fn call(&self, call: StepCall<'_>) -> BoxFuture<'static, Outcome<Called>> {
        let StepCall { endpoint, request, is_shadow, .. } = call;
        self.0.shadows.fetch_add(usize::from(is_shadow), SeqCst);
        let mock = self.0.clone();
        mock.calls.lock().unwrap().push((endpoint.to_owned(), text(&request)));
        let now = mock.running.fetch_add(1, SeqCst) + 1;
        mock.most_running.fetch_max(now, SeqCst);
        let running = Running(mock.running.clone());
        let (reply, mut answers) = reply();
        mock.endpoints[endpoint](&mock, request, reply);
        Box::pin(async move {
            let answer = answers.recv().await;
            drop(running);
            Ok(match answer? {
                Answer::Whole(response) => Called::Whole(response),
                Answer::Stream(first, rest) => Called::Stream(first, Box::new(Rest(rest))),
            })
        })
    }

    fn off_thread(&self, _: usize, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        self.0.off_thread.fetch_add(1, SeqCst);
        work();
        Box::pin(async {})
    }

    fn path(&self) -> Vec<String> {
        vec!["/p".into()]
    }

    fn ended(&self, step: StepReport<'_>) {
        let how = match step.ended {
            Ended::Done => "done".to_owned(),
            Ended::Failed(error) => format!("failed {}", error.status()),
            Ended::Defaulted(error) => format!("defaulted {}", error.status()),
            Ended::Cancelled => "cancelled".to_owned(),
            Ended::Skipped => "skipped".to_owned(),
        };
        if step.is_in_map {
            return;
        }
        self.0.steps.lock().unwrap().push(format!("{} {how}", step.name));
    }
}

async fn run(mock: &Arc<Mock>, definition: &Value, request: Request) -> Outcome<Called> {
    let graph = Graph::read(definition).unwrap();
    let called = graph.run(Arc::new(Mocked(mock.clone())), request, None, false).await;
    called.map_err(|failed| failed.error)
}

async fn answer(mock: &Arc<Mock>, definition: &Value, body: &'static str) -> Outcome<String> {
    match run(mock, definition, Request::json(body)).await? {
        Called::Whole(response) => Ok(String::from_utf8(response.body.to_vec()).unwrap()),
        Called::Stream(..) => panic!("expected a whole response"),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn steps_follow_each_other_and_select_from_earlier_ones() {
    let mock = Arc::new(Mock::default().json("/ocr", r#"{"text": "a", "n": 1.50}"#).echo("/b"));
    let definition = json!([
        {"name": "ocr", "call": "/ocr", "input": "$request.image"},
        "/b",
        {"call": "/b", "input": {"n": "$ocr.n", "q": "$request.q", "b": "$response.b.text"}},
        {"value": ["$response", "$$"]},
    ]);
    let body = r#"{"image": "png", "q": 1e2}"#;
    let expected = r#"[{"b":{"n":1.50,"q":1e2,"b":"a"}},"$"]"#;
    assert_eq!(answer(&mock, &definition, body).await.unwrap(), expected);
    assert_eq!(mock.bodies("/ocr"), ["\"png\""]);
    assert_eq!(mock.steps(), ["ocr done", "/b done", "/b done", "value done"]);
}

#[tokio::test]
async fn long_values_are_read_off_the_thread() {
    let mock = Arc::new(Mock::default().echo("/a"));
    let body: &'static str = format!("{{\"n\": 1, \"x\": \"{}\"}}", "x".repeat(100_000)).leak();
    answer(&mock, &json!(["/a", "/a"]), body).await.unwrap();
    assert_eq!(mock.off_thread.load(SeqCst), 0, "values that are taken whole are not read");
    let definition = json!([
        {"value": "$request.n"},
        {"switch": [{"when": "request.n == 1", "call": "/a"}]},
        {"parallel": {"x": {"value": "$request"}}},
    ]);
    answer(&mock, &definition, body).await.unwrap();
    assert_eq!(mock.off_thread.load(SeqCst), 3);
}

#[tokio::test]
async fn bytes_pass_through_a_sequence_unchanged() {
    let echo = |_: &Mock, request: Request, reply: Reply| {
        let Content::Raw(media_type) = request.content.clone() else { panic!("expected bytes") };
        let body = request.body.concat().into();
        let media_type = MediaType::Other(media_type);
        reply.send(Ok(Response { status: 201, media_type, headers: Vec::new(), body }));
    };
    let mock = Arc::new(Mock::default().with("/a", echo).with("/b", echo));
    let request =
        Request { content: Content::Raw("image/png".into()), ..Request::json("\u{1}png") };
    let Ok(Called::Whole(response)) = run(&mock, &json!(["/a", "/b"]), request.clone()).await
    else {
        panic!("expected a response")
    };
    assert_eq!((response.status, &response.body[..]), (201, &b"\x01png"[..]));
    let field = json!([{"call": "/a", "input": "$request.x"}]);
    assert_eq!(run(&mock, &field, request).await.unwrap_err().status(), 415);
}

#[tokio::test(start_paused = true)]
async fn parallel_steps_run_at_the_same_time_and_are_merged_by_name() {
    let mock = Mock::default().slow("/a", seconds(3)).slow("/b", seconds(2)).json("/c", "[ 2 ]");
    let mock = Arc::new(mock);
    let definition = json!([
        {"name": "all", "parallel": {"x": "/a", "y": ["/b", "/c"], "z": {"value": "$request"}}},
        {"value": {"all": "$all", "y": "$y[0]", "response": "$response.z"}},
    ]);
    let began = Instant::now();
    let expected = r#"{"all":{"x":1,"y":[ 2 ],"z":7},"y":2,"response":7}"#;
    assert_eq!(answer(&mock, &definition, "7").await.unwrap(), expected);
    assert_eq!(began.elapsed(), seconds(3));
}

#[tokio::test(start_paused = true)]
async fn a_hard_failure_cancels_the_steps_beside_it() {
    let mock = Mock::default().slow("/slow", seconds(60)).fails("/bad", 503);
    let mock = Arc::new(mock);
    let definition = json!([{"parallel": {"a": "/slow", "c": "/slow", "b": ["/bad"]}}]);
    let error = answer(&mock, &definition, "1").await.unwrap_err();
    assert_eq!(error.to_string(), "503: step `/bad`: no");
    assert_eq!(mock.running.load(SeqCst), 0, "all calls are dropped");
    let mut steps = mock.steps();
    steps.sort();
    let expected =
        ["/bad failed 503", "a cancelled", "b failed 503", "c cancelled", "parallel failed 503"];
    assert_eq!(steps, expected);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_cancels_all_calls() {
    let mock = Arc::new(Mock::default().slow("/slow", seconds(60)));
    let definition = json!([{"parallel": {
        "a": "/slow",
        "b": {"map": "/slow", "over": "$request"},
        "c": {"splitter": [{"weight": 1, "call": "/slow"}, {"shadow": 1, "call": "/slow"}]},
    }}]);
    let called = tokio::time::timeout(seconds(1), answer(&mock, &definition, "[1, 2, 3]")).await;
    assert!(called.is_err());
    assert_eq!(mock.calls().len(), 6);
    tokio::task::yield_now().await;
    assert_eq!(mock.running.load(SeqCst), 0);
}

#[tokio::test]
async fn a_soft_failure_has_a_default() {
    let mock = Arc::new(Mock::default().fails("/bad", 500).echo("/ok"));
    let soft = |default: Value| json!({"call": "/bad", "dependency": "soft", "default": default});
    let definition = json!([
        {"parallel": {"a": soft(json!({"en": 1})), "b": {"call": "/bad", "dependency": "soft"}}},
        "/ok",
        {"parallel": {"c": {"value": "$a.en"}, "d": {"value": "$response.ok"}}},
    ]);
    let expected = r#"{"c":1,"d":{"a":{"en":1},"b":null}}"#;
    assert_eq!(answer(&mock, &definition, "0").await.unwrap(), expected);
    assert!(mock.steps().contains(&"a defaulted 500".to_owned()));
}

#[tokio::test]
async fn a_switch_takes_the_first_branch_whose_condition_holds() {
    let mock = Arc::new(Mock::default().echo("/de").echo("/en"));
    let de = json!({"when": "request.lang == 'de'", "call": "/de"});
    let en = json!({"when": "request.lang.startsWith('en')", "call": "/en"});
    let both = json!([{"switch": [de, en]}]);
    assert_eq!(
        answer(&mock, &both, r#"{"lang":"en-GB"}"#).await.unwrap(),
        r#"{"en":{"lang":"en-GB"}}"#
    );
    let error = answer(&mock, &both, r#"{"lang":"fr"}"#).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "422: step `switch`: no condition holds: `request.lang == 'de'`, \
         `request.lang.startsWith('en')`; `request` is {\"lang\":\"fr\"}"
    );
    let error = answer(&mock, &both, r#"{"language":"fr"}"#).await.unwrap_err();
    assert_eq!(error.status(), 422);
    assert!(error.detail.contains("the condition `request.lang == 'de'` cannot be"), "{error}");
    let otherwise = json!([{"switch": [de, ["/en"]]}]);
    assert_eq!(answer(&mock, &otherwise, r#"{"lang":1}"#).await.unwrap(), r#"{"en":{"lang":1}}"#);
}

#[tokio::test]
async fn a_splitter_answers_each_request_and_shadows_get_copies() {
    let mock = Arc::new(Mock::default().echo("/a").echo("/b").fails("/shadow", 500));
    let definition = json!([{"splitter": [
        {"weight": 3, "call": "/a"},
        {"weight": 1, "call": "/b"},
        {"shadow": 1, "call": "/shadow"},
    ]}]);
    for _ in 0..200 {
        assert!(answer(&mock, &definition, "1").await.unwrap().ends_with(":1}"));
    }
    while mock.bodies("/shadow").len() < 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(mock.shadows.load(SeqCst), 200, "other calls are for no shadow");
    let (a, b) = (mock.bodies("/a").len(), mock.bodies("/b").len());
    assert_eq!(a + b, 200);
    assert!(a > b && b > 0, "{a} {b}");
}

#[tokio::test(start_paused = true)]
async fn a_shadow_outlives_the_response() {
    let mock = Arc::new(Mock::default().echo("/a").slow("/shadow", seconds(5)));
    let definition =
        json!([{"splitter": [{"weight": 1, "call": "/a"}, {"shadow": 1, "call": "/shadow"}]}]);
    answer(&mock, &definition, "1").await.unwrap();
    sleep(seconds(6)).await;
    assert!(mock.steps().contains(&"/shadow done".to_owned()), "{:?}", mock.steps());
}

#[tokio::test(start_paused = true)]
async fn a_map_keeps_the_order_and_the_limit_of_its_items() {
    let mock = Mock::default().with("/embed", |_, request, reply| {
        let item: u64 = text(&request).parse().unwrap();
        tokio::spawn(async move {
            sleep(seconds(20 - item)).await;
            reply.send(Ok(Response::json(format!("[{item}.0]"))));
        });
    });
    let mock = Arc::new(mock);
    let definition = json!([{"map": {"call": "/embed", "input": "$item.n"}, "over": "$request.items",
        "in_flight": 2}]);
    let body = r#"{"items": [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}, {"n": 5}]}"#;
    let expected = "[[1.0],[2.0],[3.0],[4.0],[5.0]]";
    assert_eq!(answer(&mock, &definition, body).await.unwrap(), expected);
    assert_eq!(mock.most_running.load(SeqCst), 2);
    assert_eq!(answer(&mock, &definition, r#"{"items": []}"#).await.unwrap(), "[]");
    let error = answer(&mock, &definition, r#"{"items": 7}"#).await.unwrap_err();
    assert_eq!(error.to_string(), "422: step `map`: `$request.items` is not a list, but 7");
    let error = answer(&mock, &definition, r#"{"items": [{"n": 1}, {}]}"#).await.unwrap_err();
    assert_eq!(error.to_string(), "422: step `/embed`, item [1] of `map`: `$item.n` is missing");
}

#[tokio::test(start_paused = true)]
async fn a_step_has_a_timeout_of_its_own() {
    let mock = Arc::new(Mock::default().slow("/slow", seconds(60)));
    let hard = json!([{"name": "x", "call": "/slow", "timeout": 2}]);
    let error = answer(&mock, &hard, "1").await.unwrap_err();
    assert_eq!(error.to_string(), "504: step `x` (/slow): no response within 2s");
    let soft = json!([{"sequence": ["/slow"], "timeout": 0.5, "dependency": "soft", "default": 3}]);
    assert_eq!(answer(&mock, &soft, "1").await.unwrap(), "3");
    assert_eq!(mock.running.load(SeqCst), 0);
}

/// Adds an endpoint that streams three items, one each second.
fn streaming(mock: Mock, path: &'static str, text: bool) -> Mock {
    mock.with(path, move |_, _, reply| {
        tokio::spawn(async move {
            let mut stream = reply.into_stream();
            for item in 0..3 {
                let mut items = ItemsBuilder::json();
                items.push_with(|out| serde_json::to_writer(out, &item)).unwrap();
                let mut items = items.finish();
                if text {
                    let packed = [&1_u32.to_le_bytes()[..], b"x"].concat().into();
                    items = litplex_core::Items::from_packed(litplex_core::ItemKind::Text, packed)
                        .unwrap();
                }
                stream.try_send(Part::Items(items)).unwrap();
                sleep(seconds(1)).await;
            }
            stream.try_send(Part::End).unwrap();
        });
    })
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_the_last_step_is_passed_on_as_it_comes() {
    let mock = Arc::new(streaming(Mock::default().echo("/a"), "/chat", false));
    let last = [
        json!("/chat"),
        json!(["/a", "/chat"]),
        json!({"switch": [{"when": "true", "call": "/chat"}]}),
        json!({"splitter": [{"weight": 1, "call": "/chat"}]}),
        json!({"call": "/chat", "timeout": 0.1}),
    ];
    for last in last {
        let began = Instant::now();
        let called = run(&mock, &json!(["/a", last]), Request::json("1")).await.unwrap();
        let Called::Stream(first, mut rest) = called else { panic!("expected a stream") };
        assert_eq!(first.iter().collect::<Vec<_>>(), [b"0"]);
        assert_eq!(began.elapsed(), Duration::ZERO, "{last}");
        let Part::Items(second) = poll_fn(|cx| rest.poll_part(cx)).await else { panic!("items") };
        assert_eq!(second.iter().collect::<Vec<_>>(), [b"1"]);
        assert_eq!(began.elapsed(), seconds(1));
    }
}

#[tokio::test(start_paused = true)]
async fn streams_of_other_steps_are_collected() {
    let mock = streaming(streaming(Mock::default().echo("/a"), "/numbers", false), "/text", true);
    let mock = Arc::new(mock);
    assert_eq!(answer(&mock, &json!(["/numbers", "/a"]), "1").await.unwrap(), r#"{"a":[0,1,2]}"#);
    let definition = json!([{"parallel": {"t": "/text", "n": {"map": "/numbers"}}}]);
    let expected = r#"{"t":"xxx","n":[[0,1,2],[0,1,2]]}"#;
    assert_eq!(answer(&mock, &definition, "[1, 1]").await.unwrap(), expected);
}

#[tokio::test]
async fn errors_have_the_status_of_the_side_at_fault() {
    let mock = Mock::default().json("/a", r#"{"x": 1}"#).fails("/422", 422).fails("/500", 500);
    let mock = mock.with("/inner", |_, _, reply| {
        reply.send(Err(ServeError::new(503, "step `x`: no")));
    });
    let mock = mock.fails("/503", 503).with("/404", |_, _, reply| {
        let body = br#"{"detail": "gone"}"#;
        let response = Response { status: 404, ..Response::json(&body[..]) };
        reply.send(Ok(response));
    });
    let mock = Arc::new(mock);
    for (definition, expected) in [
        (json!(["/422"]), "422: step `/422`: no"),
        (json!([{"call": "/422", "input": {"q": "$request.q"}}]), "422: step `/422`: no"),
        (json!(["/a", "/422"]), "500: step `/422`: status 422: no"),
        (
            json!([{"map": "/422", "over": "$request.items"}]),
            "422: step `/422`, item [0] of `map`: no",
        ),
        (json!(["/a", "/503"]), "503: step `/503`: no"),
        (json!(["/500"]), "500: step `/500`: status 500: no"),
        (json!(["/404"]), "404: step `/404`: gone"),
        (json!(["/inner"]), "503: step `/inner`: step `x`: no"),
        (json!([{"name": "n", "call": "/404"}]), "404: step `n` (/404): gone"),
        (json!(["/a", {"value": "$response.y"}]), "500: step `value`: `$response.y` is missing"),
    ] {
        let error = answer(&mock, &definition, r#"{"q": 1, "items": [1]}"#).await.unwrap_err();
        assert_eq!(error.to_string(), expected, "{definition}");
    }
}

/// Returns the parts of a stream, each with the second in which it came; items of one part are joined.
async fn parts(first: litplex_core::Items, mut rest: Box<dyn PartStream>) -> Vec<(u64, String)> {
    let began = Instant::now();
    let shown = |part: &Part| match part {
        Part::Items(items) => {
            let items: Vec<_> = items.iter().map(|item| String::from_utf8_lossy(item)).collect();
            items.join(" ")
        }
        Part::End => "end".into(),
        Part::Failed(error) => error.to_string(),
    };
    let mut part = Part::Items(first);
    let mut found = Vec::new();
    loop {
        found.push((began.elapsed().as_secs(), shown(&part)));
        if !matches!(part, Part::Items(_)) {
            return found;
        }
        part = poll_fn(|cx| rest.poll_part(cx)).await;
    }
}

/// Runs a graph for a client that reads the items of a list as they come.
async fn run_for_items(mock: &Arc<Mock>, definition: &Value, body: &'static str) -> Called {
    let graph = Graph::read(definition).unwrap();
    let caller = Arc::new(Mocked(mock.clone()));
    graph.run(caller, Request::json(body), None, true).await.unwrap()
}

/// An endpoint that answers an item `n` after `n` seconds, and fails for 9.
fn waits() -> Mock {
    Mock::default().with("/wait", |_, request, reply| {
        let item: u64 = text(&request).parse().unwrap();
        tokio::spawn(async move {
            sleep(seconds(item)).await;
            let failed = Err(ServeError::new(422, "nine"));
            reply.send(if item == 9 { failed } else { Ok(Response::json(format!("{item}.0"))) });
        });
    })
}

#[tokio::test(start_paused = true)]
async fn a_map_that_is_the_last_step_streams_its_items_in_order_to_clients_that_ask() {
    let mock = Arc::new(waits());
    let streamed = [
        json!({"map": "/wait"}),
        json!([{"value": "$request"}, {"map": "/wait"}]),
        json!({"switch": [{"when": "true", "map": "/wait"}]}),
        json!({"splitter": [{"weight": 1, "map": "/wait"}]}),
    ];
    for last in streamed {
        let called = run_for_items(&mock, &json!([last]), "[1, 3, 2, 4, 9]").await;
        let Called::Stream(first, rest) = called else { panic!("expected a stream: {last}") };
        let failure = "422: step `/wait`, item [4] of `map`: nine";
        // The first came after a second; the third waits for the second, and comes with it.
        let expected = [(0, "1.0"), (2, "3.0 2.0"), (3, "4.0"), (8, failure)];
        assert_eq!(parts(first, rest).await, expected.map(|(at, part)| (at, part.to_owned())));
    }
    let Called::Stream(first, rest) = run_for_items(&mock, &json!([{"map": "/wait"}]), "[]").await
    else {
        panic!("expected a stream")
    };
    assert_eq!(parts(first, rest).await, [(0, String::new()), (0, "end".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_map_elsewhere_and_for_other_clients_is_a_list() {
    let mock = Arc::new(waits().echo("/a"));
    let map = json!({"map": "/wait"});
    for (definition, expected) in [
        (json!([map, "/a"]), r#"{"a":[1.0,2.0]}"#),
        (json!([{"parallel": {"x": map}}]), r#"{"x":[1.0,2.0]}"#),
    ] {
        let Called::Whole(response) = run_for_items(&mock, &definition, "[1, 2]").await else {
            panic!("expected a whole response: {definition}")
        };
        assert_eq!(response.body, expected);
    }
    assert_eq!(answer(&mock, &json!([map]), "[1, 2]").await.unwrap(), "[1.0,2.0]");
}

#[tokio::test(start_paused = true)]
async fn a_streamed_map_keeps_its_limit_and_ends_with_its_reader() {
    let mock = Arc::new(waits());
    let definition = json!([{"map": "/wait", "in_flight": 2}]);
    let Called::Stream(_, rest) = run_for_items(&mock, &definition, "[1, 50, 1, 50]").await else {
        panic!("expected a stream")
    };
    assert_eq!(mock.most_running.load(SeqCst), 2);
    assert!(mock.calls().len() < 4, "the last item waits");
    drop(rest);
    assert_eq!(mock.running.load(SeqCst), 0, "all calls are dropped");
}

#[tokio::test(start_paused = true)]
async fn a_streamed_map_that_fails_at_once_is_an_error_or_has_its_default() {
    let mock = Arc::new(waits());
    let graph = Graph::read(&json!([{"map": "/wait"}])).unwrap();
    let caller = Arc::new(Mocked(mock.clone()));
    let failed = graph.run(caller, Request::json("[9, 1]"), None, true).await.unwrap_err();
    assert_eq!(failed.to_string(), "422: step `/wait`, item [0] of `map`: nine");
    assert_eq!(failed.step.as_deref(), Some("/wait"));
    assert_eq!(failed.error.calls[..], ["/p", "/wait"]);
    let soft = json!([{"map": "/wait", "dependency": "soft", "default": []}]);
    let called = run_for_items(&mock, &soft, "[9]").await;
    assert!(matches!(called, Called::Whole(response) if response.body == "[]"));
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_hangs_has_a_bounded_number_of_copies() {
    let mock = Arc::new(Mock::default().echo("/a").slow("/shadow", seconds(60)));
    let definition =
        json!([{"splitter": [{"weight": 1, "call": "/a"}, {"shadow": 1, "call": "/shadow"}]}]);
    let graph = Graph::read(&definition).unwrap();
    for _ in 0..300 {
        let caller = Arc::new(Mocked(mock.clone()));
        graph.run(caller, Request::json("1"), None, false).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(mock.running.load(SeqCst), 256);
    let skipped = mock.steps().into_iter().filter(|step| step == "/shadow skipped");
    assert_eq!(skipped.count(), 44);
}

#[tokio::test]
async fn an_error_has_the_path_of_calls_and_the_time_to_retry_of_the_callee() {
    let mock = Mock::default().fails("/bad", 500).with("/hook", |_, _, reply| {
        let body = br#"{"detail": "later", "calls": ["/p", "/hook#0", "/deep"]}"#;
        let headers = vec![("Retry-After".into(), "7".into())];
        reply.send(Ok(Response { status: 503, headers, ..Response::json(&body[..]) }));
    });
    let mock = Arc::new(mock);
    let failed = async |definition: Value| {
        let graph = Graph::read(&definition).unwrap();
        let caller = Arc::new(Mocked(mock.clone()));
        graph.run(caller, Request::json("{}"), None, false).await.unwrap_err()
    };
    let hook = failed(json!([{"parallel": {"x": {"sequence": ["/hook"]}}}])).await;
    assert_eq!((hook.error.status(), hook.error.retry_after), (503, Some(7)));
    assert_eq!(hook.error.calls[..], ["/p", "/hook#0", "/deep"]);
    assert_eq!(hook.step.as_deref(), Some("/hook"));
    let bad = failed(json!([{"name": "b", "call": "/bad"}])).await;
    assert_eq!(bad.error.calls[..], ["/p", "/bad"]);
    let no_call = failed(json!([{"name": "v", "value": "$request.x"}])).await;
    assert!(no_call.error.calls.is_empty());
    assert_eq!(no_call.step.as_deref(), Some("v"));
}

#[tokio::test]
async fn what_is_no_json_is_malformed_and_forms_have_fields() {
    let mock = Arc::new(Mock::default().json("/bad", "[1").echo("/a"));
    for (definition, body, expected) in [
        (json!([{"map": "/a"}]), "[1", "400: step `map`: malformed JSON body: EOF"),
        (json!([{"value": "$request.a"}]), "", "400: step `value`: `$request.a`: malformed JSON"),
        (json!([{"switch": [{"when": "request.a", "call": "/a"}]}]), "{", "400: step `switch`"),
        (json!(["/bad", {"map": "/a"}]), "1", "500: step `map`: the response is malformed JSON"),
        (json!(["/bad", {"value": "$response[0]"}]), "1", "500: step `value`: `$response[0]`: the"),
    ] {
        let error = answer(&mock, &definition, body).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let part = |name: &str, filename: Option<&str>, length| litplex_core::FormPart {
        name: name.into(),
        filename: filename.map(Into::into),
        content_type: None,
        length,
    };
    let parts = vec![part("lang", None, 2), part("image", Some("a.png"), 3)];
    let form = Request { content: Content::Form(parts), ..Request::json("depng") };
    let definition = json!([
        {"switch": [{"when": "request.lang == 'de' && has(request.image)",
            "call": "/a", "input": {"l": "$request.lang"}}]},
        {"value": {"a": "$response", "l": "$request.lang"}},
    ]);
    let Ok(Called::Whole(response)) = run(&mock, &definition, form.clone()).await else { panic!() };
    assert_eq!(response.body, r#"{"a":{"a":{"l":"de"}},"l":"de"}"#);
    let file = json!([{"value": "$request.image"}]);
    let Ok(Called::Whole(response)) = run(&mock, &file, form.clone()).await else { panic!() };
    assert_eq!(response.media_type, MediaType::Other("application/octet-stream".into()));
    assert_eq!(response.body, "png");
    let error = run(&mock, &json!([{"value": "$request.x"}]), form).await.unwrap_err().to_string();
    assert_eq!(error, "422: step `value`: `$request.x`: the form has no field `x`");
}
