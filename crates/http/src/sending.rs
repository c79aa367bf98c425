//! The body of an answer on its way out: it is measured, counted, and given up where its client takes
//! nothing of it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use litplex_core::{MemoryBudget, Reservation};
use litplex_metrics::RequestGuard;
use litplex_traces::ServerSpan;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::answer::AnswerBody;
use crate::around::Record;
use crate::line::OnLine;
use crate::stream::Broken;
use litplex_access::InFlightPermit;

/// How long a client of HTTP/2 may take for the next [`PIECE_BYTES`] of an answer. On HTTP/1.1 the
/// connection has such a time.
const TAKE_TIME: Duration = Duration::from_secs(30);

/// What an answer gives to a connection of HTTP/2 at a time; it holds that until its client has room.
const PIECE_BYTES: usize = 16 * 1024;

/// What an answer may give to a connection of HTTP/1.1, where it is alone, uncounted.
const SMALL_BYTES: usize = 16 * 1024;

/// The body of an answer, whose request goes on until it is sent.
#[derive(Debug)]
pub(crate) struct MeasuredBody(Arc<Mutex<Sending>>);

/// What follows an answer until it is sent.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) ongoing: Option<RequestGuard>,
    pub(crate) record: Option<Record>,
    pub(crate) span: Option<ServerSpan>,
    /// The permit of its caller.
    pub(crate) _permit: Option<InFlightPermit>,
    /// What the request takes beside its body.
    pub(crate) _head: Reservation,
}

struct Sending {
    body: AnswerBody,
    /// What is left of a piece that goes out in several.
    rest: Bytes,
    follower: Follower,
    on_line: Option<OnLine>,
    budget: Arc<MemoryBudget>,
    is_multiplexed: bool,
    /// Since when a piece was given out and the next not asked for.
    given: Option<Instant>,
    /// The task that looks at `given`.
    watch: Option<AbortHandle>,
    is_stalled: bool,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("body", &self.body).finish_non_exhaustive()
    }
}

impl MeasuredBody {
    /// Makes one of the answer to a request on this connection.
    pub(crate) fn new(
        body: AnswerBody,
        follower: Follower,
        on_line: OnLine,
        version: Version,
        budget: Arc<MemoryBudget>,
    ) -> Self {
        let is_multiplexed = version == Version::HTTP_2;
        let (rest, on_line, given, watch) = (Bytes::new(), Some(on_line), None, None);
        let mut sending = Sending {
            body,
            rest,
            follower,
            on_line,
            budget,
            is_multiplexed,
            given,
            watch,
            is_stalled: false,
        };
        if sending.is_at_end() {
            sending.follower.ended();
        }
        Self(Arc::new(Mutex::new(sending)))
    }

    /// Notes that all was sent.
    pub(crate) fn ended(&mut self) {
        lock(&self.0).follower.ended();
    }
}

fn lock(sending: &Mutex<Sending>) -> MutexGuard<'_, Sending> {
    sending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for MeasuredBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut sending = lock(&self.0);
        let frame = ready!(sending.poll(cx));
        if sending.is_multiplexed && frame.is_some() && !sending.is_at_end() {
            sending.given = Some(Instant::now());
            if sending.watch.is_none() {
                let watched = Arc::downgrade(&self.0);
                sending.watch = Some(tokio::spawn(watch(watched)).abort_handle());
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).is_at_end()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).body.size_hint()
    }
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.is_stalled {
            return Poll::Ready(Some(Err(stalled())));
        }
        self.given = None;
        let next = if self.rest.is_empty() {
            ready!(Pin::new(&mut self.body).poll_frame(cx))
        } else {
            Some(Ok(Frame::data(std::mem::take(&mut self.rest))))
        };
        let frame = next.map(|frame| frame.and_then(|frame| self.portion(frame)));
        match &frame {
            Some(Ok(frame)) => self.follower.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(broken)) => self.follower.broke(broken.status),
            None => {}
        }
        if frame.as_ref().is_none_or(|frame| frame.is_ok() && self.is_at_end()) {
            self.follower.ended();
        }
        Poll::Ready(frame)
    }

    fn is_at_end(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// Returns as much of a frame as goes out at a time, counted for as long as the connection has
    /// it.
    fn portion(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Broken> {
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Ok(trailers),
        };
        if self.is_multiplexed && data.len() > PIECE_BYTES {
            self.rest = data.split_off(PIECE_BYTES);
        }
        // A whole answer was counted when the model gave it.
        let is_large = data.len() > SMALL_BYTES && !matches!(self.body, AnswerBody::Whole(_));
        if self.is_multiplexed || is_large {
            let held = self.budget.reserve().hold(data);
            data = held.map_err(|full| Broken { status: full.status() })?;
        }
        Ok(Frame::data(data))
    }

    /// Ends an answer of which nothing is taken, and frees all that it held up. Its stream is reset
    /// when its client asks for more.
    fn give_up(&mut self) {
        self.is_stalled = true;
        self.follower.broke(stalled().status);
        // What computes it learns of it by the body's end.
        self.body = AnswerBody::default();
        self.rest = Bytes::new();
        self.follower = Follower::default();
        self.on_line = None;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
        if self.on_line.as_ref().is_some_and(OnLine::is_stalled) {
            self.follower.broke(stalled().status);
        }
    }
}

/// Gives an answer up when its client has taken nothing of it for too long.
async fn watch(watched: Weak<Mutex<Sending>>) {
    loop {
        let until = {
            let Some(sending) = watched.upgrade() else { return };
            let mut sending = lock(&sending);
            let now = Instant::now();
            let until = sending.given.unwrap_or(now) + TAKE_TIME;
            if until <= now {
                return sending.give_up();
            }
            until
        };
        sleep_until(until).await;
    }
}

/// Says that a client took nothing.
fn stalled() -> Broken {
    Broken { status: StatusCode::REQUEST_TIMEOUT.as_u16() }
}

impl Follower {
    fn ended(&mut self) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.ended();
        }
        if let Some(span) = &mut self.span {
            span.ended();
        }
        if let Some(record) = &mut self.record {
            record.is_complete = true;
        }
    }

    fn broke(&mut self, status: u16) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.broke(status);
        }
        if let Some(span) = &mut self.span {
            span.broke(status);
        }
        // The client had the answer's own status, unless the fault is its own.
        if let Some(record) = self.record.as_mut().filter(|record| !record.is_complete)
            && status == stalled().status
        {
            record.status = status;
        }
    }

    fn sent(&mut self, bytes: usize) {
        if let Some(ongoing) = &mut self.ongoing {
            ongoing.sent(bytes);
        }
        if let Some(record) = &mut self.record {
            record.bytes += bytes as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;
    use crate::line::Line;

    const LENGTH: usize = 3 * PIECE_BYTES + 1;

    fn body(version: Version, budget: &Arc<MemoryBudget>) -> MeasuredBody {
        let whole = AnswerBody::Whole(Some(vec![0; LENGTH].into()));
        let on_line = Line::new(TAKE_TIME).begin(version);
        MeasuredBody::new(whole, Follower::default(), on_line, version, budget.clone())
    }

    async fn next(body: &mut MeasuredBody) -> Option<Result<Bytes, Broken>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let budget = MemoryBudget::new(1 << 20);
        let mut sent = body(Version::HTTP_2, &budget);
        assert_eq!(sent.size_hint().exact(), Some(LENGTH as u64));
        // Slow is not stalled.
        let mut pieces = Vec::new();
        for _ in 0..3 {
            pieces.push(next(&mut sent).await.unwrap().unwrap());
            advance(TAKE_TIME - Duration::from_secs(1)).await;
        }
        assert_eq!(budget.taken(), 3 * PIECE_BYTES, "the connection has them");
        drop(pieces);
        assert_eq!(budget.taken(), 0);
        tokio::time::sleep(TAKE_TIME).await;
        assert!(lock(&sent.0).on_line.is_none(), "it holds up nothing");
        assert_eq!(next(&mut sent).await, Some(Err(stalled())));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_to_its_end_is_never_stalled() {
        let budget = MemoryBudget::new(1 << 20);
        let mut sent = body(Version::HTTP_2, &budget);
        let mut length = 0;
        while !sent.is_end_stream() {
            length += next(&mut sent).await.unwrap().unwrap().len();
        }
        tokio::time::sleep(2 * TAKE_TIME).await;
        assert_eq!((length, next(&mut sent).await), (LENGTH, None));
        let mut whole = body(Version::HTTP_11, &budget);
        assert_eq!(next(&mut whole).await.unwrap().unwrap().len(), LENGTH, "one write");
        let full = MemoryBudget::new(10);
        let refused = next(&mut body(Version::HTTP_2, &full)).await;
        assert_eq!(refused, Some(Err(Broken { status: 503 })));
    }
}
