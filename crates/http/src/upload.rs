//! The body of a client's request on its way in: it must make progress, and what nobody reads of it
//! comes back.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use litplex_core::BoxError;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::drain_body;

/// How long a client may take for the next [`PROGRESS_BYTES`] of a body, whatever the time of its
/// request: a program may allow a day.
const PROGRESS_TIME: Duration = Duration::from_secs(30);

const PROGRESS_BYTES: usize = 16 * 1024;

/// A body as it comes. It fails where its client sends it too slowly.
pub(crate) struct Upload {
    /// Gone once it is dropped.
    body: Option<Incoming>,
    /// Whether its client has not been asked for it, and waits for that.
    waits: bool,
    pace: Pace,
    rest: Rest,
}

impl Upload {
    /// Returns a body, and where what is unread of it is found when it is dropped.
    /// Its client `waits` to be asked for it where it says `Expect: 100-continue`.
    pub(crate) fn new(body: Incoming, waits: bool) -> (Self, Rest) {
        let rest = Rest(Arc::new(Mutex::new(State::InUse)));
        let upload = Self { body: Some(body), waits, pace: Pace::default(), rest: rest.clone() };
        (upload, rest)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        let unread = unread.map(|body| Unread { body, waits: self.waits });
        let mut state = self.rest.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*state, unread) {
            // Its request is answered.
            (State::Settled, Some(unread)) => drain_body::discard(unread),
            (State::Settled, None) => {}
            (_, unread) => *state = State::Dropped(unread),
        }
    }
}

/// What nobody reads of a body.
pub(crate) struct Unread {
    pub(crate) body: Incoming,
    /// Whether its client waits to be asked for it; reading asks.
    pub(crate) waits: bool,
}

/// What becomes of a body.
#[derive(Clone)]
pub(crate) struct Rest(Arc<Mutex<State>>);

enum State {
    InUse,
    /// Nothing is left in it where it was read to its end.
    Dropped(Option<Unread>),
    Settled,
}

/// How far a body was read when its request was answered.
pub(crate) enum Read {
    Whole,
    Part(Unread),
    /// Somebody still reads it; what is left over then is discarded.
    NotYet,
}

impl Rest {
    /// Takes what was not read. Called once, when the request is answered.
    pub(crate) fn take(self) -> Read {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Settled) {
            State::Dropped(Some(unread)) => Read::Part(unread),
            State::Dropped(None) => Read::Whole,
            State::InUse | State::Settled => Read::NotYet,
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            return self.pace.wait(cx).map(|slow| Some(Err(slow.into())));
        };
        if let Some(Ok(frame)) = &frame {
            self.pace.note(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

/// Whether a body comes fast enough. Only the time that its client is waited for counts.
#[derive(Default)]
struct Pace {
    /// Bytes since the clock was started.
    bytes: usize,
    /// Runs while more is waited for; made when that happens first.
    clock: Option<Pin<Box<Sleep>>>,
    is_running: bool,
}

impl Pace {
    fn note(&mut self, bytes: usize) {
        self.bytes += bytes;
        // Where the time was over and data was there, its reader was slow.
        let is_over = self.clock.as_ref().is_some_and(|clock| clock.is_elapsed());
        if self.bytes >= PROGRESS_BYTES || is_over {
            self.is_running = false;
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let until = Instant::now() + PROGRESS_TIME;
        let clock = self.clock.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if !std::mem::replace(&mut self.is_running, true) {
            self.bytes = 0;
            clock.as_mut().reset(until);
        }
        clock.as_mut().poll(cx).map(|()| TooSlow)
    }
}

/// Too little of a body came in too long a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, seconds) = (PROGRESS_BYTES / 1024, PROGRESS_TIME.as_secs());
        write!(f, "the request body did not arrive in time: fewer than {bytes} KiB in {seconds} s")
    }
}

impl std::error::Error for TooSlow {}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    async fn waits(pace: &mut Pace, seconds: u64) -> bool {
        let wait = poll_fn(|cx| pace.wait(cx));
        timeout(Duration::from_secs(seconds), wait).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn some_bytes_must_come_in_some_time() {
        let mut pace = Pace::default();
        for _ in 0..29 {
            assert!(waits(&mut pace, 1).await);
            pace.note(1);
        }
        assert!(!waits(&mut pace, 2).await, "a byte a second is no progress");

        let mut pace = Pace::default();
        for _ in 0..10 {
            assert!(waits(&mut pace, 25).await);
            pace.note(PROGRESS_BYTES);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_no_slow_client() {
        let mut pace = Pace::default();
        assert!(waits(&mut pace, 1).await);
        advance(Duration::from_secs(60)).await;
        pace.note(1);
        assert!(waits(&mut pace, 25).await);
    }
}
