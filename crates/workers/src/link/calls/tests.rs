//! Tests of the calls connection, and mock calls.

use std::sync::Mutex;

use litplex_core::{Begun, BoxFuture, Origin};
use serde_json::json;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

use super::super::handshake::read_frame;
use super::*;

/// Calls that are answered with what was sent, after a second.
#[derive(Default)]
pub(in crate::link) struct MockCalls {
    pub(in crate::link) noted: Mutex<Vec<String>>,
}

impl MockCalls {
    fn note(&self, what: impl Into<String>) {
        self.noted.lock().unwrap().push(what.into());
    }
}

impl Calls for MockCalls {
    fn attached(&self, slot: usize, places: usize) -> WorkerKey {
        self.note(format!("attached {slot} {places}"));
        WorkerKey(1)
    }

    fn retiring(&self, _: WorkerKey) {
        self.note("retiring");
    }

    fn gone(&self, _: WorkerKey) {
        self.note("gone");
    }

    fn held(&self, call: CallId, _: WorkerKey, item: u64) {
        self.note(format!("held {} {item}", call.0));
    }

    fn requeued(&self, call: CallId) {
        self.note(format!("requeued {}", call.0));
    }

    fn resumed(&self, call: CallId) {
        self.note(format!("resumed {}", call.0));
    }

    fn ended(&self, call: CallId) {
        self.note(format!("ended {}", call.0));
    }

    fn call(&self, invocation: Invocation, begun: Begun) -> BoxFuture<'static, Outcome<Called>> {
        begun(CallId(7));
        let Invocation { endpoint, request, waits, .. } = invocation;
        self.note(format!("call {endpoint} {waits:?}"));
        Box::pin(async move {
            sleep(Duration::from_secs(1)).await;
            match &*endpoint {
                "/full" => Err(ServeError::overloaded("full", 3)),
                _ => Ok(Called::Whole(Response::json(request.body[0].clone()))),
            }
        })
    }

    fn waits(&self, call: CallId, taken: u64) {
        self.note(format!("waits {} {taken}", call.0));
    }
}

/// Returns the names of the first worker of an endpoint.
pub(in crate::link) fn names(endpoint: &str) -> WorkerNames {
    let worker = format!("{endpoint}#0").into();
    WorkerNames { endpoint: endpoint.into(), slot: 0, worker }
}

/// The worker's end of a calls connection, and what the data connection does for it.
struct Fixture {
    worker: DuplexStream,
    calls: Arc<MockCalls>,
    live: Arc<Mutex<Option<watch::Sender<()>>>>,
    _tasks: JoinSet<()>,
}

fn fixture() -> Fixture {
    let (ours, worker) = duplex(1 << 16);
    let calls = Arc::new(MockCalls::default());
    let known = WorkerCalls::attach(calls.clone(), names("/ask"), 1);
    let (parents, mut queries) = mpsc::unbounded_channel::<ParentQuery>();
    let connection = CallsConnection::new(ours, Arc::new(known), parents);
    let live = Arc::new(Mutex::new(Some(watch::channel(()).0)));
    let (watched, mut tasks) = (live.clone(), JoinSet::new());
    tasks.spawn(async move {
        while let Some(ParentQuery { answer, .. }) = queries.recv().await {
            let _ = answer.send(Ok(Parent {
                origin: Origin::default().child("/ask#0".into()),
                deadline: Instant::now() + Duration::from_secs(30),
                id: None,
                trace: None,
                reservation: Default::default(),
                live: watched.lock().unwrap().iter().map(watch::Sender::subscribe).collect(),
                hook: None,
            }));
        }
    });
    tasks.spawn(async move { drop(connection.run().await) });
    Fixture { worker, calls, live, _tasks: tasks }
}

impl Fixture {
    async fn say(&mut self, kind: Kind, id: u64, meta: &str, body: &str) {
        let mut payload = (meta.len() as u32).to_le_bytes().to_vec();
        payload.extend_from_slice(meta.as_bytes());
        payload.extend_from_slice(body.as_bytes());
        let flags = if meta.is_empty() { Flags::NONE } else { Flags::META };
        let payload: Bytes = match kind {
            Kind::Waiting => Bytes::copy_from_slice(&3_u32.to_le_bytes()),
            _ if meta.is_empty() => Bytes::new(),
            _ => payload.into(),
        };
        let mut bytes = BytesMut::new();
        Frame { kind, flags, status: 0, id, payload }.encode(&mut bytes);
        self.worker.write_all(&bytes).await.unwrap();
    }

    async fn call(&mut self, id: u64, endpoint: &str, waits: bool) {
        let call = json!({"endpoint": endpoint, "parents": [4], "waits": waits});
        let meta = json!({"content": "json", "call": call}).to_string();
        self.say(Kind::Request, id, &meta, "[1]").await;
    }

    async fn response(&mut self) -> (u64, u16, String, String) {
        let frame = read_frame(&mut self.worker).await.unwrap();
        assert_eq!(frame.kind, Kind::Response);
        let (id, status) = (frame.id, frame.status);
        let (meta, body) = frame.into_meta_and_body().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (id, status, text(&meta.unwrap_or_default()), text(&body))
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_answered_with_the_response_of_its_endpoint() {
    let mut fixture = fixture();
    fixture.call(5, "/embed", true).await;
    assert_eq!(fixture.response().await, (5, 200, String::new(), "[1]".into()));
    let noted = fixture.calls.noted.lock().unwrap().clone();
    assert_eq!(noted, ["attached 0 1", "call /embed FromBeginning"]);
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_path_of_calls() {
    let mut fixture = fixture();
    fixture.call(5, "/full", true).await;
    let (_, status, meta, body) = fixture.response().await;
    assert_eq!(status, 503);
    assert!(meta.contains(r#"["retry-after","3"]"#), "{meta}");
    assert_eq!(body, r#"{"detail":"full","calls":["/ask#0","/full"]}"#);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_is_answered_once_and_at_once() {
    let mut fixture = fixture();
    let begun = Instant::now();
    fixture.call(5, "/embed", false).await;
    sleep(Duration::from_millis(1)).await;
    let begun = begun + Duration::from_millis(1);
    fixture.say(Kind::Waiting, 5, "", "").await;
    fixture.say(Kind::Cancel, 5, "", "").await;
    let (id, status, ..) = fixture.response().await;
    assert_eq!((id, status, begun.elapsed()), (5, 499, Duration::ZERO));
    assert!(fixture.calls.noted.lock().unwrap().ends_with(&["waits 7 3".into(), "ended 7".into()]));
    fixture.call(6, "/embed", true).await;
    assert_eq!(fixture.response().await.0, 6, "the first has no second answer");
}

#[tokio::test(start_paused = true)]
async fn a_call_above_the_limit_is_refused_at_once() {
    let mut fixture = fixture();
    for number in 0..=MAX_CALLS as u64 {
        fixture.call(number, "/embed", true).await;
    }
    let (id, status, ..) = fixture.response().await;
    assert_eq!((id, status), (MAX_CALLS as u64, 503));
}

#[tokio::test(start_paused = true)]
async fn calls_end_with_the_requests_that_they_are_made_for() {
    let mut fixture = fixture();
    let begun = Instant::now();
    fixture.call(5, "/embed", true).await;
    sleep(Duration::from_millis(1)).await;
    *fixture.live.lock().unwrap() = None;
    let (id, status, ..) = fixture.response().await;
    assert_eq!((id, status), (5, 499));
    assert!(begun.elapsed() < Duration::from_secs(1), "the call takes a second");
}
