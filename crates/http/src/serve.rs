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
use litplex_tls::{ServerConfig, Tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_io_timeout::TimeoutWriter;

use crate::app::App;
use crate::buffers::READ_BYTES;
use crate::line::{HEADER_TIMEOUT, Line, Observed, OnLine};
use crate::peer::Peer;
use crate::seldom::Seldom;
use crate::stream::Broken;

/// How long a client may take nothing of what is sent to it before it is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a client of HTTP/2 must show that it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What a connection of HTTP/2 may have sent of bodies that nobody has asked for yet.
const WINDOW_BYTES: u32 = 256 * 1024;

/// The headers of a request of the app host. Clients may send 100 over HTTP/1.1, and over HTTP/2 what
/// 16 KiB hold.
const MAX_INNER_HEADERS: usize = 1000;

/// How often it is looked whether requests are still being answered when a server stops.
const QUIET_LOOK: Duration = Duration::from_millis(20);

/// How long the last answers may take to reach their clients when a server or a connection ends.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// A pause after the system refused to accept a connection, for want of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the address, so that a server that cannot have it fails before it loads a model.
///
/// # Errors
/// Nobody can listen there, for example because somebody does.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((host, port)).await
}

/// Accepts connections and speaks HTTP/1.1 and HTTP/2 on them: what they agree on, or without TLS
/// what they begin with.
pub struct Server {
    listener: TcpListener,
    lanes: Lanes,
    /// Tells the connections to end. Each has a receiver for as long as it is open.
    connections: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Makes a server that speaks HTTP on this many threads; with one, on the caller's runtime.
    /// Beyond so many connections, clients wait until one ends.
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
        let threads = threads.map(|index| spawn_lane(index, app.clone()));
        let lanes = Lanes { threads: threads.collect::<io::Result<_>>()?, app, tls: None };
        let places = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self { listener, lanes, connections: watch::Sender::new(false), places })
    }

    /// Speaks TLS, where there is one, and nothing else.
    #[must_use]
    pub fn over(mut self, tls: Option<&Tls>) -> Self {
        self.lanes.tls = tls.map(Tls::configs);
        self
    }

    /// Returns the address that the server listens on.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts connections for as long as it is polled.
    pub async fn accept(&mut self) {
        let Self { listener, lanes, connections, places } = self;
        let serve = |turn, stream, place| {
            lanes.serve(turn, stream, place, Some(connections.subscribe()));
        };
        accept(listener, places, serve).await;
    }

    /// Lets every connection finish the requests that it has, and returns whether they did within
    /// `grace`. Requests that come meanwhile are refused in words, not by a closed port; it stops
    /// listening when it returns.
    pub async fn drain(self, grace: Duration) -> bool {
        let Self { listener, lanes, connections, places } = self;
        lanes.app().status().begin_drain();
        let _ = connections.send(true);
        let refuse = |turn, stream, place| lanes.serve(turn, stream, place, None);
        tokio::select! {
            drained = timeout(grace, connections.closed()) => drained.is_ok(),
            () = quiet(lanes.app()) => true,
            () = accept(&listener, &places, refuse) => false,
        }
    }
}

/// Resolves some time after the last request was answered: connections that ask for nothing, or
/// for half of something, hold nothing up.
async fn quiet(app: &App) {
    while app.is_active() {
        sleep(QUIET_LOOK).await;
    }
    sleep(FLUSH_TIME).await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    serve: impl Fn(usize, TcpStream, OwnedSemaphorePermit),
) {
    let (mut full, mut failed) = (Seldom::default(), Seldom::default());
    for turn in 0.. {
        let place = place(places, &mut full).await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                serve(turn, stream, place);
            }
            Err(error) => pause(&error, &mut failed).await,
        }
    }
}

/// Waits for a place for one more connection. Clients wait as long, in the backlog of the system.
async fn place(places: &Arc<Semaphore>, full: &mut Seldom) -> OwnedSemaphorePermit {
    if places.available_permits() == 0
        && let Some(times) = full.note(Instant::now())
    {
        tracing::warn!(times, "all connections are taken; more clients wait (`max_connections`)");
    }
    places.clone().acquire_owned().await.expect("nobody closes it. This is a bug.")
}

async fn pause(error: &io::Error, failed: &mut Seldom) {
    if let Some(times) = failed.note(Instant::now()) {
        tracing::warn!(%error, times, "a connection cannot be accepted");
    }
    sleep(ACCEPT_PAUSE).await;
}

/// Where connections are served.
struct Lanes {
    app: Arc<App>,
    /// None where they are served here.
    threads: Vec<mpsc::UnboundedSender<Accepted<std::net::TcpStream>>>,
    /// What clients agree on who come now, where they must.
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
}

/// A connection on its way to its lane.
struct Accepted<S> {
    stream: S,
    place: OwnedSemaphorePermit,
    tls: Option<Arc<ServerConfig>>,
    /// One that nobody watches does not hold up the end.
    watcher: Option<watch::Receiver<bool>>,
}

impl Lanes {
    fn app(&self) -> &App {
        &self.app
    }

    fn serve(
        &self,
        turn: usize,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        watcher: Option<watch::Receiver<bool>>,
    ) {
        let tls = self.tls.as_ref().map(|configs| configs.borrow().clone());
        if self.threads.is_empty() {
            start(self.app.clone(), Accepted { stream, place, tls, watcher });
        } else if let Ok(stream) = stream.into_std() {
            let lane = &self.threads[turn % self.threads.len()];
            let _ = lane.send(Accepted { stream, place, tls, watcher });
        }
    }
}

/// Starts a thread with a runtime of its own. Several such beat one runtime over several threads
/// by a third: a task that was woken runs after those that are ready, so queues fill first.
fn spawn_lane(
    index: usize,
    app: Arc<App>,
) -> io::Result<mpsc::UnboundedSender<Accepted<std::net::TcpStream>>> {
    let (connections, mut inbox) = mpsc::unbounded_channel::<Accepted<_>>();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let lane = async move {
        while let Some(Accepted { stream, place, tls, watcher }) = inbox.recv().await {
            if let Ok(stream) = TcpStream::from_std(stream) {
                start(app.clone(), Accepted { stream, place, tls, watcher });
            }
        }
    };
    thread::Builder::new().name(format!("http-{index}")).spawn(move || runtime.block_on(lane))?;
    Ok(connections)
}

/// Serves a connection in a task of its own, where its handshake holds nobody up.
fn start(app: Arc<App>, accepted: Accepted<TcpStream>) {
    let Accepted { stream, place, tls, watcher } = accepted;
    let address = stream.peer_addr().ok();
    let client = address.map(|address| Peer { address, is_tls: tls.is_some() });
    match tls {
        None => drop(tokio::spawn(async move {
            let _place = place;
            serve_connection(app, stream, client, watcher).await;
        })),
        Some(config) => drop(tokio::spawn(async move {
            let _place = place;
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
    let answer = move |request, on_line| {
        let app = app.clone();
        async move { app.handle(request, client, on_line).await }
    };
    speak(protocols(), stream, keep_alive, watcher, answer).await;
}

/// Answers what the app host asks for, for as long as it is polled. Where it `is_attached`, there
/// is nobody else who could compress its answers.
pub async fn serve_inner(listener: UnixListener, app: Arc<App>, is_attached: bool) {
    let mut failed = Seldom::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                let keep_alive = app.keep_alive;
                let answer = move |request, on_line| {
                    let app = app.clone();
                    async move { app.handle_inner(request, is_attached, on_line).await }
                };
                tokio::spawn(speak(inner_protocols(), stream, keep_alive, None, answer));
            }
            Err(error) => pause(&error, &mut failed).await,
        }
    }
}

/// Speaks HTTP on a connection until it ends.
async fn speak<S, B, F>(
    protocols: auto::Builder<TokioExecutor>,
    stream: S,
    keep_alive: Duration,
    mut watcher: Option<watch::Receiver<bool>>,
    answer: impl Fn(Request<Incoming>, OnLine) -> F + Send + 'static,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
    B: Body<Data = Bytes, Error = Broken> + Send + 'static,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
{
    let line = Line::new(keep_alive);
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_TIMEOUT));
    let stream = TokioIo::new(Observed::new(stream, line.clone()));
    let service = service_fn({
        let line = line.clone();
        move |request: Request<Incoming>| {
            let on_line = line.begin(request.version());
            answer(request, on_line)
        }
    });
    let mut connection = pin!(protocols.serve_connection(stream, service));
    // A set polls what was woken alone: each poll of the connection, of which a request has three,
    // would poll the timer and the watcher too.
    let mut ends = FuturesUnordered::from_iter([async {
        tokio::select! {
            () = asked_to_end(&mut watcher) => {}
            () = line.idle() => tracing::debug!("a connection was idle for too long"),
        }
    }]);
    tokio::select! {
        ended = connection.as_mut() => return note_end(ended),
        _ = ends.next() => {}
    }
    // HTTP/2 says so to its client, whose next request may be on its way.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => note_end(ended),
        () = unused(&line) => {}
    }
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut protocols = auto::Builder::new(TokioExecutor::new());
    // The time of headers is that of the line: hyper's would run while a connection is idle.
    protocols.http1().timer(TokioTimer::new()).header_read_timeout(None);
    protocols.http1().max_buf_size(READ_BYTES);
    protocols.http2().timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL);
    protocols.http2().initial_stream_window_size(WINDOW_BYTES);
    protocols.http2().initial_connection_window_size(WINDOW_BYTES);
    protocols
}

/// Returns how the app host speaks to the server: what a client may send, in either version, and what
/// the app host adds to it.
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

/// Resolves when the server asks for the end. The server waits for as long as there is a watcher.
async fn asked_to_end(watcher: &mut Option<watch::Receiver<bool>>) {
    match watcher {
        // The sender is gone only where the server is.
        Some(watcher) => drop(watcher.wait_for(|is_ending| *is_ending).await.is_ok()),
        None => std::future::pending().await,
    }
}

/// Resolves when a connection that is asked to end has no request that could hold it up.
async fn unused(line: &Line) {
    loop {
        sleep(FLUSH_TIME).await;
        if line.is_unused() {
            return;
        }
    }
}
