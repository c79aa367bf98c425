//! Connections: accepts them, distributes them over threads, serves HTTP on them, and drains them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
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
    connections: watch::Sender<bool>,
    permits: Arc<Semaphore>,
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
        Ok(Self { listener, threads, connections: watch::Sender::new(false), permits })
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

    /// Accepts connections while it is polled.
    pub async fn accept(&mut self) {
        let Self { listener, threads, connections, permits } = self;
        let serve = |turn, stream, permit| {
            threads.serve(turn, stream, permit, Some(connections.subscribe()));
        };
        accept(listener, permits, serve).await;
    }

    /// Lets every connection finish its requests, and returns whether they ended within `grace`.
    /// Requests that arrive meanwhile get a response that refuses them; the server stops listening
    /// when this returns.
    pub async fn drain(self, grace: Duration) -> bool {
        let Self { listener, threads, connections, permits } = self;
        threads.app().status().begin_drain();
        let _ = connections.send(true);
        let refuse = |turn, stream, permit| threads.serve(turn, stream, permit, None);
        tokio::select! {
            drained = timeout(grace, connections.closed()) => drained.is_ok(),
            () = requests_ended(threads.app()) => true,
            () = accept(&listener, &permits, refuse) => false,
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
    watcher: Option<watch::Receiver<bool>>,
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
        watcher: Option<watch::Receiver<bool>>,
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

async fn serve_connection(
    app: Arc<App>,
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    client: Option<Peer>,
    watcher: Option<watch::Receiver<bool>>,
) {
    let keep_alive = app.keep_alive;
    let answer = move |request, active| {
        let app = app.clone();
        async move { app.handle(request, client, active).await }
    };
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
                let answer = move |request, active| {
                    let app = app.clone();
                    async move { app.handle_inner(request, is_attached, active).await }
                };
                tokio::spawn(serve_http(inner_protocols(), stream, keep_alive, None, answer));
            }
            Err(error) => pause(&error, &mut failed).await,
        }
    }
}

/// Serves HTTP on a connection until it ends.
async fn serve_http<S, B, F>(
    protocols: auto::Builder<TokioExecutor>,
    stream: S,
    keep_alive: Duration,
    mut watcher: Option<watch::Receiver<bool>>,
    answer: impl Fn(Request<Incoming>, ActiveRequest) -> F + Send + 'static,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
    B: Body<Data = Bytes, Error = Broken> + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
{
    let state = ConnectionState::new(keep_alive);
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let stream = TokioIo::new(ObservedStream::new(stream, state.clone()));
    let service = service_fn({
        let state = state.clone();
        move |request: Request<Incoming>| {
            let active = state.begin(request.version());
            answer(request, active)
        }
    });
    let mut connection = pin!(protocols.serve_connection(stream, service));
    // The set polls the timer and the watcher only after they were woken. Without it, each poll of the
    // connection would poll both, three times in a request.
    let mut ends = FuturesUnordered::from_iter([async {
        tokio::select! {
            () = asked_to_end(&mut watcher) => {}
            () = state.idle() => tracing::debug!("a connection was idle for too long"),
        }
    }]);
    tokio::select! {
        ended = connection.as_mut() => return note_end(ended),
        _ = ends.next() => {}
    }
    // On HTTP/2 this announces the end to the client, whose next request may be on its way.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => note_end(ended),
        () = unused(&state) => {}
    }
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut protocols = auto::Builder::new(TokioExecutor::new());
    // The state measures the time of headers: hyper's timeout would run while a connection is idle.
    protocols.http1().timer(TokioTimer::new()).header_read_timeout(None);
    protocols.http1().max_buf_size(READ_BYTES);
    protocols.http2().timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL);
    protocols.http2().initial_stream_window_size(WINDOW_BYTES);
    protocols.http2().initial_connection_window_size(WINDOW_BYTES);
    protocols
}

/// Returns the protocol of the inner listener: requests may have the headers of a client's request,
/// in either version, and those that the app host adds.
fn inner_protocols() -> auto::Builder<TokioExecutor> {
    let mut protocols = protocols();
    protocols.http1().max_buf_size(2 * READ_BYTES).max_headers(MAX_INNER_HEADERS);
    protocols
}

fn note_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// Resolves when the server ends. The server waits while there is a watcher.
async fn asked_to_end(watcher: &mut Option<watch::Receiver<bool>>) {
    match watcher {
        // The sender is dropped only with the server.
        Some(watcher) => drop(watcher.wait_for(|is_ending| *is_ending).await.is_ok()),
        None => std::future::pending().await,
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
