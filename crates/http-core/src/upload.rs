//! The body of a client's request on its way in: it must make progress, and its unread rest is
//! returned.

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

/// The longest time in which a client sends the next [`PROGRESS_BYTES`] of a body, whatever the
/// time budget of its request: a program may allow a day.
const PROGRESS_TIME: Duration = Duration::from_secs(30);

const PROGRESS_BYTES: usize = 16 * 1024;

/// A body while it arrives. It fails if its client sends it too slowly.
#[derive(Debug)]
pub struct Upload {
    /// `None` once it is dropped.
    body: Option<Incoming>,
    /// Whether its client waits for `100 Continue`.
    waits: bool,
    pace: Pace,
    rest: UnreadRest,
}

impl Upload {
    /// Returns a body, and the place where its unread rest is put when it is dropped. The client
    /// `waits` if its request has `Expect: 100-continue`.
    pub fn new(body: Incoming, waits: bool) -> (Self, UnreadRest) {
        let rest = UnreadRest(Arc::new(Mutex::new(State::InUse)));
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
            // The response was sent.
            (State::Responded, Some(unread)) => drain_body::discard(unread),
            (State::Responded, None) => {}
            (_, unread) => *state = State::Dropped(unread),
        }
    }
}

/// The unread rest of a body.
#[derive(Debug)]
pub struct Unread {
    /// The body, from the first unread byte.
    pub body: Incoming,
    /// Whether its client waits for `100 Continue`, which reading sends.
    pub waits: bool,
}

/// The unread rest of a body, shared with the body.
#[derive(Debug, Clone)]
pub struct UnreadRest(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    InUse,
    /// The body was dropped; `None` if it was read to its end.
    Dropped(Option<Unread>),
    Responded,
}

/// The progress of a body at the time of the response.
#[derive(Debug)]
pub enum ReadProgress {
    /// The body was read to its end.
    Whole,
    /// A part is unread.
    Part(Unread),
    /// The body is still read; the rest is discarded afterwards.
    NotYet,
}

impl UnreadRest {
    /// Returns the unread rest. Called once, when the response is ready.
    pub fn take(self) -> ReadProgress {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Responded) {
            State::Dropped(Some(unread)) => ReadProgress::Part(unread),
            State::Dropped(None) => ReadProgress::Whole,
            State::InUse | State::Responded => ReadProgress::NotYet,
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

/// The pace of a body. Only the time in which the server waits for the client counts.
#[derive(Debug, Default)]
struct Pace {
    /// The number of bytes since the clock was started.
    bytes: usize,
    /// Runs while the server waits for data; created at the first wait.
    clock: Option<Pin<Box<Sleep>>>,
    is_running: bool,
}

impl Pace {
    fn note(&mut self, bytes: usize) {
        self.bytes += bytes;
        // If the clock had elapsed and data was there, the reader was slow.
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

/// Too few bytes of a body arrived in the time allowed.
#[derive(Debug, Clone, Copy)]
pub struct TooSlow;

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
    async fn a_body_must_make_progress() {
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
