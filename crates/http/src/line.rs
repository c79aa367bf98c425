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
pub(crate) struct Line {
    usage: Mutex<Use>,
    /// Notified when a part of a request has arrived and the rest has not.
    begun: Notify,
    is_stalled: AtomicBool,
}

/// The use of a connection.
#[derive(Debug)]
struct Use {
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

impl Use {
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

impl Line {
    /// Returns the state of a connection that was opened now, and may be idle for so long between
    /// two requests.
    pub(crate) fn new(keep_alive: Duration) -> Arc<Self> {
        let (active, version, head_since) = (0, None, None);
        let idle_since = Instant::now();
        let used = Use { keep_alive, active, version, idle_since, head_since };
        let (begun, is_stalled) = (Notify::new(), AtomicBool::new(false));
        Arc::new(Self { usage: Mutex::new(used), begun, is_stalled })
    }

    fn used(&self) -> MutexGuard<'_, Use> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request until the returned value is dropped.
    pub(crate) fn begin(self: &Arc<Self>, version: Version) -> OnLine {
        let mut used = self.used();
        used.active += 1;
        used.version = Some(version);
        used.head_since = None;
        OnLine(self.clone())
    }

    /// Returns whether it has no request.
    pub(crate) fn is_unused(&self) -> bool {
        self.used().active == 0
    }

    /// Returns whether it ends because its client took nothing of what was sent.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Relaxed)
    }

    /// Resolves when it has been idle for too long.
    pub(crate) async fn idle(&self) {
        loop {
            let deadline = self.used().deadline();
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
pub(crate) struct OnLine(Arc<Line>);

impl OnLine {
    /// See [`Line::is_stalled`].
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.is_stalled()
    }
}

impl Drop for OnLine {
    fn drop(&mut self) {
        let mut used = self.0.used();
        used.active -= 1;
        if used.active == 0 {
            used.idle_since = Instant::now();
        }
    }
}

/// The stream of a connection. It notes in its [`Line`] what arrives and what fails.
#[derive(Debug)]
pub(crate) struct Observed<S> {
    stream: Pin<Box<S>>,
    line: Arc<Line>,
    /// Whether the line was notified that a part of a request has arrived.
    is_told: bool,
}

impl<S> Observed<S> {
    pub(crate) fn new(stream: S, line: Arc<Line>) -> Self {
        Self { stream: Box::pin(stream), line, is_told: false }
    }

    fn note_write<T>(&self, written: io::Result<T>) -> io::Result<T> {
        written.inspect_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                self.line.is_stalled.store(true, Relaxed);
            }
        })
    }
}

impl<S: AsyncRead> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.stream.as_mut().poll_read(cx, buf);
        let this = &mut *self;
        let mut used = this.line.used();
        if used.active > 0 {
            return read;
        }
        if read.is_ready() && buf.filled().len() > before {
            used.head_since.get_or_insert_with(Instant::now);
            this.is_told = false;
        } else if used.head_since.is_some() && !std::mem::replace(&mut this.is_told, true) {
            this.line.begun.notify_one();
        }
        drop(used);
        read
    }
}

impl<S: AsyncWrite> AsyncWrite for Observed<S> {
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

    async fn idle_after(line: &Line) -> u64 {
        let before = Instant::now();
        line.idle().await;
        before.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_and_the_time_of_headers_are_two() {
        let line = Line::new(KEEP_ALIVE);
        assert_eq!(idle_after(&line).await, 30, "the first request must come sooner");
        drop(line.begin(Version::HTTP_11));
        assert_eq!(idle_after(&line).await, 75);
        let request = line.begin(Version::HTTP_11);
        assert!(timeout(Duration::from_secs(999), line.idle()).await.is_err());
        drop(request);
        line.used().head_since = Some(Instant::now());
        assert_eq!(idle_after(&line).await, 30);
        drop((line.begin(Version::HTTP_2), line.begin(Version::HTTP_2)));
        line.used().head_since = Some(Instant::now());
        assert_eq!(idle_after(&line).await, 75, "the data need not be a request");
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_request_is_noticed_when_it_comes() {
        let line = Line::new(KEEP_ALIVE);
        drop(line.begin(Version::HTTP_11));
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut observed = Observed::new(ours, line.clone());
        let idle = tokio::spawn({
            let line = line.clone();
            async move { idle_after(&line).await }
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
