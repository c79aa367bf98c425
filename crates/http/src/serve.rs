use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::handle::handle;

/// How long a client may take to send the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// A pause after the system refused to accept a connection, for want of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes the address, so that a server that cannot have it fails before it loads a model.
///
/// # Errors
/// Nobody can listen there, for example because somebody does.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((host, port)).await
}

/// Accepts connections and speaks HTTP/1.1 and HTTP/2 (prior knowledge) on them.
pub struct Server {
    listener: TcpListener,
    lanes: Lanes,
    connections: GracefulShutdown,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Server {
    /// Makes a server that speaks HTTP on this many threads; with one, on the caller's runtime.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(listener: TcpListener, app: Arc<App>, threads: usize) -> io::Result<Self> {
        let lanes = match threads {
            0 | 1 => Lanes::Here(app),
            many => Lanes::Threads(
                (0..many).map(|index| spawn_lane(index, app.clone())).collect::<io::Result<_>>()?,
            ),
        };
        Ok(Self { listener, lanes, connections: GracefulShutdown::new() })
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
        for turn in 0.. {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    self.lanes.serve(turn, stream, self.connections.watcher());
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Stops listening, lets every connection finish the requests that it has, and returns
    /// whether they did within `grace`.
    pub async fn drain(self, grace: Duration) -> bool {
        drop(self.listener);
        timeout(grace, self.connections.shutdown()).await.is_ok()
    }
}

/// Where connections are served.
enum Lanes {
    Here(Arc<App>),
    Threads(Vec<mpsc::UnboundedSender<(std::net::TcpStream, Watcher)>>),
}

impl Lanes {
    fn serve(&self, turn: usize, stream: TcpStream, watcher: Watcher) {
        match self {
            Self::Here(app) => drop(tokio::spawn(serve_connection(app.clone(), stream, watcher))),
            Self::Threads(lanes) => {
                if let Ok(stream) = stream.into_std() {
                    let _ = lanes[turn % lanes.len()].send((stream, watcher));
                }
            }
        }
    }
}

/// Starts a thread with a runtime of its own. Several such beat one runtime over several threads
/// by a third: a task that was woken runs after those that are ready, so queues fill first.
fn spawn_lane(
    index: usize,
    app: Arc<App>,
) -> io::Result<mpsc::UnboundedSender<(std::net::TcpStream, Watcher)>> {
    let (connections, mut inbox) = mpsc::unbounded_channel();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let lane = async move {
        while let Some((stream, watcher)) = inbox.recv().await {
            if let Ok(stream) = TcpStream::from_std(stream) {
                tokio::spawn(serve_connection(app.clone(), stream, watcher));
            }
        }
    };
    thread::Builder::new().name(format!("http-{index}")).spawn(move || runtime.block_on(lane))?;
    Ok(connections)
}

async fn serve_connection(app: Arc<App>, stream: TcpStream, watcher: Watcher) {
    let mut protocols = auto::Builder::new(TokioExecutor::new());
    protocols.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    protocols.http2().timer(TokioTimer::new());
    let service = service_fn(|request| {
        let app = app.clone();
        async move { handle(&app, request).await }
    });
    let connection = protocols.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
}
