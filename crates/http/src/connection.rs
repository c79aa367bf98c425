//! The state of a connection: its requests, how long it is idle, and whether it can be parked.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::Version;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

/// The longest time in which a client sends the headers of a request.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The time in which a client may send one more request on a connection that another process would
/// serve better: the request may be on its way. Many clients close idle connections after 5 s themselves.
const LEAVING_IDLE: Duration = Duration::from_secs(6);

/// The longest and the shortest time between two checks whether a connection is idle.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
const SHORTEST_POLL: Duration = Duration::from_millis(100);

/// The time after which a connection without a request is parked, if its read buffer has grown.
const PARK_AFTER: Duration = Duration::from_millis(500);

/// The size of a new read buffer, in bytes. A buffer grows when one read fills it.
const NEW_BUFFER_BYTES: usize = 8 * 1024;

/// The first bytes of a connection that speaks HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The state of an open connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    usage: Mutex<Usage>,
    /// Notified when a part of a request has arrived and the rest has not.
    begun: Notify,
    /// Notified when the read buffer grows for the first time.
    grown: Notify,
    is_stalled: AtomicBool,
    /// Whether the connection ends with its next response, because another process takes new ones.
    is_leaving: AtomicBool,
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
    /// Whether the read buffer is larger than a new one.
    has_grown: bool,
    /// Whether the last response was written to its end.
    is_flushed: bool,
    /// Whether the connection ends with its current request.
    is_last: bool,
    /// The time in which its first bytes come.
    first_bytes: Duration,
}

impl Usage {
    /// Returns the time at which the connection can be parked, or is to be examined again; `None` if
    /// parking it would free nothing. It can be parked between two requests only, never while the
    /// body of a request is still read.
    fn park_at(&self) -> Option<Instant> {
        if !self.has_grown || self.is_last || self.version == Some(Version::HTTP_2) {
            return None;
        }
        let is_between_requests = self.active == 0 && self.is_flushed && self.head_since.is_none();
        let since = if is_between_requests { self.idle_since } else { Instant::now() };
        Some(since + PARK_AFTER)
    }

    /// Returns the deadline, and the time after which it is examined again. A notification at the end of each
    /// request would cost every request, so it is examined as often as a request may have made the deadline
    /// an earlier one.
    fn deadline_and_poll(&self) -> (Option<Instant>, Duration) {
        (self.deadline(), self.keep_alive.clamp(SHORTEST_POLL, POLL_INTERVAL))
    }

    /// Returns the time at which it has been idle, or waited for headers, for too long; `None`
    /// while it has a request.
    fn deadline(&self) -> Option<Instant> {
        if self.active > 0 {
            return None;
        }
        let idle = self.idle_since + self.keep_alive;
        match self.version {
            None => Some(self.idle_since + self.first_bytes),
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
        let (has_grown, is_flushed, is_last) = (false, false, false);
        let usage = Usage {
            keep_alive,
            active,
            version,
            idle_since,
            head_since,
            has_grown,
            is_flushed,
            is_last,
            first_bytes: HEADER_TIMEOUT,
        };
        let (begun, grown) = (Notify::new(), Notify::new());
        let (is_stalled, is_leaving) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { usage: Mutex::new(usage), begun, grown, is_stalled, is_leaving })
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
        usage.is_flushed = false;
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

    /// Notes that the connection ends with its current request, whose body may not be read yet.
    pub(crate) fn note_last(&self) {
        self.usage().is_last = true;
    }

    /// Notes that the connection ends with its next response, or when no request comes for a moment.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Relaxed);
        let mut usage = self.usage();
        usage.first_bytes = LEAVING_IDLE;
        usage.keep_alive = usage.keep_alive.min(LEAVING_IDLE);
        usage.idle_since = Instant::now();
        drop(usage);
        // The deadline is earlier.
        self.begun.notify_one();
    }

    /// Returns whether it ends with its next response.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Relaxed)
    }

    /// Resolves when the connection should be parked: it has no request, and a large read buffer.
    pub(crate) async fn can_park(&self) {
        loop {
            let park_at = self.usage().park_at();
            match park_at {
                Some(at) if at <= Instant::now() => return,
                Some(at) => sleep_until(at).await,
                None => self.grown.notified().await,
            }
        }
    }

    /// Resolves when it has been idle for too long.
    pub(crate) async fn idle(&self) {
        loop {
            let (deadline, poll) = self.usage().deadline_and_poll();
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            let wait = deadline.map_or(poll, |deadline| poll.min(deadline - now));
            let _ = timeout(wait, self.begun.notified()).await;
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
    /// Bytes that were read and are read again.
    again: Bytes,
    state: Arc<ConnectionState>,
    /// Whether the state was notified that a part of a request has arrived.
    is_told: bool,
}

impl<S> ObservedStream<S> {
    pub(crate) fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        Self { stream: Box::pin(stream), again: Bytes::new(), state, is_told: false }
    }

    /// Returns a parked stream. The buffer of its connection is gone, except for these bytes.
    pub(crate) fn parked(mut self, unread: &Bytes) -> Self {
        self.state.usage().has_grown = false;
        // A slice of the buffer, even an empty one, would keep it.
        self.again = Bytes::copy_from_slice(unread);
        self
    }

    fn note_write<T>(&self, written: io::Result<T>) -> io::Result<T> {
        written.inspect_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut {
                self.state.is_stalled.store(true, Relaxed);
            }
        })
    }
}

impl<S: AsyncRead> ObservedStream<S> {
    /// Waits for the first bytes, without a buffer, and returns whether they begin HTTP/2. They stay
    /// unread.
    pub(crate) async fn begins_http2(&mut self) -> io::Result<bool> {
        let (mut begin, mut length) = ([0; PREFACE.len()], 0);
        loop {
            let read = self.read(&mut begin[length..]).await?;
            length += read;
            let is_preface = PREFACE.starts_with(&begin[..length]);
            if read == 0 || !is_preface || length == PREFACE.len() {
                self.again = [&begin[..length], &self.again].concat().into();
                return Ok(is_preface && length == PREFACE.len());
            }
        }
    }
}

impl<S: AsyncRead> AsyncRead for ObservedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.again.is_empty() {
            let length = self.again.len().min(buf.remaining());
            buf.put_slice(&self.again[..length]);
            self.again.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = self.stream.as_mut().poll_read(cx, buf);
        let length = buf.filled().len() - before;
        let this = &mut *self;
        let mut usage = this.state.usage();
        if length >= NEW_BUFFER_BYTES && !std::mem::replace(&mut usage.has_grown, true) {
            this.state.grown.notify_one();
        }
        if usage.active > 0 {
            return read;
        }
        if read.is_ready() && length > 0 {
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
        // hyper flushes the stream when it has written all that it has.
        let mut usage = self.state.usage();
        usage.is_flushed = usage.active == 0;
        drop(usage);
        Poll::Ready(self.note_write(flushed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

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
    async fn idle_time_counts_from_a_request_that_came_late() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let state = ConnectionState::new(Duration::from_secs(2));
            let before = Instant::now();
            let idle = tokio::spawn({
                let state = state.clone();
                async move { state.idle().await }
            });
            sleep(Duration::from_secs(5)).await;
            let request = state.begin(version);
            sleep(Duration::from_millis(2_500)).await;
            drop(request);
            idle.await.unwrap();
            let took = before.elapsed().as_secs_f64();
            assert!((9.5..11.6).contains(&took), "{took}");
        }
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

    /// A buffer that notes when it is freed.
    struct Buffer(Arc<AtomicBool>);

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            b"GET"
        }
    }

    impl Drop for Buffer {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_stream_keeps_unread_bytes_and_no_buffer() {
        for read in [0, 1, 3] {
            let is_freed = Arc::new(AtomicBool::new(false));
            let mut unread = Bytes::from_owner(Buffer(is_freed.clone()));
            unread.advance(read);
            let (ours, theirs) = tokio::io::duplex(64);
            drop(theirs);
            let state = ConnectionState::new(KEEP_ALIVE);
            let mut parked = ObservedStream::new(ours, state).parked(&unread);
            drop(unread);
            assert!(is_freed.load(Relaxed), "{read} bytes were read");
            assert!(!parked.begins_http2().await.unwrap());
            let mut rest = Vec::new();
            parked.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"GET"[read..]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_parked_between_requests_only() {
        let seconds = Duration::from_secs(9);
        let state = ConnectionState::new(KEEP_ALIVE);
        let parks = async || timeout(seconds, state.can_park()).await.is_ok();
        let request = state.begin(Version::HTTP_11);
        state.usage().has_grown = true;
        assert!(!parks().await, "it has a request");
        drop(request);
        assert!(!parks().await, "the response is not written");
        state.usage().is_flushed = true;
        assert!(parks().await);
        state.usage().head_since = Some(Instant::now());
        assert!(!parks().await, "the next request arrives");
        state.usage().head_since = None;
        state.note_last();
        assert!(!parks().await, "it ends");
    }
}
