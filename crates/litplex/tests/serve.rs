//! Rust models and a Python one behind one socket, over real connections.

#![allow(missing_docs, missing_debug_implementations, clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::Served;
use litplex::{
    Batch, CallError, Callee, Chunks, Device, Endpoint, Error, LitApi, LitStream, Outcome,
    ServeError, Step, run_servers,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
struct Number {
    x: i64,
}

#[derive(Serialize, JsonSchema)]
struct Answer {
    /// The square of `x`.
    square: i64,
    batch: usize,
}

struct Square;

impl LitApi for Square {
    type Input = Number;
    type Output = Answer;

    fn predict(&mut self, batch: Batch<Number>) -> litplex::Result<Vec<Outcome<Answer>>> {
        let size = batch.len();
        assert!(!batch.iter().any(|n| n.x == 666), "the model panics");
        let square = |n: Number| match n.x {
            ..0 => Err(ServeError::new(422, "x is negative")),
            x => Ok(Answer { square: x * x, batch: size }),
        };
        if batch.iter().any(|n| n.x == 13) {
            return Err("unlucky".into());
        }
        Ok(batch.into_iter().map(square).collect())
    }
}

struct Count;

impl LitStream for Count {
    type Input = Number;
    type Output = i64;

    fn predict(&mut self, input: Number, chunks: &mut Chunks<i64>) -> litplex::Result<()> {
        for n in 0..input.x {
            if n == 5 {
                return Err(ServeError::new(500, "five is enough").into());
            }
            chunks.send(n)?;
        }
        if input.x < 0 {
            return Err(ServeError::new(418, "short and stout").into());
        }
        Ok(())
    }
}

/// Repeats the messages of a chat, word by word.
struct Parrot;

#[derive(Deserialize)]
struct Chat {
    messages: Vec<ChatMessage>,
}

#[derive(Deserialize)]
struct ChatMessage {
    content: String,
}

impl LitStream for Parrot {
    type Input = Chat;
    type Output = Value;

    fn predict(&mut self, chat: Chat, chunks: &mut Chunks<Value>) -> litplex::Result<()> {
        for message in &chat.messages {
            for word in message.content.split_inclusive(' ') {
                chunks.send(json!({"content": word, "completion_tokens": 1, "total_tokens": 1}))?;
            }
        }
        chunks.send(json!({"content": "", "finish_reason": "stop"}))
    }
}

fn square() -> Endpoint {
    Endpoint::new("/square", |_: Device| Ok(Square))
}

#[tokio::test]
async fn answers_and_errors_of_a_rust_model() {
    let served = Served::start(run_servers([square()])).await;
    let (status, response) = served.post("/square", r#"{"x": 7}"#).await;
    assert_eq!(status, 200);
    assert!(response.ends_with(r#"{"square":49,"batch":1}"#), "{response}");
    for (body, status, says) in [
        (r#"{"x": -1}"#, 422, "x is negative"),
        (r#"{"y": 1}"#, 422, "missing field `x`"),
        (r#"{"x": 1"#, 400, "line 1 column 7"),
        (r#"{"x": 13}"#, 500, "Internal server error"),
        (r#"{"x": 666}"#, 500, "Internal server error"),
    ] {
        let (got, response) = served.post("/square", body).await;
        assert_eq!(got, status, "{response}");
        assert!(response.contains(says), "{response}");
    }
    assert_eq!(served.post("/square", r#"{"x": 1}"#).await.0, 200, "it goes on after a panic");
}

#[tokio::test]
async fn a_rust_model_speaks_the_chat_api() {
    let chat = Endpoint::chat("/v1/chat/completions", |_: Device| Ok(Parrot));
    let served = Served::start(run_servers([chat])).await;
    let body = |extra: &str| {
        format!(r#"{{"messages": [{{"role": "user", "content": "one two"}}]{extra}}}"#)
    };
    let (status, response) = served.post("/v1/chat/completions", &body("")).await;
    assert_eq!(status, 200, "{response}");
    let whole: Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(whole["choices"][0]["message"], json!({"role": "assistant", "content": "one two"}));
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert_eq!(whole["usage"]["completion_tokens"], 2);

    let (_, response) = served.post("/v1/chat/completions", &body(r#", "stream": true"#)).await;
    let deltas = [r#""content":"one ""#, r#""content":"two""#, "data: [DONE]"];
    assert!(deltas.iter().all(|delta| response.contains(delta)), "{response}");

    let (status, response) = served.post("/v1/chat/completions", r#"{"messages": []}"#).await;
    assert_eq!(status, 422, "{response}");
    let (_, models) = served.get("/v1/models").await;
    assert!(models.contains(r#""id":"Parrot""#), "{models}");
}

#[tokio::test]
async fn rust_models_are_measured_as_others_are() {
    let count = Endpoint::stream("/count", |_: Device| Ok(Count));
    let served = Served::start(run_servers([square().accelerator("cpu"), count])).await;
    served.post("/square", r#"{"x": 7}"#).await;
    served.post("/square", r#"{"x": -1}"#).await;
    served.post("/square", r#"{"x": 13}"#).await;
    served.post("/count", r#"{"x": 3}"#).await;
    let (status, page) = served.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "litplex_requests_total{code=\"200\",endpoint=\"/square\",outcome=\"ok\"} 1\n",
        "litplex_requests_total{code=\"422\",endpoint=\"/square\",outcome=\"bad_input\"} 1\n",
        "litplex_requests_total{code=\"500\",endpoint=\"/square\",outcome=\"model_error\"} 1\n",
        "litplex_queue_wait_seconds_count{endpoint=\"/square\"} 3\n",
        "litplex_chunks_total{endpoint=\"/count\"} 3\n",
        "litplex_workers{endpoint=\"/square\",state=\"ready\"} 1\n",
    ] {
        assert!(page.contains(line), "{line}{page}");
    }
    let elsewhere = Served::start(run_servers([square()]).metrics_path(None)).await;
    assert_eq!(elsewhere.get("/metrics").await.0, 404);
}

#[tokio::test]
async fn a_batch_has_one_outcome_per_item() {
    let server = square().max_batch_size(3).batch_timeout(Duration::from_secs(5));
    let served = Served::start(run_servers([server])).await;
    let (good, bad, other) = tokio::join!(
        served.post("/square", r#"{"x": 2}"#),
        served.post("/square", r#"{"x": -2}"#),
        served.post("/square", r#"{"x": 3}"#),
    );
    assert!(good.1.ends_with(r#"{"square":4,"batch":3}"#), "{}", good.1);
    assert!(other.1.ends_with(r#"{"square":9,"batch":3}"#), "{}", other.1);
    assert_eq!(bad.0, 422);
}

#[tokio::test]
async fn a_stream_of_chunks_and_its_errors() {
    let server = Endpoint::stream("/count", |_: Device| Ok(Count));
    let served = Served::start(run_servers([server])).await;
    let (status, response) = served.post("/count", r#"{"x": 2}"#).await;
    assert_eq!(status, 200);
    assert!(response.contains("0\n") && response.contains("1\n"), "{response}");
    assert_eq!(served.post("/count", r#"{"x": -1}"#).await.0, 418);
    let (_, broken) = served.post("/count", r#"{"x": 9}"#).await;
    assert!(broken.contains("five is enough"), "{broken}");
    assert!(!broken.ends_with("0\r\n\r\n"), "a broken stream has no end: {broken}");
}

#[tokio::test]
async fn each_worker_loads_a_copy_of_its_own() {
    static LOADED: AtomicUsize = AtomicUsize::new(0);
    let load = |_: Device| {
        LOADED.fetch_add(1, Ordering::Relaxed);
        Ok(Square)
    };
    let server = Endpoint::new("/square", load).workers_per_device(3).accelerator("cpu");
    let served = Served::start(run_servers([server])).await;
    assert_eq!(LOADED.load(Ordering::Relaxed), 3);
    drop(served);
}

#[tokio::test]
async fn a_python_model_beside_a_rust_one_needs_nothing_installed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("double.py");
    let program = "import litplex\nclass Double(litplex.LitAPI):\n    \
                   def predict(self, x): return 2 * x\n";
    std::fs::write(&file, program).unwrap();
    let double = Endpoint::python("/double", &format!("{}:Double", file.display()));
    let served = Served::start(run_servers([square(), double])).await;
    assert!(served.post("/double", "21").await.1.ends_with("\r\n42"));
    assert_eq!(served.post("/square", r#"{"x": 1}"#).await.0, 200);
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_ends_the_server_with_its_reason() {
    let fails = Endpoint::new("/fails", |_: Device| Err::<Square, _>("no weights".into()));
    let error = run_servers([square(), fails]).port(0).await.unwrap_err();
    assert_eq!(error.to_string(), "endpoint `/fails`: load failed: no weights");
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_named_before_models_load() {
    let never = Endpoint::new("/never", |_| -> litplex::Result<Square> { panic!("it was loaded") });
    let servers = run_servers([never]).port(0).tls("/nowhere/cert.pem", "/nowhere/key.pem");
    let error = servers.tls_client_ca("/nowhere/ca.pem").await.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    for name in
        ["tls_cert`: /nowhere/cert", "tls_key`: /nowhere/key", "tls_client_ca`: /nowhere/ca"]
    {
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn wrong_options_are_reported_together() {
    let wrong = square().workers_per_device(0).timeout(Duration::ZERO);
    let error = run_servers([wrong, square()]).await.unwrap_err().to_string();
    for says in ["3 errors", "`workers_per_device`", "`timeout`", "2 endpoints have this path"] {
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_pipeline_calls_rust_models() {
    let squares = Step::map("$request.numbers", Step::call("/square").input(json!({"x": "$item"})));
    let first = Step::value(json!({"all": "$squares", "first": "$squares[0].square"}));
    let steps = [squares.name("squares"), first];
    let endpoints = [square().schema::<Number, Answer>(), Endpoint::pipeline("/squares", steps)];
    let served = Served::start(run_servers(endpoints)).await;
    let (status, response) = served.post("/squares", r#"{"numbers": [2, 3]}"#).await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&answer["first"], &answer["all"][1]["square"]), (&json!(4), &json!(9)));
    let (status, response) = served.post("/squares", r#"{"numbers": [2, -3]}"#).await;
    let named = "step `/square`, item [1] of `squares`: x is negative";
    assert!(response.contains(named), "{response}");
    assert_eq!(status, 422);
    assert!(served.get("/metrics").await.1.contains("litplex_step_seconds"));
}

/// Calls the other endpoints as its input says.
struct Ask {
    square: Callee,
    count: Callee,
    back: Callee,
    itself: Callee,
}

impl LitApi for Ask {
    type Input = String;
    type Output = Value;

    fn predict(&mut self, batch: Batch<String>) -> litplex::Result<Vec<Outcome<Value>>> {
        let number = |x: i64| json!({ "x": x });
        let answer = match &*batch[0] {
            "one" => self.square.call::<_, Value>(&number(3))?,
            "many" => {
                let numbers: Vec<_> = [1, -1, 2].map(number).into();
                let squares = self.square.map::<_, Value>(&numbers).into_iter();
                squares.map(|it| it.unwrap_or_else(|error| json!(error.status))).collect()
            }
            "items" => {
                self.count.stream::<_, i64>(&number(3))?.collect::<Result<Value, CallError>>()?
            }
            "list" => self.count.call(&number(2))?,
            "back" => self.back.stream::<_, Value>(&())?.collect::<Result<Value, CallError>>()?,
            "back as a list" => self.back.call(&())?,
            "first" => self.back.stream::<_, Value>(&())?.next().unwrap_or(Ok(Value::Null))?,
            _ => self.itself.call(&"one")?,
        };
        Ok(vec![Ok(answer)])
    }
}

/// Streams an item, and then the response of `/ask`.
struct Back(Callee);

impl LitStream for Back {
    type Input = ();
    type Output = Value;

    fn predict(&mut self, (): (), chunks: &mut Chunks<Value>) -> litplex::Result<()> {
        chunks.send(json!("first"))?;
        chunks.send(self.0.call(&"one")?)
    }
}

#[tokio::test]
async fn a_rust_model_calls_other_endpoints() {
    let load = |_: Device, [square, count, back, itself]: [Callee; 4]| {
        let outside = square.call::<_, Value>(&json!({"x": 1})).unwrap_err();
        assert!(outside.detail.contains("call within `predict`"), "{outside}");
        Ok(Ask { square, count, back, itself })
    };
    let served = Served::start(run_servers([
        square(),
        Endpoint::stream("/count", |_: Device| Ok(Count)),
        Endpoint::calling("/ask", ["/square", "Count", "/back", "/ask"], load),
        Endpoint::calling_stream("/back", ["/ask"], |_: Device, [ask]: [Callee; 1]| Ok(Back(ask))),
    ]))
    .await;
    for (kind, expected) in [
        ("\"one\"", json!({"square": 9, "batch": 1})),
        ("\"many\"", json!([{"square": 1, "batch": 2}, 422, {"square": 4, "batch": 2}])),
        ("\"items\"", json!([0, 1, 2])),
        ("\"list\"", json!([0, 1])),
        ("\"first\"", json!("first")),
    ] {
        let (status, response) = served.post("/ask", kind).await;
        assert_eq!(status, 200, "{response}");
        let answer = response.split_once("\r\n\r\n").unwrap().1;
        let mut answer: Value = serde_json::from_str(answer).unwrap();
        let items = answer.as_array_mut().into_iter().flatten();
        items.filter(|it| it.get("batch").is_some()).for_each(|it| it["batch"] = json!(2));
        assert_eq!(answer, expected);
    }
    let (status, response) = served.post("/ask", "\"itself\"").await;
    assert!(response.contains("`/ask#0 → /ask`"), "{response}");
    assert_eq!(status, 508);
    for kind in ["\"back\"", "\"back as a list\""] {
        let (status, response) = served.post("/ask", kind).await;
        assert!(response.contains("`/ask#0 → /back#0 → /ask`"), "{response}");
        assert_eq!(status, 508);
    }
}

#[tokio::test]
async fn a_value_that_cannot_fit_ends_the_start() {
    let second = Step::call("/square").input(json!({"x": "$first"}));
    let steps = [Step::call("/square").name("first"), second];
    let endpoints = [square().schema::<Number, Answer>(), Endpoint::pipeline("/p", steps)];
    let error = run_servers(endpoints).port(0).await.unwrap_err().to_string();
    let expected = "pipeline of /p: steps[1]: the field `x`: `$first` is an object, not a number; \
                    /square takes it";
    assert_eq!(error, expected);
}

#[tokio::test]
async fn types_and_examples_are_described() {
    /// Has the name of another, and is not like it.
    mod other {
        #[derive(schemars::JsonSchema)]
        #[allow(dead_code)]
        pub(super) struct Number(f64);
    }
    let served = Served::start(run_servers([
        square().schema::<Number, Answer>().example(json!({"x": 3}), json!({"square": 9})),
        Endpoint::stream("/count", |_: Device| Ok(Count)).schema::<other::Number, i64>(),
        Endpoint::new("/example", |_: Device| Ok(Square)).example(json!({"x": 3}), json!(9)),
    ]))
    .await;
    let (_, response) = served.get("/openapi.json").await;
    let document: Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    let request = |path: &str| &document["paths"][path]["post"]["requestBody"]["content"];
    let answer = |path: &str| &document["paths"][path]["post"]["responses"]["200"]["content"];
    let refer = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let expected = json!({"schema": refer("Number"), "example": {"x": 3}});
    assert_eq!(request("/square")["application/json"], expected);
    let expected = json!({"schema": refer("Answer"), "example": {"square": 9}});
    assert_eq!(answer("/square")["application/json"], expected);
    assert_eq!(request("/count")["application/json"], json!({"schema": refer("Number2")}));
    assert_eq!(answer("/count")["application/x-ndjson"]["schema"]["type"], "integer");
    assert!(answer("/count").get("text/event-stream").is_some());
    assert_eq!(
        request("/example")["application/json"]["schema"],
        json!({"type": "object", "properties": {"x": {"type": "integer"}}})
    );
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["Number"]["required"], json!(["x"]));
    assert_eq!(schemas["Number2"]["type"], "number");
    let square = &schemas["Answer"]["properties"]["square"];
    assert_eq!(square["description"], "The square of `x`.");
}
