//! Layers around endpoints and servers, over real connections.

#![allow(missing_docs, missing_debug_implementations, clippy::unwrap_used)]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use litplex::{
    Batch, Body, Chunks, Device, Endpoint, Error, HttpService, LitApi, LitStream, Outcome,
    RunServers, run_servers,
};
use serde_json::Value;
use tower::{Layer, Service, ServiceExt, layer::layer_fn, service_fn};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

struct Echo;

impl LitApi for Echo {
    type Input = Value;
    type Output = Value;

    fn predict(&mut self, batch: Batch<Value>) -> litplex::Result<Vec<Outcome<Value>>> {
        if batch.iter().any(|input| input == "slow") {
            std::thread::sleep(Duration::from_secs(2));
        }
        Ok(batch.into_iter().map(Ok).collect())
    }
}

/// Says one thing, and goes on when it is told to.
struct Waits(Arc<Mutex<std::sync::mpsc::Receiver<()>>>);

impl LitStream for Waits {
    type Input = Value;
    type Output = String;

    fn predict(&mut self, _: Value, chunks: &mut Chunks<String>) -> litplex::Result<()> {
        chunks.send("first".into())?;
        self.0.lock().unwrap().recv()?;
        chunks.send("second".into())?;
        Ok(())
    }
}

fn echo(path: &str) -> Endpoint {
    Endpoint::new(path, |_: Device| Ok(Echo))
}

fn names(name: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    let header = HeaderName::from_static("x-passed");
    SetResponseHeaderLayer::appending(header, HeaderValue::from_static(name))
}

/// Makes a layer of what is done with each request.
fn from_fn<F, A>(
    act: F,
) -> impl Layer<
    HttpService,
    Service = impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
              + Clone
              + Send
              + Sync
              + 'static,
> + Clone
+ Send
+ 'static
where
    F: Fn(Request<Body>, HttpService) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    layer_fn(move |inner: HttpService| {
        let act = act.clone();
        service_fn(move |request| {
            let answered = act(request, inner.clone());
            async { Ok(answered.await) }
        })
    })
}

/// Serves on a free port for as long as the test lives.
struct Served {
    port: u16,
    server: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    async fn start(servers: RunServers) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = tokio::spawn(servers.port(port).into_future());
        let served = Self { port, server };
        while !served.exchange("GET /readyz HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200") {
            assert!(!served.server.is_finished());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        served
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        self.exchange(&format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await
    }

    /// Sends a request and returns all that is answered.
    async fn exchange(&self, request: &str) -> String {
        let request = request.replacen("\r\n", "\r\nHost: a\r\nConnection: close\r\n", 1);
        let port = self.port;
        let exchange = move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.write_all(request.as_bytes())?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            Ok::<_, std::io::Error>(response)
        };
        tokio::task::spawn_blocking(exchange).await.unwrap().unwrap_or_default()
    }
}

/// Returns what passed an answer, in order.
fn passed(response: &str) -> Vec<&str> {
    response.lines().filter_map(|line| line.strip_prefix("x-passed: ")).collect()
}

#[tokio::test]
async fn layers_are_around_their_endpoint_and_the_servers_around_all() {
    let servers = [echo("/a").layer(names("inner")).layer(names("outer")), echo("/b")];
    let served = Served::start(run_servers(servers).layer(names("server"))).await;
    let answer = served.post("/a", "1").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n1"), "{answer}");
    assert_eq!(passed(&answer), ["inner", "outer", "server"]);
    assert_eq!(passed(&served.post("/b", "1").await), ["server"]);
    assert_eq!(passed(&served.exchange("GET /nothing HTTP/1.1\r\n\r\n").await), ["server"]);
}

#[tokio::test]
async fn keys_come_between_the_servers_layers_and_the_endpoints() {
    let keyed = echo("/a").api_keys_file("/dev/null").layer(names("endpoint"));
    let served = Served::start(run_servers([keyed]).layer(names("server"))).await;
    let refused = served.post("/a", "1").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert_eq!(passed(&refused), ["server"]);
}

#[tokio::test]
async fn a_layer_may_refuse_and_the_connection_goes_on() {
    let refuses = from_fn(|request, inner| async move {
        if request.headers().contains_key("x-let-in") {
            return inner.oneshot(request).await.unwrap();
        }
        let mut response = Response::new(Body::from("not you"));
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    });
    let served = Served::start(run_servers([echo("/a").layer(refuses), echo("/b")])).await;
    assert!(served.post("/b", "1").await.starts_with("HTTP/1.1 200"));
    let mut stream = served.connect();
    for (header, status) in [("x-other", "403"), ("x-let-in", "200"), ("x-other", "403")] {
        let request =
            format!("POST /a HTTP/1.1\r\nHost: a\r\n{header}: 1\r\nContent-Length: 1\r\n\r\n7");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 2048];
        let length = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_layer_that_fails_or_panics_costs_its_request_alone() {
    let fails = layer_fn(|_: HttpService| {
        service_fn(|_: Request<Body>| async { Err::<Response<Body>, _>("broken") })
    });
    let panics = from_fn(|_, _| async { panic!("a layer") });
    let bodies = layer_fn(|_: HttpService| {
        service_fn(|_| async { Ok::<_, Infallible>(Response::new(Panics)) })
    });
    let servers = [
        echo("/fails").layer(fails).layer(names("outer")),
        echo("/panics").layer(panics),
        echo("/bodies").layer(bodies),
        echo("/b"),
    ];
    let served = Served::start(run_servers(servers)).await;
    for path in ["/fails", "/panics"] {
        let answer = served.post(path, "1").await;
        assert!(answer.starts_with("HTTP/1.1 500"), "{path}: {answer}");
        assert!(answer.contains("Internal server error"), "{path}: {answer}");
    }
    assert_eq!(passed(&served.post("/fails", "1").await), ["outer"]);
    served.post("/bodies", "1").await;
    assert!(served.post("/b", "1").await.starts_with("HTTP/1.1 200"));
}

/// Hides that a body is the server's own.
fn another(body: Body) -> Body {
    Body::new(body.boxed_unsync())
}

struct Panics;

impl http_body::Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("a body")
    }
}

#[tokio::test]
async fn layers_of_tower_do_what_they_do_elsewhere() {
    let status = StatusCode::GATEWAY_TIMEOUT;
    let limit = Duration::from_millis(100);
    let servers = [
        echo("/limited").layer(RequestBodyLimitLayer::new(10)),
        echo("/timed").layer(TimeoutLayer::with_status_code(status, limit)),
        echo("/given-up").layer(tower::timeout::TimeoutLayer::new(limit)),
        echo("/single").layer(tower::limit::ConcurrencyLimitLayer::new(1)),
    ];
    let served = Served::start(run_servers(servers)).await;
    assert!(served.post("/limited", "\"short\"").await.starts_with("HTTP/1.1 200"));
    assert!(served.post("/limited", "\"too long for it\"").await.starts_with("HTTP/1.1 413"));
    // A length that no caller announced.
    let chunked = "POST /limited HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                   10\r\n\"too long for it\r\n0\r\n\r\n";
    assert!(served.exchange(chunked).await.starts_with("HTTP/1.1 413"));
    assert!(served.post("/timed", "\"slow\"").await.starts_with("HTTP/1.1 504"));
    assert!(served.post("/given-up", "\"slow\"").await.starts_with("HTTP/1.1 500"));
    assert!(served.post("/single", "1").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_stream_passes_layers_piece_by_piece() {
    let (go, told) = std::sync::mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let stream = Endpoint::stream("/stream", move |_: Device| Ok(Waits(told.clone())));
    let whose = from_fn(|request, inner| async move {
        assert!(request.extensions().get::<SocketAddr>().is_some());
        inner.oneshot(request.map(another)).await.unwrap().map(another)
    });
    let servers = run_servers([stream.layer(whose.clone())]).layer(whose).compression(&["gzip"]);
    let served = Served::start(servers).await;
    let mut stream = served.connect();
    let request =
        "POST /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    while !answer.contains("first") {
        let mut piece = [0; 2048];
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    assert!(!answer.contains("second"));
    go.send(()).unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("second"), "{answer}");
}
