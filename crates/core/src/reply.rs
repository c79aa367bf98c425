//! The reply of a job: exactly one answer, or a stream that visibly ends or breaks.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Identity, Items, JobTrace, Outcome, PartStream, Reservation, Response, ServeError, Trace,
};

/// The number of parts of a stream that may wait for a slow client before the sender blocks.
const STREAM_WINDOW: usize = 16;

/// The number of parts that may wait if the sender counts bytes itself; a bound for faulty senders.
const CREDITED_WINDOW: usize = 1 << 18;

/// Responses up to this size in bytes are not counted on their way to the edge.
const SMALL_BYTES: usize = 16 * 1024;

/// The answer to a job.
#[derive(Debug)]
pub enum Answer {
    /// One whole response.
    Whole(Response),
    /// The first items of a stream, and the receiver of the others.
    Stream(Items, StreamReceiver),
}

/// The caller's end of the channel; see [`reply`].
#[derive(Debug)]
pub struct Answers(oneshot::Receiver<Outcome<Answer>>);

impl Answers {
    /// Returns the answer; called once.
    ///
    /// # Errors
    /// The error that the job was answered with.
    pub async fn recv(&mut self) -> Outcome<Answer> {
        (&mut self.0).await.unwrap_or_else(|_| Err(ServeError::worker_lost()))
    }
}

/// The right and duty to answer one job. A reply that is dropped unanswered answers 502, so the loss
/// of a worker cannot strand its callers.
///
/// The trace of the job ends here, too: before the caller receives the answer.
#[derive(Debug)]
pub struct Reply {
    sender: Option<oneshot::Sender<Outcome<Answer>>>,
    trace: Option<Box<JobTrace>>,
    reservation: Reservation,
}

/// Returns the two ends of a job's reply channel.
pub fn reply() -> (Reply, Answers) {
    let (sender, receiver) = oneshot::channel();
    let reservation = Reservation::default();
    (Reply { sender: Some(sender), trace: None, reservation }, Answers(receiver))
}

impl Reply {
    /// Adds the trace of the request, if it is traced, for a job of this endpoint.
    #[must_use]
    pub fn traced(mut self, trace: Option<Arc<Trace>>, endpoint: &Arc<Identity>) -> Self {
        self.trace = trace.map(|trace| Box::new(JobTrace::new(trace, endpoint.clone())));
        self
    }

    /// Counts data that waits for the client in the budget of this reservation.
    #[must_use]
    pub fn reserving(mut self, reservation: Reservation) -> Self {
        self.reservation = reservation;
        self
    }

    /// Returns the trace of the job, if its request is traced.
    pub fn trace(&self) -> Option<&JobTrace> {
        self.trace.as_deref()
    }

    /// Returns the trace of the job for changes.
    pub fn trace_mut(&mut self) -> Option<&mut JobTrace> {
        self.trace.as_deref_mut()
    }

    /// Answers the job; with 503 if the budget has no room for a large response.
    pub fn send(mut self, outcome: Outcome<Response>) {
        let held = outcome.and_then(|response| self.hold(response));
        self.answer(held.map(Answer::Whole));
    }

    fn hold(&self, mut response: Response) -> Outcome<Response> {
        if response.body.len() > SMALL_BYTES {
            response.body = self.reservation.hold(std::mem::take(&mut response.body))?;
        }
        Ok(response)
    }

    /// Returns a sink that answers the job with a stream, as soon as the first part is sent. The
    /// sink blocks while the client reads more slowly than the model writes.
    pub fn into_stream(self) -> StreamSender {
        self.stream(STREAM_WINDOW, None)
    }

    /// Returns a sink as [`into_stream`](Self::into_stream) does, for a writer that does not block:
    /// `consumed` is called with the number of packed bytes that the client has taken, and the
    /// writer keeps to its credit.
    pub fn into_credited_stream(self, consumed: Consumed) -> StreamSender {
        self.stream(CREDITED_WINDOW, Some(consumed))
    }

    fn stream(self, window: usize, consumed: Option<Consumed>) -> StreamSender {
        let (sender, receiver) = mpsc::channel(window);
        let reservation = self.reservation.another();
        let receiver = StreamReceiver {
            parts: Source::Sender(receiver),
            consumed,
            reservation: reservation.clone(),
        };
        StreamSender { unstarted: Some((self, receiver)), sender, trace: None, reservation }
    }

    /// Returns whether the caller has left.
    pub fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn answer(&mut self, outcome: Outcome<Answer>) {
        self.trace = None;
        if let Some(sender) = self.sender.take() {
            // The caller may have left.
            let _ = sender.send(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Err(ServeError::worker_lost()));
    }
}

/// One step of a stream.
#[derive(Debug)]
pub enum Part {
    /// More items.
    Items(Items),
    /// The stream is complete.
    End,
    /// The stream broke, and the client must see the error.
    Failed(ServeError),
}

/// A callback with the number of packed bytes of a stream that its client has taken.
pub type Consumed = Box<dyn FnMut(usize) + Send>;

/// The source of a stream's parts.
enum Source {
    Sender(mpsc::Receiver<Part>),
    Other(Box<dyn PartStream>),
}

/// The receiving end of a stream.
pub struct StreamReceiver {
    parts: Source,
    consumed: Option<Consumed>,
    /// The bytes that wait in `parts`.
    reservation: Reservation,
}

impl fmt::Debug for StreamReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReceiver").finish_non_exhaustive()
    }
}

impl StreamReceiver {
    /// Returns a receiver of the parts of another stream, which counts the bytes that wait itself.
    pub fn relaying(rest: Box<dyn PartStream>) -> Self {
        let reservation = Reservation::default();
        Self { parts: Source::Other(rest), consumed: None, reservation }
    }

    /// Polls for the next part. A sender that vanished without [`Part::End`] is a failure.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        let part = match &mut self.parts {
            Source::Sender(parts) => ready!(parts.poll_recv(cx)),
            Source::Other(rest) => return rest.poll_part(cx),
        };
        if let Some(Part::Items(items)) = &part {
            self.note_consumed(items);
        }
        Poll::Ready(part.unwrap_or_else(|| Part::Failed(ServeError::worker_lost())))
    }

    fn note_consumed(&mut self, items: &Items) {
        self.reservation.shrink(items.packed_len());
        if let Some(consumed) = &mut self.consumed {
            consumed(items.packed_len());
        }
    }
}

/// The sending end of a stream, with bounded room: a slow client holds back its own stream only. If
/// the sender is dropped before [`Part::End`], the stream breaks visibly.
///
/// The first part answers the job, so an error that comes first has a status of its own.
#[derive(Debug)]
pub struct StreamSender {
    unstarted: Option<(Reply, StreamReceiver)>,
    sender: mpsc::Sender<Part>,
    trace: Option<Box<JobTrace>>,
    /// The bytes that wait for the client.
    reservation: Reservation,
}

/// The reason why a part was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The client has left.
    Abandoned,
    /// There is no room for the part.
    Full,
}

impl StreamSender {
    /// Sends a part from a thread outside the runtime, waiting for room.
    ///
    /// # Errors
    /// [`SendError::Abandoned`] if the client has left.
    pub fn blocking_send(&mut self, part: Part) -> Result<(), SendError> {
        self.reserve(&part)?;
        match self.start(part) {
            Some(part) => self.sender.blocking_send(part).map_err(|_| SendError::Abandoned),
            None => Ok(()),
        }
    }

    /// Sends a part if the client reads and there is room.
    ///
    /// # Errors
    /// See [`SendError`]; the part is lost.
    pub fn try_send(&mut self, part: Part) -> Result<(), SendError> {
        self.reserve(&part)?;
        match self.start(part).map(|part| self.sender.try_send(part)) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(SendError::Full),
            Some(Err(TrySendError::Closed(_))) => Err(SendError::Abandoned),
        }
    }

    /// Reserves the bytes of a part while it waits. Without room in the budget the stream fails.
    fn reserve(&mut self, part: &Part) -> Result<(), SendError> {
        let Part::Items(items) = part else { return Ok(()) };
        let Err(full) = self.reservation.grow(items.packed_len()) else { return Ok(()) };
        if let Some(failed) = self.start(Part::Failed(full)) {
            // Without room for the error, the stream breaks without one.
            let _ = self.sender.try_send(failed);
        }
        Err(SendError::Abandoned)
    }

    /// Returns whether the client has left.
    pub fn is_abandoned(&self) -> bool {
        match &self.unstarted {
            Some((reply, _)) => reply.is_abandoned(),
            None => self.sender.is_closed(),
        }
    }

    /// Returns the trace of the job, if its request is traced.
    pub fn trace_mut(&mut self) -> Option<&mut JobTrace> {
        match &mut self.unstarted {
            Some((reply, _)) => reply.trace_mut(),
            None => self.trace.as_deref_mut(),
        }
    }

    /// Returns the trace of the job, if its request is traced.
    pub fn trace(&self) -> Option<&JobTrace> {
        match &self.unstarted {
            Some((reply, _)) => reply.trace(),
            None => self.trace.as_deref(),
        }
    }

    /// Returns the memory of the bytes that wait for the client.
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Answers the job with the first part; gives back any later one.
    fn start(&mut self, part: Part) -> Option<Part> {
        let is_last = !matches!(part, Part::Items(_));
        let Some((mut reply, mut receiver)) = self.unstarted.take() else {
            if is_last {
                self.trace = None;
            }
            return Some(part);
        };
        self.trace = reply.trace.take().filter(|_| !is_last);
        match part {
            Part::Items(first) => {
                receiver.note_consumed(&first);
                reply.answer(Ok(Answer::Stream(first, receiver)));
                None
            }
            Part::End => {
                reply.answer(Ok(Answer::Stream(Items::empty(), receiver)));
                Some(Part::End)
            }
            Part::Failed(error) => {
                reply.answer(Err(error));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::{ItemsBuilder, MemoryBudget};

    fn items() -> Items {
        let mut builder = ItemsBuilder::json();
        builder.push_with(|out| serde_json::to_writer(out, &1)).unwrap();
        builder.finish()
    }

    async fn stream(answers: &mut Answers) -> StreamReceiver {
        match answers.recv().await {
            Ok(Answer::Stream(_, receiver)) => receiver,
            other => panic!("expected a stream, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_reply_that_is_dropped_answers_502() {
        let (reply, mut answers) = reply();
        drop(reply);
        assert_eq!(answers.recv().await.unwrap_err().status(), 502);
    }

    #[tokio::test]
    async fn an_error_before_the_first_item_has_its_own_status() {
        let (reply, mut answers) = reply();
        let failed = Part::Failed(ServeError::new(418, "no"));
        reply.into_stream().try_send(failed).unwrap();
        assert_eq!(answers.recv().await.unwrap_err().status(), 418);
    }

    #[tokio::test]
    async fn a_sender_dropped_before_the_end_breaks_the_stream() {
        let (reply, mut answers) = reply();
        let mut sender = reply.into_stream();
        sender.try_send(Part::Items(items())).unwrap();
        drop(sender);
        let mut receiver = stream(&mut answers).await;
        assert!(matches!(poll_fn(|cx| receiver.poll_part(cx)).await, Part::Failed(_)));
    }

    #[tokio::test]
    async fn a_slow_reader_holds_its_sender_back_and_a_gone_one_stops_it() {
        let (reply, mut answers) = reply();
        let mut sender = reply.into_stream();
        let mut sent = 0;
        while sender.try_send(Part::Items(items())) != Err(SendError::Full) {
            sent += 1;
        }
        assert_eq!(sent, STREAM_WINDOW + 1, "the first part travels in the answer");
        drop(stream(&mut answers).await);
        assert_eq!(sender.try_send(Part::End), Err(SendError::Abandoned));
    }

    #[tokio::test]
    async fn a_writer_that_does_not_wait_is_told_what_its_client_has_taken() {
        let (reply, mut answers) = reply();
        let (taken, mut told) = mpsc::unbounded_channel();
        let mut sender = reply.into_credited_stream(Box::new(move |bytes| {
            taken.send(bytes).unwrap();
        }));
        for _ in 0..3 {
            sender.try_send(Part::Items(items())).unwrap();
        }
        let mut receiver = stream(&mut answers).await;
        let bytes = items().packed_len();
        assert_eq!(told.try_recv(), Ok(bytes), "the first part travels in the answer");
        assert!(told.try_recv().is_err(), "the client has not asked for more yet");
        poll_fn(|cx| receiver.poll_part(cx)).await;
        assert_eq!(told.try_recv(), Ok(bytes));
    }

    #[tokio::test]
    async fn what_waits_for_a_client_is_counted() {
        let budget = MemoryBudget::new(20_000);
        let (answered, mut answers) = reply();
        answered.reserving(budget.reserve()).send(Ok(Response::json(vec![b'1'; 17_000])));
        let Ok(Answer::Whole(response)) = answers.recv().await else { panic!("an answer") };
        assert_eq!(budget.taken(), 17_000);
        let (refused, mut answers) = reply();
        refused.reserving(budget.reserve()).send(Ok(Response::json(vec![b'1'; 17_000])));
        assert_eq!(answers.recv().await.unwrap_err().status(), 503);
        drop(response);
        assert_eq!(budget.taken(), 0);

        let budget = MemoryBudget::new(2 * items().packed_len());
        let (streamed, mut answers) = reply();
        let mut sender = streamed.reserving(budget.reserve()).into_stream();
        for _ in 0..3 {
            sender.try_send(Part::Items(items())).unwrap();
        }
        assert_eq!(sender.try_send(Part::Items(items())), Err(SendError::Abandoned));
        let mut receiver = stream(&mut answers).await;
        for _ in 0..2 {
            assert!(matches!(poll_fn(|cx| receiver.poll_part(cx)).await, Part::Items(_)));
        }
        let last = poll_fn(|cx| receiver.poll_part(cx)).await;
        assert!(matches!(last, Part::Failed(error) if error.status() == 503));
        assert_eq!(budget.taken(), 0);
    }

    #[tokio::test]
    async fn a_stream_without_items_is_an_empty_stream() {
        let (reply, mut answers) = reply();
        reply.into_stream().try_send(Part::End).unwrap();
        let mut receiver = stream(&mut answers).await;
        assert!(matches!(poll_fn(|cx| receiver.poll_part(cx)).await, Part::End));
    }
}
