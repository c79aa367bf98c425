//! Rust models that call other endpoints, over real connections: departures, declarations and errors.

#![allow(missing_docs, missing_debug_implementations, clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};

use common::Served;
use litplex::{
    Batch, CallError, Callee, Chunks, Device, Endpoint, LitApi, LitStream, Outcome, ServeError,
    run_servers,
};
use serde_json::{Value, json};

/// A gate that models wait at, and the number of those that have come.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    is_open: bool,
    came: usize,
}

impl Gate {
    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.came += 1;
        changed.notify_all();
        drop(changed.wait_while(state, |state| !state.is_open).unwrap());
    }

    fn open(&self) {
        let (state, changed) = &*self.0;
        state.lock().unwrap().is_open = true;
        changed.notify_all();
    }

    /// Waits until so many models have come, and counts from zero again.
    async fn came(&self, count: usize) {
        let gate = self.clone();
        let wait = move || {
            let (state, changed) = &*gate.0;
            let state = state.lock().unwrap();
            changed.wait_while(state, |state| state.came < count).unwrap().came = 0;
        };
        tokio::task::spawn_blocking(wait).await.unwrap();
    }
}

/// Waits at the gate.
struct Slow(Gate);

impl LitApi for Slow {
    type Input = Value;
    type Output = Value;

    fn predict(&mut self, batch: Batch<Value>) -> litplex::Result<Vec<Outcome<Value>>> {
        self.0.pass();
        Ok(batch.into_iter().map(Ok).collect())
    }
}

/// Sends one item, and the next one behind the gate.
struct Ticks(Gate);

impl LitStream for Ticks {
    type Input = Value;
    type Output = u32;

    fn predict(&mut self, _: Value, chunks: &mut Chunks<u32>) -> litplex::Result<()> {
        chunks.send(1)?;
        self.0.pass();
        chunks.send(2)
    }
}

/// Calls as its input says, and answers `ping` itself.
struct Ask {
    slow: Callee,
    ticks: Callee,
    statuses: Arc<Mutex<Vec<u16>>>,
}

impl Ask {
    fn answer(&self, input: &Value) -> Result<Value, CallError> {
        match input.as_str().unwrap() {
            "slow" => self.slow.call(input),
            "map" => self.slow.map::<_, Value>(&[1, 2, 3]).into_iter().collect(),
            "stream" => self.ticks.stream::<_, Value>(input)?.collect(),
            "list" => self.ticks.call(input),
            _ => Ok(json!("pong")),
        }
    }
}

impl LitApi for Ask {
    type Input = Value;
    type Output = Value;

    fn predict(&mut self, batch: Batch<Value>) -> litplex::Result<Vec<Outcome<Value>>> {
        let answer = self.answer(&batch[0]);
        if let Err(error) = &answer {
            self.statuses.lock().unwrap().push(error.status);
        }
        let answer = answer.map_err(ServeError::from);
        Ok(vec![answer; batch.len()])
    }
}

/// Passes the items of another stream on.
struct Relay(Callee);

impl LitStream for Relay {
    type Input = Value;
    type Output = u32;

    fn predict(&mut self, input: Value, chunks: &mut Chunks<u32>) -> litplex::Result<()> {
        if input != "ping" {
            for item in self.0.stream(&input)? {
                chunks.send(item?)?;
            }
        }
        Ok(())
    }
}

struct Fixture {
    served: Served,
    gate: Gate,
    statuses: Arc<Mutex<Vec<u16>>>,
}

impl Fixture {
    async fn start() -> Self {
        let (gate, statuses) = (Gate::default(), Arc::<Mutex<Vec<u16>>>::default());
        let (slow, ticks) = (gate.clone(), gate.clone());
        let noted = statuses.clone();
        let ask = move |_: Device, [slow, ticks]: [Callee; 2]| {
            Ok(Ask { slow, ticks, statuses: noted.clone() })
        };
        let names = ["/slow", "/ticks"];
        let servers = run_servers([
            Endpoint::new("/slow", move |_: Device| Ok(Slow(slow.clone()))).workers_per_device(3),
            Endpoint::stream("/ticks", move |_: Device| Ok(Ticks(ticks.clone())))
                .workers_per_device(3),
            Endpoint::calling("/ask", names, ask.clone()),
            Endpoint::calling("/pair", names, ask).max_batch_size(2).batch_timeout(SECOND),
            Endpoint::calling_stream("/relay", ["/ticks"], |_: Device, [ticks]| Ok(Relay(ticks))),
        ]);
        Self { served: Served::start(servers).await, gate, statuses }
    }

    /// Begins a request; a drop of the connection is the departure of its client.
    fn begin(&self, path: &str, body: &str) -> TcpStream {
        let mut client = TcpStream::connect(("127.0.0.1", self.served.port)).unwrap();
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        client.write_all((head + body).as_bytes()).unwrap();
        client
    }

    /// Waits until the worker of an endpoint, which has only one, computes again.
    async fn is_free(&self, path: &str) {
        assert_eq!(self.served.post(path, "\"ping\"").await.0, 200, "{path}");
    }
}

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

#[tokio::test]
async fn a_client_that_leaves_ends_the_calls_of_a_rust_model() {
    let fixture = Fixture::start().await;
    for (body, calls) in [("\"slow\"", 1), ("\"map\"", 3), ("\"stream\"", 1), ("\"list\"", 1)] {
        let client = fixture.begin("/ask", body);
        fixture.gate.came(calls).await;
        drop(client);
        // The gate is closed: the callee goes on, and the caller does not wait for it.
        fixture.is_free("/ask").await;
        assert_eq!(std::mem::take(&mut *fixture.statuses.lock().unwrap()), [499], "{body}");
        fixture.gate.open();
        fixture.served.post("/slow", "1").await;
        fixture.gate.0.0.lock().unwrap().is_open = false;
        fixture.gate.0.0.lock().unwrap().came = 0;
    }
    fixture.gate.open();
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_stream_that_a_rust_model_relays() {
    let fixture = Fixture::start().await;
    let mut client = fixture.begin("/relay", "1");
    let mut received = String::new();
    while !received.contains("1\n") {
        let mut piece = [0; 1024];
        let length = client.read(&mut piece).unwrap();
        received += std::str::from_utf8(&piece[..length]).unwrap();
    }
    fixture.gate.came(1).await;
    drop(client);
    fixture.is_free("/relay").await;
    fixture.gate.open();
}

#[tokio::test]
async fn the_calls_of_a_batch_end_when_all_of_its_clients_have_left() {
    let fixture = Fixture::start().await;
    let (first, second) = (fixture.begin("/pair", "\"slow\""), fixture.begin("/pair", "\"slow\""));
    fixture.gate.came(1).await;
    drop(first);
    tokio::time::sleep(SECOND / 10).await;
    assert!(fixture.statuses.lock().unwrap().is_empty(), "one client waits");
    drop(second);
    fixture.is_free("/pair").await;
    assert_eq!(*fixture.statuses.lock().unwrap(), [499]);
    fixture.gate.open();
}

#[tokio::test]
async fn a_call_of_a_rust_model_has_what_is_left_of_the_time_of_its_request() {
    let fixture = Fixture::start().await;
    let request =
        "POST /ask HTTP/1.1\r\nX-Request-Timeout: 0.2\r\nContent-Length: 6\r\n\r\n\"slow\"";
    assert_eq!(fixture.served.request(request.into()).await.0, 504);
    fixture.is_free("/ask").await;
    let status = fixture.statuses.lock().unwrap()[0];
    assert!(matches!(status, 499 | 504), "{status}");
    fixture.gate.open();
}

struct Refuses;

impl LitApi for Refuses {
    type Input = Value;
    type Output = Value;

    fn predict(&mut self, batch: Batch<Value>) -> litplex::Result<Vec<Outcome<Value>>> {
        let status = batch[0].as_u64().unwrap() as u16;
        let error = ServeError { retry_after: Some(7), ..ServeError::new(status, "as asked") };
        Ok(vec![Err(error)])
    }
}

/// Passes its input on to the next endpoint, and the error of it to the client.
struct Next(Callee);

impl LitApi for Next {
    type Input = Value;
    type Output = Value;

    fn predict(&mut self, batch: Batch<Value>) -> litplex::Result<Vec<Outcome<Value>>> {
        Ok(vec![Ok(self.0.call(&batch[0])?)])
    }
}

#[tokio::test]
async fn an_error_names_the_path_of_calls_and_is_not_that_of_the_client() {
    let next = |_: Device, [next]: [Callee; 1]| Ok(Next(next));
    let served = Served::start(run_servers([
        Endpoint::new("/refuses", |_: Device| Ok(Refuses)),
        Endpoint::calling("/b", ["/refuses"], next),
        Endpoint::calling("/a", ["/b"], next),
    ]))
    .await;
    for (status, expected, says) in [
        (422, 500, "Internal server error: /a#0 → /b#0 → /refuses failed with 500"),
        (503, 503, "/a#0 → /b#0 → /refuses failed with 503: as asked"),
    ] {
        let (got, response) = served.post("/a", &status.to_string()).await;
        assert_eq!(got, expected, "{response}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["calls"], json!(["/a#0", "/b#0", "/refuses"]));
        assert!(body["detail"].as_str().unwrap().starts_with(says), "{body}");
        assert_eq!(head.contains("retry-after: 7"), status == 503, "{head}");
    }
    let info = served.get("/info").await.1;
    let info: Value = serde_json::from_str(info.split_once("\r\n\r\n").unwrap().1).unwrap();
    let edge = |from, to| json!({"from": from, "to": to, "kind": "call", "steps": []});
    assert_eq!(info["graph"]["edges"], json!([edge("/b", "/refuses"), edge("/a", "/b")]));
    let metrics = served.get("/metrics").await.1;
    for line in [
        "caller=\"/a\",endpoint=\"/b\",status=\"5xx\"} 2\n",
        "caller=\"/b\",endpoint=\"/refuses\",status=\"4xx\"} 1\n",
        "caller=\"/b\",endpoint=\"/refuses\",status=\"5xx\"} 1\n",
    ] {
        let line = format!("litplex_call_duration_seconds_count{{{line}");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn a_declared_call_of_no_endpoint_is_refused_before_models_are_loaded() {
    let never = |_: Device, _: [Callee; 2]| -> litplex::Result<Next> { panic!("it was loaded") };
    let endpoints = [
        Endpoint::new("/refuses", |_: Device| -> litplex::Result<Refuses> { panic!("loaded") }),
        Endpoint::calling("/a", ["/refuses", "/nowhere"], never),
    ];
    let error = run_servers(endpoints).port(0).await.unwrap_err().to_string();
    let expected = "endpoint `/a`: a call that it declares cannot be made: there is no endpoint \
                    `/nowhere`; there are `/refuses`, `/a`";
    assert_eq!(error, expected);
}
