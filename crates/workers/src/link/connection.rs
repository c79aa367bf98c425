//! The data connection of a worker, which owns the jobs that the worker holds.
//!
//! It writes requests, reads responses, and reports a worker that computes for too long. It runs
//! over any byte stream: the launch that made the stream starts and ends the worker.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use litplex_core::{
    Cause, Done, ItemKind, Items, Job, MediaType, Part, Progress, Response, ServeError, Unanswered,
    WorkerExit,
};
use litplex_metrics::StageTimes;
use litplex_wire::{Decoder, EndMeta, Frame, FrameError, Kind, RequestContent, ResponseMeta};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use tracing::Span;

use super::calls::{ParentQuery, WorkerCalls};
use super::in_flight::{InFlight, Overrun, SharedPatience};
use super::outbox::Outbox;
use super::pulse::Pulse;
use super::{Transport, from_meta};

/// The room for one read, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// The time between two jobs whose stages are measured.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// A command of the scheduler to a worker.
pub(crate) enum Command {
    Jobs(Vec<Job>),
    CancelAbandoned,
    /// The step of a change of the code that stops the worker after the jobs before it.
    Hold(Frame),
}

/// The way in which a worker computes jobs, and the times that it has.
#[derive(Debug, Clone)]
pub(crate) struct DispatchMode {
    /// Whether the jobs of one dispatch are a batch.
    pub(crate) batches: bool,
    /// Whether the worker answers one batch before it begins the next, so that it can have begun only
    /// the first batch that it holds.
    pub(crate) in_order: bool,
    /// Whether the worker computes several batches, or single jobs, at a time.
    pub(crate) several: bool,
    /// The time that the worker may compute.
    pub(crate) patience: SharedPatience,
    /// The further time before the worker is ended; `None` for no limit.
    pub(crate) kill_after: Option<Duration>,
}

impl DispatchMode {
    /// The time between two checks of the interpreter, if the worker may compute without a limit.
    const LOOK: Duration = Duration::from_secs(1);
}

/// The time between two checks whether clients still wait for the jobs of a dismissed worker.
const LOOK_WHILE_STOPPING: Duration = Duration::from_millis(100);

/// The time after which the log says what a dismissed worker is waited for.
pub(crate) const REPORT_AFTER: Duration = Duration::from_secs(1);

/// The calls that the hooks of a worker make.
pub(crate) struct CallSource {
    pub(crate) worker: Arc<WorkerCalls>,
    /// Bounded by the calls in flight.
    pub(crate) queries: mpsc::UnboundedReceiver<ParentQuery>,
    /// Whether some hook has called: until then nothing can wait for what the worker holds.
    pub(crate) has_called: bool,
}

/// The data connection of one worker.
pub(crate) struct Connection<S> {
    /// The span of the worker, the parent of the connection's events. It is not entered: that
    /// would cost at each poll.
    span: Span,
    stream: S,
    commands: mpsc::UnboundedReceiver<Command>,
    callers: CallSource,
    /// When the queue dismissed the worker: it sends no more commands.
    dismissed: Option<Instant>,
    /// Whether the log has said what the worker is waited for.
    has_logged_wait: bool,
    pulse: Pulse,
    progress: Arc<dyn Progress>,
    mode: DispatchMode,
    in_flight: InFlight,
    outbox: Outbox,
    decoder: Decoder,
    buffer: BytesMut,
    /// The time of the next check whether the worker is stuck.
    look_at: Option<Instant>,
    /// Sleeps until `look_at`; reused, because a new timer for every event shows in the throughput.
    alarm: Pin<Box<Sleep>>,
    stage_times: StageTimes,
    /// The time from which the stages of the next job are measured.
    sample_at: Instant,
    /// The jobs that were answered since the last report to the scheduler.
    finished: Done,
}

/// An event of a connection.
enum Event {
    Command(Command),
    /// The number of bytes that were read; 0 at the end of the stream.
    Read(usize),
    LookAfter,
    Parent(ParentQuery),
    Dismissed,
}

/// Writes what the stream takes now, and reads what it has. It always reads while it writes, so
/// that two full sockets cannot wait for each other. The worker may have sent responses before it closed
/// the stream: after a write that finds it closed, they are read, and the end of the stream after them.
pub(super) fn poll_stream<S: Transport>(
    stream: &mut S,
    outbox: &mut Outbox,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let sent = outbox.poll_send(stream, cx);
    buffer.reserve(READ_BYTES);
    // This future has no state of its own: a new one continues where the last one was.
    let read = pin!(stream.read_buf(buffer)).poll(cx);
    match (sent, read) {
        (Poll::Ready(Err(error)), Poll::Pending) if !is_closed(&error) => Poll::Ready(Err(error)),
        (_, read) => read,
    }
}

/// Returns whether a write failed because the other end has closed the stream.
fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl<S: Transport> Connection<S> {
    pub(crate) fn new(
        span: Span,
        stream: S,
        (commands, callers): (mpsc::UnboundedReceiver<Command>, CallSource),
        (pulse, control): (Pulse, mpsc::UnboundedSender<Frame>),
        progress: Arc<dyn Progress>,
        mode: DispatchMode,
        stage_times: StageTimes,
    ) -> Self {
        Self {
            span,
            stream,
            commands,
            callers,
            dismissed: None,
            has_logged_wait: false,
            pulse,
            progress,
            mode,
            in_flight: InFlight::new(control),
            outbox: Outbox::default(),
            decoder: Decoder::default(),
            buffer: BytesMut::new(),
            look_at: None,
            alarm: Box::pin(sleep(Duration::ZERO)),
            stage_times,
            sample_at: Instant::now(),
            finished: Done::default(),
        }
    }

    /// Runs until the worker is gone or dismissed, and returns its fault, if it has one. The jobs that
    /// the worker still holds return to the queue.
    pub(crate) async fn run(mut self) -> Option<WorkerExit> {
        let fault = loop {
            if self.dismissed.is_some() && self.in_flight.is_empty() {
                break None;
            }
            let event = match self.next_event().await {
                Ok(event) => event,
                Err(_) => break None,
            };
            match self.handle_event(event) {
                Ok(()) => {}
                Err(Lost::Closed | Lost::Socket) => break None,
                Err(Lost::Protocol(error)) => {
                    let reason = format!("it broke the protocol: {error}");
                    break Some(WorkerExit::new(Cause::Protocol, reason));
                }
                Err(Lost::Stuck) => break Some(self.stuck()),
            }
            self.report();
        };
        self.report();
        self.commands.close();
        self.log_loss();
        let mut unanswered = self.in_flight.give_back(self.mode.in_order);
        unanswered.extend(self.undelivered());
        let calls = unanswered.iter().filter_map(|it| it.job.origin.as_ref()?.call);
        calls.for_each(|call| self.callers.worker.requeued(call));
        self.progress.gone(unanswered);
        fault
    }

    async fn next_event(&mut self) -> io::Result<Event> {
        let Self { stream, outbox, buffer, commands, callers, alarm, .. } = self;
        // The order matters: all commands that wait go out in one write, and a worker that never
        // stops sending delays neither a command nor the end of a job's time.
        tokio::select! {
            biased;
            () = alarm, if self.look_at.is_some() => Ok(Event::LookAfter),
            command = commands.recv(), if self.dismissed.is_none() => {
                Ok(command.map_or(Event::Dismissed, Event::Command))
            }
            Some(query) = callers.queries.recv() => Ok(Event::Parent(query)),
            read = poll_fn(|cx| poll_stream(stream, outbox, buffer, cx)) => read.map(Event::Read),
        }
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Lost> {
        match event {
            Event::Command(command) => {
                self.handle_command(command);
                while let Ok(command) = self.commands.try_recv() {
                    self.handle_command(command);
                }
                Ok(())
            }
            Event::Read(0) => Err(Lost::Closed),
            Event::Read(_) => self.take_frames(),
            Event::LookAfter => self.look_after(),
            Event::Parent(query) => {
                self.inherit(query);
                Ok(())
            }
            Event::Dismissed => {
                self.dismissed = Some(Instant::now());
                self.set_alarm();
                Ok(())
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Jobs(jobs) => self.accept(jobs),
            Command::CancelAbandoned => {
                self.in_flight.cancel_abandoned(Instant::now());
            }
            Command::Hold(frame) => self.outbox.push_frame(&frame),
        }
    }

    fn accept(&mut self, jobs: Vec<Job>) {
        let DispatchMode { batches, .. } = self.mode;
        let mut left = jobs.len();
        let now = Instant::now();
        let mut is_sample = self.is_time_for_sample(now);
        if batches {
            self.in_flight.begin_batch();
        }
        for job in jobs {
            if !batches {
                self.in_flight.begin_batch();
            }
            left -= 1;
            let stages = std::mem::take(&mut is_sample) || job.is_traced();
            let (id, more) = (self.in_flight.next_id(), batches && left > 0);
            self.outbox.push_request(id, more, stages, &job);
            if let Some(call) = job.origin.as_ref().and_then(|origin| origin.call)
                && self.callers.has_called
            {
                self.callers.worker.held(call, id);
            }
            self.in_flight.add(job, now);
        }
        if self.look_at.is_none() {
            self.set_alarm();
        }
    }

    /// Answers what the jobs of a hook hand down to a call.
    fn inherit(&mut self, ParentQuery { items, answer }: ParentQuery) {
        if !std::mem::replace(&mut self.callers.has_called, true) {
            self.progress.calls();
            let worker = &self.callers.worker;
            self.in_flight.calls().for_each(|(call, item)| worker.held(call, item));
        }
        let part = self.mode.patience.get().part;
        let name = &self.callers.worker.name;
        let _ = answer.send(self.in_flight.parent(&items, name, part, Instant::now()));
    }

    /// Returns whether the stages of the next job are measured. A slow model measures each job; for a
    /// fast one the cost must not show.
    fn is_time_for_sample(&mut self, now: Instant) -> bool {
        let is_time = now >= self.sample_at;
        if is_time {
            self.sample_at = now + SAMPLE_EVERY;
        }
        is_time
    }

    fn set_alarm(&mut self) {
        let now = Instant::now();
        let due = self.ends_at(now).map(|at| match self.mode.kill_after {
            None if !self.pulse.is_silent() => at.max(now + DispatchMode::LOOK),
            _ => at,
        });
        let look = self.dismissed.map(|_| now + LOOK_WHILE_STOPPING);
        self.look_at = [due, look].into_iter().flatten().min();
        if let Some(at) = self.look_at {
            self.alarm.as_mut().reset(at);
        }
    }

    /// Returns the time at which the worker is ended, if it still computes its oldest job then.
    fn ends_at(&self, now: Instant) -> Option<Instant> {
        let DispatchMode { kill_after, several, .. } = self.mode;
        let patience = self.mode.patience.get();
        let due = self.in_flight.due(patience, several, now)? + kill_after.unwrap_or_default();
        // A worker that was dismissed is needed by no other job.
        let given_up = self.dismissed.and_then(|_| self.in_flight.given_up_since());
        Some(given_up.zip(kill_after).map_or(due, |(since, grace)| due.min(since + grace)))
    }

    /// Checks the oldest job of the worker.
    fn look_after(&mut self) -> Result<(), Lost> {
        let now = Instant::now();
        if let Some(since) = self.dismissed {
            self.in_flight.cancel_abandoned(now);
            if now >= since + REPORT_AFTER && !std::mem::replace(&mut self.has_logged_wait, true) {
                self.log_wait();
            }
        }
        let may_end = self.mode.kill_after.is_some() || self.pulse.is_silent();
        if may_end && self.ends_at(now).is_some_and(|at| at <= now) {
            return Err(Lost::Stuck);
        }
        self.set_alarm();
        Ok(())
    }

    /// Logs which requests the worker held when it was lost.
    fn log_loss(&self) {
        if !self.in_flight.is_empty() {
            let request_id = self.in_flight.request_names();
            tracing::warn!(parent: &self.span, request_id, "lost with {}", self.held());
        }
    }

    /// Returns the number of requests that the worker holds, in words.
    fn held(&self) -> String {
        let jobs = self.in_flight.len();
        format!("{jobs} {}", if jobs == 1 { "request" } else { "requests" })
    }

    fn log_wait(&self) {
        let (jobs, held) = (self.in_flight.len(), self.held());
        let given_up = match self.in_flight.cancelled() {
            0 => String::new(),
            all if all == jobs => ", which no client waits for".into(),
            some => format!(", {some} of which no client waits for"),
        };
        let request_id = self.in_flight.request_names();
        tracing::info!(parent: &self.span, request_id, "waiting: it computes {held}{given_up}");
    }

    /// Returns the reason why the worker is ended.
    fn stuck(&self) -> WorkerExit {
        let DispatchMode { kill_after, .. } = self.mode;
        let limit = self.mode.patience.get().answer.as_secs_f64();
        let Some(grace) = kill_after.map(|grace| grace.as_secs_f64()) else {
            let reason = format!(
                "it hangs: its interpreter is silent, and a request took more than {limit} s \
                 (`timeout`)"
            );
            return WorkerExit::new(Cause::Hang, reason);
        };
        if self.pulse.is_silent() {
            let reason = format!(
                "it hangs: its interpreter is silent, and a request took more than {limit} s \
                 (`timeout`) and {grace} s (`kill_after`)"
            );
            return WorkerExit::new(Cause::Hang, reason);
        }
        let reason = match self.dismissed.and_then(|_| self.in_flight.given_up_since()) {
            Some(_) => format!(
                "it went on computing past the time of its request, which no client waits for \
                 (`kill_after` is {grace} s)"
            ),
            None => format!(
                "it went on computing past the time of its request (`timeout` is {limit} s, \
                 `kill_after` {grace} s)"
            ),
        };
        WorkerExit::new(Cause::Overrun, reason)
    }

    fn take_frames(&mut self) -> Result<(), Lost> {
        let mut is_first = true;
        while let Some(frame) = self.decoder.decode(&mut self.buffer)? {
            if std::mem::take(&mut is_first) {
                self.in_flight.move_on(Instant::now());
            }
            self.take(frame)?;
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame) -> Result<(), Lost> {
        let id = frame.id;
        if !self.in_flight.contains(id) {
            return Ok(());
        }
        if let Some(call) = self.in_flight.call(id) {
            self.callers.worker.answered(call, frame.kind != Kind::Chunk);
        }
        let is_cancelled = self.in_flight.is_cancelled(id);
        let is_last = match frame.kind {
            Kind::Response => {
                let (response, stages) = response(frame)?;
                self.note_stages(id, &stages);
                self.in_flight.answer(id, response);
                true
            }
            Kind::Chunk => self.in_flight.pass_on(id, Part::Items(items(&frame)?))?,
            Kind::End => self.end(frame)?,
            unexpected => return Err(FrameError::Unexpected(unexpected).into()),
        };
        self.finished.jobs += usize::from(is_last);
        self.finished.cut_short += usize::from(is_last && is_cancelled);
        Ok(())
    }

    /// Handles the end of a stream, and returns whether it ends the job. An error before the first item
    /// is the whole answer.
    fn end(&mut self, frame: Frame) -> Result<bool, Lost> {
        let (id, status) = (frame.id, frame.status);
        let (meta, body) = frame.into_meta_and_body()?;
        let meta = meta.map(|meta| from_meta(&meta)).transpose()?;
        let EndMeta { headers, stages } = meta.unwrap_or_default();
        self.note_stages(id, &stages);
        if status == 0 {
            return Ok(self.in_flight.pass_on(id, Part::End)?);
        }
        if self.in_flight.has_begun(id) {
            let error = stream_error(status, &body);
            return Ok(self.in_flight.pass_on(id, Part::Failed(error))?);
        }
        let media_type = MediaType::Json;
        self.in_flight.answer(id, Response { status, media_type, headers, body });
        Ok(true)
    }

    fn note_stages(&mut self, id: u64, seconds: &[f64]) {
        if !seconds.is_empty() {
            self.stage_times.observe(seconds);
            self.in_flight.record_stages(id, seconds);
        }
    }

    /// Reports changes to the scheduler and to the control connection.
    fn report(&mut self) {
        self.pulse.set_load(self.in_flight.len(), self.in_flight.bytes());
        let abandoned = self.in_flight.take_newly_cancelled();
        if abandoned > 0 {
            self.progress.abandoned(abandoned);
        }
        if self.finished.jobs > 0 {
            self.progress.finished(std::mem::take(&mut self.finished));
        }
    }

    /// Returns the jobs of commands that came too late.
    fn undelivered(&mut self) -> Vec<Unanswered> {
        let mut jobs = Vec::new();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Jobs(more) = command {
                jobs.extend(more.into_iter().map(Unanswered::unstarted));
            }
        }
        jobs
    }
}

/// Returns the response, and the times of its stages in seconds, if the frame has them.
fn response(frame: Frame) -> Result<(Response, Vec<f64>), FrameError> {
    let status = frame.status;
    let (meta, body) = frame.into_meta_and_body()?;
    let Some(meta) = meta else {
        let (media_type, headers) = (MediaType::Json, Vec::new());
        return Ok((Response { status, media_type, headers, body }, Vec::new()));
    };
    let ResponseMeta { media_type, headers, stages, content, .. } = from_meta(&meta)?;
    let media_type = match (media_type, content) {
        (_, Some(RequestContent::Packed(parts))) => MediaType::Packed(Arc::new(parts)),
        (Some(name), _) => MediaType::Other(name),
        (None, _) => MediaType::Json,
    };
    Ok((Response { status, media_type, headers, body }, stages))
}

fn items(frame: &Frame) -> Result<Items, FrameError> {
    let kind = match frame.status {
        0 => ItemKind::Json,
        1 => ItemKind::Text,
        2 => ItemKind::Bytes,
        _ => return Err(FrameError::Message),
    };
    Items::from_packed(kind, frame.payload.clone()).ok_or(FrameError::Message)
}

/// Returns the error at the end of a stream. Its payload is `{"detail": …}`, as in a response.
pub(super) fn stream_error(status: u16, payload: &[u8]) -> ServeError {
    #[derive(serde::Deserialize)]
    struct Body {
        detail: Box<serde_json::value::RawValue>,
    }
    let detail: String = match serde_json::from_slice::<Body>(payload).map(|body| body.detail) {
        // A detail that is not a text is kept as it was written.
        Ok(detail) => serde_json::from_str(detail.get()).unwrap_or_else(|_| detail.get().into()),
        Err(_) => "Internal server error".into(),
    };
    ServeError::new(status, detail)
}

/// The reason why a worker is lost.
#[derive(Debug)]
enum Lost {
    Closed,
    Socket,
    Protocol(String),
    Stuck,
}

impl From<io::Error> for Lost {
    fn from(_: io::Error) -> Self {
        Self::Socket
    }
}

impl From<FrameError> for Lost {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<Overrun> for Lost {
    fn from(_: Overrun) -> Self {
        Self::Protocol("a stream sent more than it was given credit for".into())
    }
}

#[cfg(test)]
mod tests;
