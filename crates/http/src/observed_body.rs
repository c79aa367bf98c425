//! The body of a response on its way out: it tells the observer of its request, counts in the memory
//! budget, and is given up if its client takes nothing of it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use litplex_core::MemoryBudget;
use litplex_http_core::response::ResponseBody;
use litplex_http_core::stream::Broken;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::connection::ActiveRequest;
use crate::observer::RequestObserver;

/// The longest time in which a client of HTTP/2 takes the next [`PIECE_BYTES`] of a response. On HTTP/1.1
/// the connection has such a time.
const TAKE_TIME: Duration = Duration::from_secs(30);

/// The size of a piece that is given to a connection of HTTP/2, which holds it until its client has room.
const PIECE_BYTES: usize = 16 * 1024;

/// The size of a piece that is given to a connection of HTTP/1.1 uncounted: there the response is alone.
const SMALL_BYTES: usize = 16 * 1024;

/// The body of a response, which is observed until it has ended.
#[derive(Debug)]
pub(crate) struct ObservedBody(Arc<Mutex<Sending>>);

struct Sending {
    body: ResponseBody,
    /// The rest of a piece that goes out in several.
    rest: Bytes,
    observer: RequestObserver,
    active: Option<ActiveRequest>,
    budget: Arc<MemoryBudget>,
    is_multiplexed: bool,
    /// The time at which the last piece was given out, until the next one is polled.
    given: Option<Instant>,
    /// The task that checks `given`.
    watch: Option<AbortHandle>,
    is_stalled: bool,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("body", &self.body).finish_non_exhaustive()
    }
}

impl ObservedBody {
    /// Returns the body of the response to a request on this connection.
    pub(crate) fn new(
        body: ResponseBody,
        observer: RequestObserver,
        active: ActiveRequest,
        version: Version,
        budget: Arc<MemoryBudget>,
    ) -> Self {
        let is_multiplexed = version == Version::HTTP_2;
        let (rest, active, given, watch) = (Bytes::new(), Some(active), None, None);
        let mut sending = Sending {
            body,
            rest,
            observer,
            active,
            budget,
            is_multiplexed,
            given,
            watch,
            is_stalled: false,
        };
        if sending.is_at_end() {
            sending.observer.on_end();
        }
        Self(Arc::new(Mutex::new(sending)))
    }

    /// Notes that the response has no body to send.
    pub(crate) fn on_end(&mut self) {
        lock(&self.0).observer.on_end();
    }
}

fn lock(sending: &Mutex<Sending>) -> MutexGuard<'_, Sending> {
    sending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Body for ObservedBody {
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
            return Poll::Ready(Some(Err(Broken::STALLED)));
        }
        self.given = None;
        let next = if self.rest.is_empty() {
            ready!(Pin::new(&mut self.body).poll_frame(cx))
        } else {
            Some(Ok(Frame::data(std::mem::take(&mut self.rest))))
        };
        let frame = next.map(|frame| frame.and_then(|frame| self.portion(frame)));
        match &frame {
            Some(Ok(frame)) => {
                self.observer.on_bytes(frame.data_ref().map_or(&[][..], |data| &data[..]));
            }
            Some(Err(broken)) => self.observer.on_error(*broken),
            None => {}
        }
        if frame.as_ref().is_none_or(|frame| frame.is_ok() && self.is_at_end()) {
            self.observer.on_end();
        }
        Poll::Ready(frame)
    }

    fn is_at_end(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    /// Returns the part of a frame that goes out at once, counted for as long as the connection has it.
    fn portion(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Broken> {
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Ok(trailers),
        };
        if self.is_multiplexed && data.len() > PIECE_BYTES {
            self.rest = data.split_off(PIECE_BYTES);
        }
        // A whole response was counted when the worker sent it.
        let is_large = data.len() > SMALL_BYTES && !matches!(self.body, ResponseBody::Whole(_));
        if self.is_multiplexed || is_large {
            let held = self.budget.reserve().hold(data);
            data = held.map_err(|full| Broken { status: full.status() })?;
        }
        Ok(Frame::data(data))
    }

    /// Ends a response whose client takes nothing, and frees all that it holds. Its stream is reset when
    /// its client takes more.
    fn give_up(&mut self) {
        self.is_stalled = true;
        self.observer.on_error(Broken::STALLED);
        // The end of the body cancels the call.
        self.body = ResponseBody::default();
        self.rest = Bytes::new();
        self.observer = RequestObserver::default();
        self.active = None;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
        if self.active.as_ref().is_some_and(ActiveRequest::is_stalled) {
            self.observer.on_error(Broken::STALLED);
        }
    }
}

/// Gives a response up when its client has taken nothing of it for too long.
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;
    use crate::connection::ConnectionState;

    const LENGTH: usize = 3 * PIECE_BYTES + 1;

    fn body(version: Version, budget: &Arc<MemoryBudget>) -> ObservedBody {
        let whole = ResponseBody::Whole(Some(vec![0; LENGTH].into()));
        let active = ConnectionState::new(TAKE_TIME).begin(version);
        ObservedBody::new(whole, RequestObserver::default(), active, version, budget.clone())
    }

    async fn next(body: &mut ObservedBody) -> Option<Result<Bytes, Broken>> {
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
        assert!(lock(&sent.0).active.is_none(), "it holds up nothing");
        assert_eq!(next(&mut sent).await, Some(Err(Broken::STALLED)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_was_taken_to_its_end_is_never_stalled() {
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
