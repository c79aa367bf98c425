//! The state of a connection: its requests, and how long it is idle.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// The longest time in which a client sends the headers of a request.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The time between two checks of a busy connection.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// The state of an open connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    usage: Mutex<Usage>,
    /// Notified when a part of a request has arrived and the rest has not.
    begun: Notify,
    is_stalled: AtomicBool,
}

/// The use of a connection.
#[derive(Debug)]
struct Usage {
    keep_alive: Duration,
    /// The number of requests whose responses have not ended.
    active: usize,
    /// The version of the first request.
    version: Option<Version>,
    /// The time since which it has no request.
    idle_since: Instant,
    /// The time since which the headers of a request arrive.
    head_since: Option<Instant>,
}

impl Usage {
    /// Returns the time at which it has been idle, or waited for headers, for too long; `None`
    /// while it has a request.
    fn deadline(&self) -> Option<Instant> {
        if self.active > 0 {
            return None;
        }
        let idle = self.idle_since + self.keep_alive;
        match self.version {
            None => Some(self.idle_since + HEADER_TIMEOUT),
            // The data need not be a request.
            Some(Version::HTTP_2) => Some(idle),
            Some(_) => Some(self.head_since.map_or(idle, |since| since + HEADER_TIMEOUT)),
        }
    }
}

impl ConnectionState {
    /// Returns the state of a connection that was opened now, and may be idle for so long between
    /// two requests.
    pub(crate) fn new(keep_alive: Duration) -> Arc<Self> {
        let (active, version, head_since) = (0, None, None);
        let idle_since = Instant::now();
        let usage = Usage { keep_alive, active, version, idle_since, head_since };
        let (begun, is_stalled) = (Notify::new(), AtomicBool::new(false));
        Arc::new(Self { usage: Mutex::new(usage), begun, is_stalled })
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request until the returned value is dropped.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> ActiveRequest {
        let mut usage = self.usage();
        usage.active += 1;
        usage.version = Some(version);
        usage.head_since = None;
        ActiveRequest(self.clone())
    }

    /// Returns whether it has no request.
    pub(crate) fn is_unused(&self) -> bool {
        self.usage().active == 0
    }

    /// Returns whether it ends because its client took nothing of what was sent.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Relaxed)
    }

    /// Resolves when it has been idle for too long.
    pub(crate) async fn idle(&self) {
        loop {
            let deadline = self.usage().deadline();
            let now = Instant::now();
            match deadline {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => {
                    let _ = timeout(deadline - now, self.begun.notified()).await;
                }
                // A notification at the end of each request would cost every request.
                None => sleep(POLL_INTERVAL).await,
            }
        }
    }
}

/// A request on a connection.
#[derive(Debug)]
pub(crate) struct ActiveRequest(Arc<ConnectionState>);

impl ActiveRequest {
    /// See [`ConnectionState::is_stalled`].
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.is_stalled()
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut usage = self.0.usage();
        usage.active -= 1;
        if usage.active == 0 {
            usage.idle_since = Instant::now();
        }
    }
}

/// The stream of a connection. It notes in its [`ConnectionState`] what arrives and what fails.
#[derive(Debug)]
pub(crate) struct ObservedStream<S> {
    stream: Pin<Box<S>>,
    state: Arc<ConnectionState>,
    /// Whether the state was notified that a part of a request has arrived.
    is_told: bool,
}

impl<S> ObservedStream<S> {
    pub(crate) fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        Self { stream: Box::pin(stream), state, is_told: false }
    }

    fn note_write<T>(&self, written: io::Result<T>) -> io::Result<T> {
        written.inspect_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                self.state.is_stalled.store(true, Relaxed);
            }
        })
    }
}

impl<S: AsyncRead> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.stream.as_mut().poll_read(cx, buf);
        let this = &mut *self;
        let mut usage = this.state.usage();
        if usage.active > 0 {
            return read;
        }
        if read.is_ready() && buf.filled().len() > before {
            usage.head_since.get_or_insert_with(Instant::now);
            this.is_told = false;
        } else if usage.head_since.is_some() && !std::mem::replace(&mut this.is_told, true) {
            this.state.begun.notify_one();
        }
        drop(usage);
        read
    }
}

impl<S: AsyncWrite> AsyncWrite for ObservedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream.as_mut().poll_write(cx, data));
        Poll::Ready(self.note_write(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream.as_mut().poll_write_vectored(cx, data));
        Poll::Ready(self.note_write(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.stream.as_mut().poll_flush(cx));
        Poll::Ready(self.note_write(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(75);

    async fn idle_after(state: &ConnectionState) -> u64 {
        let before = Instant::now();
        state.idle().await;
        before.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_and_the_time_of_headers_are_two() {
        let state = ConnectionState::new(KEEP_ALIVE);
        assert_eq!(idle_after(&state).await, 30, "the first request must come sooner");
        drop(state.begin(Version::HTTP_11));
        assert_eq!(idle_after(&state).await, 75);
        let request = state.begin(Version::HTTP_11);
        assert!(timeout(Duration::from_secs(999), state.idle()).await.is_err());
        drop(request);
        state.usage().head_since = Some(Instant::now());
        assert_eq!(idle_after(&state).await, 30);
        drop((state.begin(Version::HTTP_2), state.begin(Version::HTTP_2)));
        state.usage().head_since = Some(Instant::now());
        assert_eq!(idle_after(&state).await, 75, "the data need not be a request");
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_request_is_noticed_when_it_comes() {
        let state = ConnectionState::new(KEEP_ALIVE);
        drop(state.begin(Version::HTTP_11));
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut observed = ObservedStream::new(ours, state.clone());
        let idle = tokio::spawn({
            let state = state.clone();
            async move { idle_after(&state).await }
        });
        let read = tokio::spawn(async move {
            let mut bytes = [0; 8];
            while tokio::io::AsyncReadExt::read(&mut observed, &mut bytes).await.is_ok() {}
        });
        sleep(Duration::from_secs(20)).await;
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"GET").await.unwrap();
        sleep(Duration::from_secs(20)).await;
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b" /").await.unwrap();
        assert_eq!(idle.await.unwrap(), 50);
        read.abort();
    }
}
