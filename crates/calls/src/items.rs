//! The items of a streamed response.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use litplex_core::{Items, Part, ServeError, StreamReceiver};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};

use crate::trial::{ObservedJob, is_failure};
use crate::{Call, StreamWatch, Target};

/// The items of a streamed response after the first. Each read gives the worker credit for more; a
/// drop before the end cancels the job.
pub struct ItemStream {
    // The order of the drops matters: the endpoint must find that the caller has left.
    parts: Option<StreamReceiver>,
    /// Present if the job is a call of its own.
    watch: Option<Box<StreamWatch>>,
    cancel: CancelOnDrop,
    timeout: Duration,
    /// When the last items arrived.
    last: Instant,
    /// Runs while a part is waited for.
    patience: Pin<Box<Sleep>>,
    is_waiting: bool,
    /// Present while a new generation is on trial.
    observed: Option<Box<ObservedJob>>,
}

impl fmt::Debug for ItemStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemStream").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl ItemStream {
    /// Returns the items after the first, between which no more than the target's `chunk_timeout`
    /// may pass. The time that the caller takes to read them does not count.
    pub(crate) fn new(
        first: &Items,
        parts: StreamReceiver,
        call: &Call,
        watch: Option<Box<StreamWatch>>,
        live: Option<watch::Sender<()>>,
        observed: Option<Box<ObservedJob>>,
    ) -> Self {
        let (target, last) = (call.target.clone(), Instant::now());
        let timeout = target.chunk_timeout;
        target.metrics.first_chunk(last - call.budget.arrived, first.iter().count());
        let cancel = CancelOnDrop { target, is_armed: true, live };
        let patience = Box::pin(sleep(timeout));
        let (parts, is_waiting) = (Some(parts), false);
        Self { parts, watch, cancel, timeout, last, patience, is_waiting, observed }
    }

    /// Polls for the next part; after the last one it returns [`Part::End`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        let Some(parts) = &mut self.parts else { return Poll::Ready(Part::End) };
        if let Some(watch) = &mut self.watch
            && let Poll::Ready(refusal) = watch.poll_refused(cx)
        {
            return Poll::Ready(self.fail(refusal.into()));
        }
        let part = parts.poll_part(cx);
        if let Some(watch) = &mut self.watch {
            watch.note(&part);
        }
        if let Poll::Ready(part) = part {
            self.is_waiting = false;
            if let Part::Items(items) = &part {
                let now = Instant::now();
                let gap = now - std::mem::replace(&mut self.last, now);
                self.cancel.target.metrics.next_chunk(gap, items.iter().count());
            } else {
                self.cancel.disarm();
                self.parts = None;
                self.report(match &part {
                    Part::Failed(error) => is_failure(error),
                    Part::Items(_) | Part::End => false,
                });
            }
            return Poll::Ready(part);
        }
        if !std::mem::replace(&mut self.is_waiting, true) {
            self.patience.as_mut().reset(Instant::now() + self.timeout);
        }
        ready!(self.patience.as_mut().poll(cx));
        Poll::Ready(self.fail(ServeError::deadline()))
    }

    /// Ends the stream, and its job.
    fn fail(&mut self, error: ServeError) -> Part {
        self.parts = None;
        self.cancel.cancel();
        self.report(is_failure(&error));
        Part::Failed(error)
    }

    fn report(&mut self, has_failed: bool) {
        if let Some(mut observed) = self.observed.take() {
            observed.end(has_failed);
        }
    }
}

/// A guard that tells the endpoint on drop that the caller has left, unless it is disarmed.
#[derive(Debug)]
struct CancelOnDrop {
    target: Arc<Target>,
    is_armed: bool,
    /// Closes with the caller, which the model may watch.
    live: Option<watch::Sender<()>>,
}

impl CancelOnDrop {
    fn disarm(&mut self) {
        self.is_armed = false;
    }

    fn cancel(&mut self) {
        self.live = None;
        if std::mem::take(&mut self.is_armed) {
            self.target.caller_left();
        }
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.cancel();
    }
}
