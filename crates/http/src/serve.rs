//! Connections: accepts them, distributes them over threads, serves HTTP on them, and drains them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use litplex_http_core::buffers::READ_BYTES;
use litplex_http_core::stream::Broken;
use litplex_tls::{ServerConfig, Tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_io_timeout::TimeoutWriter;

use crate::app::App;
use crate::connection::{ActiveRequest, ConnectionState, HEADER_TIMEOUT, ObservedStream};
use crate::log_limit::LogLimit;
use crate::peer::Peer;

/// The longest time in which a client takes nothing of what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The time between two pings of a client of HTTP/2.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The number of bytes of bodies that a client of HTTP/2 may send before they are read.
const WINDOW_BYTES: u32 = 256 * 1024;

/// The largest number of headers of a request of the app host. Clients may send 100 over HTTP/1.1,
/// and over HTTP/2 as many as fit in 16 KiB.
const MAX_INNER_HEADERS: usize = 1000;

/// The time between two checks for active requests while a server drains.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The time that the last bytes have to reach their clients when a server or a connection ends.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// The pause after a connection could not be accepted, usually because descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the address, so that a server that cannot have it fails before it loads a model.
///
/// # Errors
/// The address cannot be bound, for example because another process has it.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((host, port)).await
}

/// A listener for HTTP/1.1 and HTTP/2. The protocol is negotiated with TLS; without TLS the first
/// bytes show it.
pub struct Server {
    listener: TcpListener,
    threads: HttpThreads,
    /// Tells the connections to end. Each open connection has a receiver.
    connections: watch::Sender<Stage>,
    permits: Arc<Semaphore>,
}

/// The stage of a server, as its connections see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// Another process accepts connections: each connection ends after its next response.
    HandingOver,
    /// The server ends: each connection ends after its requests.
    Ending,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Returns a server that handles HTTP on this many threads; with one, on the caller's runtime.
    /// Beyond this number of connections, clients wait until one ends.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(
        listener: TcpListener,
        app: Arc<App>,
        threads: usize,
        max_connections: usize,
    ) -> io::Result<Self> {
        let threads = if threads > 1 { 0..threads } else { 0..0 };
        let threads = threads.map(|index| spawn_http_thread(index, app.clone()));
        let threads = HttpThreads { threads: threads.collect::<io::Result<_>>()?, app, tls: None };
        let permits = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self { listener, threads, connections: watch::Sender::new(Stage::Serving), permits })
    }

    /// Requires TLS, if there is a configuration.
    #[must_use]
    pub fn over(mut self, tls: Option<&Tls>) -> Self {
        self.threads.tls = tls.map(Tls::configs);
        self
    }

    /// Returns the address that the server listens on.
    ///
    /// # Errors
    /// The system does not report it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns another descriptor of the socket that the server listens on, for a process that takes it over.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Accepts connections while it is polled.
    pub async fn accept(&mut self) {
        let Self { listener, threads, connections, permits } = self;
        let serve = |turn, stream, permit| {
            threads.serve(turn, stream, permit, Some(connections.subscribe()));
        };
        accept(listener, permits, serve).await;
    }

    /// Stops to accept connections, because another process accepts those of this socket, also those in
    /// its backlog.
    pub fn hand_over(self) -> LeavingServer {
        let Self { listener: _, threads, connections, permits: _ } = self;
        let _ = connections.send(Stage::HandingOver);
        LeavingServer { threads, connections }
    }

    /// Lets every connection finish its requests, and returns whether they ended within `grace`.
    /// Requests that arrive meanwhile get a response that refuses them; the server stops listening
    /// when this returns.
    pub async fn drain(self, grace: Duration) -> bool {
        let Self { listener, threads, connections, permits } = self;
        threads.app().status().begin_drain();
        let _ = connections.send(Stage::Ending);
        let refuse = |turn, stream, permit| threads.serve(turn, stream, permit, None);
        tokio::select! {
            drained = timeout(grace, connections.closed()) => drained.is_ok(),
            () = requests_ended(threads.app()) => true,
            () = accept(&listener, &permits, refuse) => false,
        }
    }
}

/// A server that has left its socket to another process, and answers the requests on its connections.
pub struct LeavingServer {
    threads: HttpThreads,
    connections: watch::Sender<Stage>,
}

impl std::fmt::Debug for LeavingServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeavingServer").finish_non_exhaustive()
    }
}

impl LeavingServer {
    /// Resolves when all connections have ended: those over HTTP/1.1 after the next response, or after a
    /// moment without a request, those over HTTP/2 when their clients have left.
    pub async fn ended(&self) {
        self.connections.closed().await;
    }

    /// Lets every connection finish its requests, and returns whether they ended within `grace`.
    pub async fn drain(self, grace: Duration) -> bool {
        let Self { threads, connections } = self;
        threads.app().status().begin_drain();
        let _ = connections.send(Stage::Ending);
        tokio::select! {
            drained = timeout(grace, connections.closed()) => drained.is_ok(),
            () = requests_ended(threads.app()) => true,
        }
    }
}

/// Resolves some time after the last request has ended: connections without a request, or with a
/// part of one, delay nothing.
async fn requests_ended(app: &App) {
    while app.is_active() {
        sleep(DRAIN_POLL_INTERVAL).await;
    }
    sleep(FLUSH_TIME).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    serve: impl Fn(usize, TcpStream, OwnedSemaphorePermit),
) {
    let (mut full, mut failed) = (LogLimit::default(), LogLimit::default());
    for turn in 0.. {
        let permit = acquire_permit(permits, &mut full).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                serve(turn, stream, permit);
            }
            Err(error) => pause(&error, &mut failed).await,
        }
    }
}

/// Waits for the permit of one more connection. Clients wait meanwhile in the backlog of the
/// system.
async fn acquire_permit(permits: &Arc<Semaphore>, full: &mut LogLimit) -> OwnedSemaphorePermit {
    if permits.available_permits() == 0
        && let Some(times) = full.note(Instant::now())
    {
        tracing::warn!(times, "all connections are taken; more clients wait (`max_connections`)");
    }
    permits.clone().acquire_owned().await.expect("the semaphore is closed. This is a bug.")
}

async fn pause(error: &io::Error, failed: &mut LogLimit) {
    if let Some(times) = failed.note(Instant::now()) {
        tracing::warn!(%error, times, "a connection cannot be accepted");
    }
    sleep(ACCEPT_PAUSE).await;
}

/// The threads that serve connections.
struct HttpThreads {
    app: Arc<App>,
    /// The channels of the threads; none if connections are served on the caller's runtime. They are
    /// unbounded: every connection in them has a permit.
    threads: Vec<mpsc::UnboundedSender<Accepted<std::net::TcpStream>>>,
    /// The TLS configuration of new connections, if TLS is required.
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
}

/// A connection on its way to its thread.
struct Accepted<S> {
    stream: S,
    permit: OwnedSemaphorePermit,
    tls: Option<Arc<ServerConfig>>,
    /// A connection without a watcher does not delay the end of the server.
    watcher: Option<watch::Receiver<Stage>>,
}

impl HttpThreads {
    fn app(&self) -> &App {
        &self.app
    }

    fn serve(
        &self,
        turn: usize,
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
        watcher: Option<watch::Receiver<Stage>>,
    ) {
        let tls = self.tls.as_ref().map(|configs| configs.borrow().clone());
        if self.threads.is_empty() {
            start(self.app.clone(), Accepted { stream, permit, tls, watcher });
        } else if let Ok(stream) = stream.into_std() {
            let thread = &self.threads[turn % self.threads.len()];
            let _ = thread.send(Accepted { stream, permit, tls, watcher });
        }
    }
}

/// Starts a thread with a runtime of its own. Several such threads are a third faster than one
/// runtime over several threads: a woken task runs after those that are ready, so queues fill
/// first.
fn spawn_http_thread(
    index: usize,
    app: Arc<App>,
) -> io::Result<mpsc::UnboundedSender<Accepted<std::net::TcpStream>>> {
    // Bounded by `max_connections`: each connection in it has its permit.
    let (connections, mut inbox) = mpsc::unbounded_channel::<Accepted<_>>();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move {
        while let Some(Accepted { stream, permit, tls, watcher }) = inbox.recv().await {
            if let Ok(stream) = TcpStream::from_std(stream) {
                start(app.clone(), Accepted { stream, permit, tls, watcher });
            }
        }
    };
    thread::Builder::new().name(format!("http-{index}")).spawn(move || runtime.block_on(serve))?;
    Ok(connections)
}

/// Serves a connection in a task of its own, so that its handshake delays no other connection.
fn start(app: Arc<App>, accepted: Accepted<TcpStream>) {
    let Accepted { stream, permit, tls, watcher } = accepted;
    let address = stream.peer_addr().ok();
    let client = address.map(|address| Peer { address, is_tls: tls.is_some() });
    match tls {
        None => drop(tokio::spawn(async move {
            let _permit = permit;
            serve_connection(app, stream, client, watcher).await;
        })),
        Some(config) => drop(tokio::spawn(async move {
            let _permit = permit;
            if let Some(stream) = litplex_tls::accept(config, stream, HEADER_TIMEOUT).await {
                serve_connection(app, stream, client, watcher).await;
            }
        })),
    }
}

/// Serves the connection of a client until it ends.
pub(crate) async fn serve_connection(
    app: Arc<App>,
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    client: Option<Peer>,
    watcher: Option<watch::Receiver<Stage>>,
) {
    let keep_alive = app.keep_alive;
    let answer = move |request, active| app.clone().handle(request, client, active);
    serve_http(protocols(), stream, keep_alive, watcher, answer).await;
}

/// Serves the requests of the app host while it is polled. If the app host `is_attached`, its
/// responses are compressed here: no other part of the server would.
pub async fn serve_inner(listener: UnixListener, app: Arc<App>, is_attached: bool) {
    let mut failed = LogLimit::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                let keep_alive = app.keep_alive;
                let answer =
                    move |request, active| app.clone().handle_inner(request, is_attached, active);
                tokio::spawn(serve_http(inner_protocols(), stream, keep_alive, None, answer));
            }
            Err(error) => pause(&error, &mut failed).await,
        }
    }
}

/// Serves HTTP on a connection until it ends.
///
/// A connection over HTTP/1.1 that has no request for a moment is parked: its buffers, which hyper
/// keeps, are given back until the client sends the next request.
async fn serve_http<S, B, F>(
    protocols: Protocols,
    stream: S,
    keep_alive: Duration,
    watcher: Option<watch::Receiver<Stage>>,
    answer: impl Fn(Request<Incoming>, ActiveRequest) -> F + Send + 'static,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
    B: Body<Data = Bytes, Error = Broken> + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
{
    let state = ConnectionState::new(keep_alive);
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let mut stream = ObservedStream::new(stream, state.clone());
    let service = service_fn(|request: Request<Incoming>| {
        let state = state.clone();
        let active = state.begin(request.version());
        let is_http1 = request.version() < Version::HTTP_2;
        // Boxed: hyper and the futures around it would copy the whole future, which is large, four times.
        let answered = Box::pin(answer(request, active));
        async move {
            let Ok(mut response) = answered.await;
            if is_http1 && state.is_leaving() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            note_last(&state, &response);
            Ok::<_, Infallible>(response)
        }
    });
    loop {
        // The set polls the timers and the watcher only after they were woken. Without it, each poll
        // of the connection would poll them all, three times in a request.
        let mut pauses = FuturesUnordered::from_iter([pause_of(watcher.clone(), &state)]);
        let is_http2 = loop {
            tokio::select! {
                is_http2 = stream.begins_http2() => break is_http2,
                pause = pauses.next() => match pause {
                    Some(Pause::Leave) => {
                        state.leave();
                        pauses.push(pause_of(watcher.clone(), &state));
                    }
                    _ => return,
                },
            }
        };
        let Ok(is_http2) = is_http2 else { return };
        let io = TokioIo::new(stream);
        if is_http2 {
            let mut connection = pin!(protocols.http2.serve_connection(io, &service));
            tokio::select! {
                ended = connection.as_mut() => note_end(ended),
                _ = pauses.next() => finish(connection, &state).await,
            }
            return;
        }
        let mut connection = protocols.http1.serve_connection(io, &service);
        let pause = loop {
            let pause = tokio::select! {
                ended = &mut connection => return note_end(ended),
                pause = pauses.next() => pause,
            };
            if !matches!(pause, Some(Pause::Leave)) {
                break pause;
            }
            state.leave();
            pauses.push(pause_of(watcher.clone(), &state));
        };
        let Some(Pause::Park) = pause else {
            return finish(Pin::new(&mut connection), &state).await;
        };
        let parts = connection.into_parts();
        stream = parts.io.into_inner().parked(&parts.read_buf);
    }
}

/// The end of a stage of a connection.
enum Pause {
    /// The connection ends after its requests.
    End,
    /// The connection ends after its next response, or when no request comes.
    Leave,
    /// The connection is parked.
    Park,
}

/// Waits until a connection is to end, to leave or to be parked.
async fn pause_of(mut watcher: Option<watch::Receiver<Stage>>, state: &ConnectionState) -> Pause {
    let leaves = state.is_leaving();
    tokio::select! {
        pause = asked_to_end(&mut watcher, leaves) => pause,
        () = state.idle() => {
            tracing::debug!("a connection was idle for too long");
            Pause::End
        }
        () = state.can_park() => Pause::Park,
    }
}

/// Lets a connection finish its requests. On HTTP/2 this announces the end to the client, whose next
/// request may be on its way.
async fn finish<C>(mut connection: Pin<&mut C>, state: &ConnectionState)
where
    C: GracefulConnection<Error = hyper::Error>,
{
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => note_end(ended),
        () = unused(state) => {}
    }
}

/// Notes the response after which a connection over HTTP/1.1 ends.
fn note_last<B>(state: &ConnectionState, response: &Response<B>) {
    if response.headers().get(CONNECTION).is_some_and(|value| value == "close") {
        state.note_last();
    }
}

/// The settings of both versions of HTTP.
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

fn protocols() -> Protocols {
    let (mut http1, mut http2) = (http1::Builder::new(), http2::Builder::new(TokioExecutor::new()));
    // The state measures the time of headers: hyper's timeout would run while a connection is idle.
    http1.timer(TokioTimer::new()).header_read_timeout(None);
    http1.max_buf_size(READ_BYTES);
    http2.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL);
    http2.initial_stream_window_size(WINDOW_BYTES);
    http2.initial_connection_window_size(WINDOW_BYTES);
    Protocols { http1, http2 }
}

/// Returns the protocol of the inner listener: requests may have the headers of a client's request,
/// in either version, and those that the app host adds.
fn inner_protocols() -> Protocols {
    let mut protocols = protocols();
    protocols.http1.max_buf_size(2 * READ_BYTES).max_headers(MAX_INNER_HEADERS);
    protocols
}

fn note_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Resolves when the server ends, or is replaced by another process if the connection does not leave
/// already. The server waits while there is a watcher.
async fn asked_to_end(watcher: &mut Option<watch::Receiver<Stage>>, leaves: bool) -> Pause {
    let Some(watcher) = watcher else { return std::future::pending().await };
    // The sender is dropped only with the server.
    let stage = watcher.wait_for(|stage| match stage {
        Stage::Serving => false,
        Stage::HandingOver => !leaves,
        Stage::Ending => true,
    });
    match stage.await.map(|stage| *stage) {
        Ok(Stage::HandingOver) => Pause::Leave,
        _ => Pause::End,
    }
}

/// Resolves when a connection that is to end has no request.
async fn unused(state: &ConnectionState) {
    loop {
        sleep(FLUSH_TIME).await;
        if state.is_unused() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::{Context, Poll};

    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(75);

    /// A stream that notes the size of the buffer of each read.
    struct Offered(DuplexStream, Arc<AtomicUsize>);

    impl AsyncRead for Offered {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.1.store(buf.remaining(), Relaxed);
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Offered {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, data)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// A connection to a server, and what the server did on it.
    struct Client {
        stream: DuplexStream,
        /// The size of the buffer of the last read, in bytes.
        offered: Arc<AtomicUsize>,
        requests: Arc<AtomicUsize>,
    }

    impl Client {
        /// Connects to a server that responds with the length of the body. The body of a request
        /// to `/refused` is read after the response.
        fn connect() -> Self {
            let (stream, theirs) = duplex(1 << 20);
            let (offered, requests) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
            let theirs = Offered(theirs, Arc::clone(&offered));
            let count = requests.clone();
            let answer = move |request: Request<Incoming>, active: ActiveRequest| {
                count.fetch_add(1, Relaxed);
                async move {
                    let _active = active;
                    let is_refused = request.uri().path() == "/refused";
                    let read = request.into_body().collect();
                    let mut response = Response::builder();
                    let length = if is_refused {
                        tokio::spawn(read);
                        response = response.header(CONNECTION, "close");
                        0
                    } else {
                        read.await.unwrap().to_bytes().len()
                    };
                    let body = Full::from(length.to_string());
                    Ok(response.body(body.map_err(|never| match never {})).unwrap())
                }
            };
            tokio::spawn(serve_http::<_, _, _>(protocols(), theirs, KEEP_ALIVE, None, answer));
            Self { stream, offered, requests }
        }

        async fn send(&mut self, data: &[u8]) {
            self.stream.write_all(data).await.unwrap();
        }

        /// Reads the response that ends with this text.
        async fn receive(&mut self, end: &str) {
            let mut response = String::new();
            while !response.ends_with(end) {
                response.push(char::from(self.stream.read_u8().await.unwrap()));
            }
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        }
    }

    fn post(path: &str, length: usize) -> Vec<u8> {
        format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").into_bytes()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_has_no_buffer_and_serves_the_next() {
        let mut client = Client::connect();
        for _ in 0..3 {
            client.send(&post("/", 300_000)).await;
            client.send(&[b'a'; 300_000]).await;
            client.receive("300000").await;
            assert!(client.offered.load(Relaxed) >= 16 * 1024, "the buffer has grown");
            sleep(Duration::from_secs(2)).await;
            assert!(client.offered.load(Relaxed) < 100, "{:?} bytes", client.offered);
        }
        // The next request arrives in two parts, the first together with the body before it.
        client.send(&post("/", 300_000)).await;
        client.send(&[&[b'a'; 300_000][..], b"POST / HT"].concat()).await;
        client.receive("300000").await;
        sleep(Duration::from_secs(2)).await;
        client.send(b"TP/1.1\r\nContent-Length: 3\r\n\r\nabc").await;
        client.receive("\r\n3").await;
        assert_eq!(client.requests.load(Relaxed), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_refused_body_is_no_request() {
        let mut client = Client::connect();
        let rest = post("/", 0);
        client.send(&post("/refused", 100_000 + rest.len())).await;
        client.send(&[b'a'; 100_000]).await;
        client.receive("\r\n0").await;
        sleep(Duration::from_secs(2)).await;
        let _ = client.stream.write_all(&rest).await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!(client.requests.load(Relaxed), 1);
    }
}
