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
use litplex_wire::{Decoder, EndMeta, Frame, FrameError, Kind, ResponseMeta};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use tracing::Span;

use super::Transport;
use super::in_flight::{InFlight, Overrun, Patience};
use super::outbox::Outbox;
use super::pulse::Pulse;

/// The room for one read, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// The time between two jobs whose stages are measured.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// A command of the scheduler to a worker.
pub(crate) enum Command {
    Jobs(Vec<Job>),
    CancelAbandoned,
}

/// The way in which a worker computes jobs, and the times that it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatchMode {
    /// Whether the jobs of one dispatch are a batch.
    pub(crate) batches: bool,
    /// Whether the worker answers one batch before it begins the next, so that it can have begun only
    /// the first batch that it holds.
    pub(crate) in_order: bool,
    /// Whether the worker computes several batches, or single jobs, at a time.
    pub(crate) several: bool,
    /// The time that the worker may compute.
    pub(crate) patience: Patience,
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

/// The data connection of one worker.
pub(crate) struct Connection<S> {
    /// The span of the worker, the parent of the connection's events. It is not entered: that
    /// would cost at each poll.
    span: Span,
    stream: S,
    commands: mpsc::UnboundedReceiver<Command>,
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
    Dismissed,
}

/// Writes what the stream takes now, and reads what it has. It always reads while it writes, so
/// that two full sockets cannot wait for each other. The worker may have sent responses before it closed
/// the stream: after a write that finds it closed, they are read, and the end of the stream after them.
fn poll_stream<S: Transport>(
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
        commands: mpsc::UnboundedReceiver<Command>,
        (pulse, control): (Pulse, mpsc::UnboundedSender<Frame>),
        progress: Arc<dyn Progress>,
        mode: DispatchMode,
        stage_times: StageTimes,
    ) -> Self {
        Self {
            span,
            stream,
            commands,
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
        let mut unanswered = self.in_flight.give_back(self.mode.in_order);
        unanswered.extend(self.undelivered());
        self.progress.gone(unanswered);
        fault
    }

    async fn next_event(&mut self) -> io::Result<Event> {
        let Self { stream, outbox, buffer, commands, alarm, .. } = self;
        // The order matters: all commands that wait go out in one write, and a worker that never
        // stops sending delays neither a command nor the end of a job's time.
        tokio::select! {
            biased;
            () = alarm, if self.look_at.is_some() => Ok(Event::LookAfter),
            command = commands.recv(), if self.dismissed.is_none() => {
                Ok(command.map_or(Event::Dismissed, Event::Command))
            }
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
            self.in_flight.add(job, now);
        }
        if self.look_at.is_none() {
            self.set_alarm();
        }
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
        let DispatchMode { patience, kill_after, several, .. } = self.mode;
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

    fn log_wait(&self) {
        let jobs = self.in_flight.len();
        let requests = if jobs == 1 { "request" } else { "requests" };
        let given_up = match self.in_flight.cancelled() {
            0 => String::new(),
            all if all == jobs => ", which no client waits for".into(),
            some => format!(", {some} of which no client waits for"),
        };
        tracing::info!(parent: &self.span, "waiting: it computes {jobs} {requests}{given_up}");
    }

    /// Returns the reason why the worker is ended.
    fn stuck(&self) -> WorkerExit {
        let DispatchMode { patience, kill_after, .. } = self.mode;
        let limit = patience.answer.as_secs_f64();
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
    let ResponseMeta { media_type, headers, stages } = from_meta(&meta)?;
    let media_type = media_type.map_or(MediaType::Json, MediaType::Other);
    Ok((Response { status, media_type, headers, body }, stages))
}

fn from_meta<T: serde::de::DeserializeOwned>(meta: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(meta).map_err(|_| FrameError::Message)
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
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use litplex_core::{Answer, Answers, Outcome, Request, reply};
    use litplex_wire::{Flags, Header};
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::super::handshake::read_frame;
    use super::super::in_flight::STREAM_CREDIT;
    use super::*;

    #[derive(Default)]
    struct Seen {
        done: Mutex<Done>,
        abandoned: Mutex<usize>,
        unanswered: Mutex<Vec<Unanswered>>,
    }

    impl Progress for Seen {
        fn finished(&self, done: Done) {
            let mut all = self.done.lock().unwrap();
            all.jobs += done.jobs;
            all.cut_short += done.cut_short;
        }
        fn abandoned(&self, jobs: usize) {
            *self.abandoned.lock().unwrap() += jobs;
        }
        fn retiring(&self) {}
        fn gone(&self, unanswered: Vec<Unanswered>) {
            *self.unanswered.lock().unwrap() = unanswered;
        }
    }

    impl Seen {
        /// For each job that came back, whether the worker may have begun it.
        fn started(&self) -> Vec<bool> {
            self.unanswered.lock().unwrap().iter().map(|unanswered| unanswered.started).collect()
        }
    }

    /// A connection whose worker is the test.
    struct Fixture {
        worker: DuplexStream,
        commands: mpsc::UnboundedSender<Command>,
        control: mpsc::UnboundedReceiver<Frame>,
        progress: Arc<Seen>,
        pulse: Pulse,
        ended: tokio::task::JoinHandle<Option<WorkerExit>>,
    }

    fn fixture(batches: bool) -> Fixture {
        let (ours, worker) = duplex(64 * 1024);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (to_worker, control) = mpsc::unbounded_channel();
        let progress = Arc::new(Seen::default());
        let kill_after = Some(Duration::from_secs(10));
        let half_a_minute = Duration::from_secs(30);
        let patience = Patience { answer: half_a_minute, part: half_a_minute };
        let mode =
            DispatchMode { batches, in_order: batches, several: false, patience, kill_after };
        let stages = litplex_metrics::Metrics::new().stages("/test");
        let pulse = Pulse::default();
        let (ends, seen) = ((pulse.clone(), to_worker), progress.clone());
        let connection = Connection::new(Span::none(), ours, inbox, ends, seen, mode, stages);
        let ended = tokio::spawn(connection.run());
        Fixture { worker, commands, control, progress, pulse, ended }
    }

    impl Fixture {
        fn dispatch<const N: usize>(&self, bodies: [Bytes; N]) -> [Answers; N] {
            self.dispatch_for(Duration::from_secs(30), bodies)
        }

        fn dispatch_for<const N: usize>(
            &self,
            budget: Duration,
            bodies: [Bytes; N],
        ) -> [Answers; N] {
            let (mut jobs, mut waiting) = (Vec::new(), Vec::new());
            for body in bodies {
                let (reply, answers) = reply();
                let arrived = Instant::now();
                let deadline = arrived + budget;
                jobs.push(Job::new(Request::json(body), arrived, deadline, reply));
                waiting.push(answers);
            }
            self.commands.send(Command::Jobs(jobs)).unwrap();
            waiting.try_into().unwrap()
        }

        async fn say(&mut self, kind: Kind, id: u64, status: u16, payload: &[u8]) {
            self.worker.write_all(&said(kind, id, status, payload)).await.unwrap();
        }
    }

    fn said(kind: Kind, id: u64, status: u16, payload: &[u8]) -> BytesMut {
        let length = payload.len() as u32;
        let mut bytes = BytesMut::new();
        Header { kind, flags: Flags::NONE, status, id, length }.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        bytes
    }

    async fn whole(mut answers: Answers) -> Outcome<Bytes> {
        match answers.recv().await? {
            Answer::Whole(response) => Ok(response.body),
            Answer::Stream(..) => panic!("not a stream"),
        }
    }

    const BODY: Bytes = Bytes::from_static(b"1");
    const ITEM: &[u8] = b"\x01\0\0\0x";

    #[tokio::test]
    async fn answers_find_their_callers_in_any_order() {
        let mut fixture = fixture(false);
        let [first, second] = fixture.dispatch([BODY, Bytes::from_static(b"2")]);
        // One read may bring both: the second frame is read by hand.
        let mut decoder = Decoder::default();
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        while frames.len() < 2 {
            fixture.worker.read_buf(&mut buffer).await.unwrap();
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        fixture.say(Kind::Response, frames[1].id, 200, b"b").await;
        fixture.say(Kind::Response, frames[0].id, 200, b"a").await;
        assert_eq!(
            (whole(first).await.unwrap(), whole(second).await.unwrap()),
            ("a".into(), "b".into())
        );
        assert_eq!(fixture.progress.done.lock().unwrap().jobs, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_is_read_after_a_write_that_fails() {
        let mut fixture = fixture(false);
        let [first] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        // More than the stream holds, so that a part of it waits when the worker ends.
        let [second] = fixture.dispatch([Bytes::from(vec![b' '; 256 * 1024])]);
        tokio::task::yield_now().await;
        fixture.say(Kind::Response, frame.id, 200, b"a").await;
        drop(fixture.worker);
        let answered = timeout(Duration::from_secs(1), whole(first)).await;
        assert_eq!(answered.expect("the response is lost").unwrap(), "a");
        assert!(fixture.ended.await.unwrap().is_none());
        assert_eq!(fixture.progress.unanswered.lock().unwrap().len(), 1);
        drop(second);
    }

    #[tokio::test]
    async fn an_answer_without_a_job_is_dropped() {
        let mut fixture = fixture(false);
        let [answers] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        let other_generation = frame.id + (1 << 32);
        fixture.say(Kind::Response, other_generation, 200, b"stale").await;
        fixture.say(Kind::Response, frame.id + 1, 200, b"unknown").await;
        fixture.say(Kind::Response, frame.id, 200, b"right").await;
        assert_eq!(whole(answers).await.unwrap(), "right");
    }

    #[tokio::test]
    async fn a_worker_that_hangs_up_gives_back_what_it_had() {
        let mut fixture = fixture(true);
        let _first = fixture.dispatch([BODY, BODY]);
        let _second = fixture.dispatch([BODY]);
        read_frame(&mut fixture.worker).await.unwrap();
        drop(fixture.worker);
        assert_eq!(fixture.ended.await.unwrap(), None, "its process says why");
        assert_eq!(
            fixture.progress.started(),
            [true, true, false],
            "the second batch is untouched"
        );
    }

    #[tokio::test]
    async fn a_worker_that_is_let_go_answers_what_it_has() {
        let mut fixture = fixture(false);
        let [answers] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        drop(fixture.commands);
        fixture.worker.write_all(&said(Kind::Response, frame.id, 200, b"last")).await.unwrap();
        assert_eq!(whole(answers).await.unwrap(), "last");
        assert_eq!(fixture.ended.await.unwrap(), None);
        assert!(fixture.progress.started().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_computes_long_past_the_deadline_is_stuck() {
        let mut fixture = fixture(false);
        let [answers] = fixture.dispatch([BODY]);
        read_frame(&mut fixture.worker).await.unwrap();
        drop(answers);
        let start = Instant::now();
        assert!(fixture.ended.await.unwrap().unwrap().reason.contains("past the time"));
        assert_eq!(start.elapsed().as_secs(), 40, "30 s of its budget and 10 s of grace");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_no_time_costs_the_worker_nothing() {
        let mut fixture = fixture(true);
        let [hurried, _patient] = fixture.dispatch_for(Duration::from_millis(1), [BODY, BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(hurried);
        fixture.commands.send(Command::CancelAbandoned).unwrap();
        tokio::time::sleep(Duration::from_secs(38)).await;
        assert!(!fixture.ended.is_finished());
        fixture.say(Kind::Response, frame.id, 499, b"").await;
        fixture.say(Kind::Response, frame.id + (1 << 32) + 1, 200, b"late").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!fixture.ended.is_finished(), "it has nothing to do");
        assert_eq!(*fixture.progress.done.lock().unwrap(), Done { jobs: 2, cut_short: 1 });
        assert_eq!(*fixture.progress.abandoned.lock().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_waited_in_the_worker_has_its_own_time() {
        let mut fixture = fixture(false);
        let _answers = fixture.dispatch([BODY, BODY]);
        let start = Instant::now();
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        tokio::time::sleep(Duration::from_secs(25)).await;
        fixture.say(Kind::Response, frame.id, 200, b"1").await;
        assert!(fixture.ended.await.unwrap().is_some());
        assert_eq!(start.elapsed().as_secs(), 65, "25 s of the first, and 40 s of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_client_left_has_the_time_of_a_part() {
        let mut fixture = fixture(false);
        let [mut answers] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        fixture.say(Kind::Chunk, frame.id, 1, ITEM).await;
        let start = Instant::now();
        drop(answers.recv().await);
        fixture.commands.send(Command::CancelAbandoned).unwrap();
        assert!(fixture.ended.await.unwrap().is_some());
        assert_eq!(start.elapsed().as_secs(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_waits_for_its_client_is_not_stuck() {
        let mut fixture = fixture(false);
        let [mut answers] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        let item = [&(STREAM_CREDIT as u32).to_le_bytes()[..], &vec![7; STREAM_CREDIT]].concat();
        fixture.say(Kind::Chunk, frame.id, 2, &item).await;
        let Ok(Answer::Stream(_, mut rest)) = answers.recv().await else { panic!("not a stream") };
        // The first item is taken with the answer.
        fixture.say(Kind::Chunk, frame.id, 2, &item).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(!fixture.ended.is_finished());
        std::future::poll_fn(|cx| rest.poll_part(cx)).await;
        let start = Instant::now();
        assert!(fixture.ended.await.unwrap().is_some(), "it had credit and sent nothing");
        assert!((35..=75).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_interpreter_that_overruns_hangs() {
        let mut fixture = fixture(false);
        let [_answers] = fixture.dispatch([BODY]);
        read_frame(&mut fixture.worker).await.unwrap();
        fixture.pulse.set_unanswered(9);
        let fault = fixture.ended.await.unwrap().unwrap();
        assert_eq!(fault.cause, Cause::Hang);
        assert!(fault.reason.contains("30 s (`timeout`) and 10 s (`kill_after`)"), "{fault}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_without_a_client_is_ended_early_while_the_server_stops() {
        let mut fixture = fixture(false);
        let [given_up] = fixture.dispatch([BODY]);
        read_frame(&mut fixture.worker).await.unwrap();
        drop(given_up);
        let start = Instant::now();
        drop(fixture.commands);
        let fault = fixture.ended.await.unwrap().unwrap();
        assert!(
            fault.reason.contains("which no client waits for (`kill_after` is 10 s)"),
            "{fault}"
        );
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn a_worker_that_breaks_the_protocol_is_dropped_with_a_reason() {
        let mut fixture = fixture(false);
        let [answers] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        fixture.say(Kind::Hello, frame.id, 0, b"").await;
        drop(answers);
        assert!(fixture.ended.await.unwrap().unwrap().reason.contains("Hello has no place here"));
    }

    #[tokio::test]
    async fn a_large_body_goes_out_in_pieces_while_answers_come_in() {
        let mut fixture = fixture(false);
        let large = Bytes::from(vec![7; 3_000_000]);
        let [answers] = fixture.dispatch([large.clone()]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        let id = frame.id;
        assert_eq!(frame.into_meta_and_body().unwrap().1, large);
        fixture.say(Kind::Response, id, 200, &large).await;
        assert_eq!(whole(answers).await.unwrap(), large);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_worker_is_asked_for_the_stages_of_few() {
        let mut fixture = fixture(false);
        let mut asked = Vec::new();
        for wait in [0, 1, 8, 2, 20] {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let [answers] = fixture.dispatch([BODY]);
            let frame = read_frame(&mut fixture.worker).await.unwrap();
            asked.push(frame.flags.has(Flags::META));
            drop(answers);
        }
        assert_eq!(asked, [true, false, false, true, true]);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_cancels_its_job_once() {
        let mut fixture = fixture(false);
        let [answers, stays] = fixture.dispatch([BODY, BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        drop(answers);
        for _ in 0..2 {
            fixture.commands.send(Command::CancelAbandoned).unwrap();
        }
        let cancel = fixture.control.recv().await.unwrap();
        assert_eq!((cancel.kind, cancel.id), (Kind::Cancel, frame.id));
        fixture.say(Kind::Response, frame.id, 499, b"").await;
        fixture.say(Kind::Response, frame.id + (1 << 32) + 1, 200, b"b").await;
        assert_eq!(whole(stays).await.unwrap(), "b");
        assert!(fixture.control.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_client_that_leaves_its_stream_cancels_it_once() {
        let mut fixture = fixture(false);
        let [mut answers] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        fixture.say(Kind::Chunk, frame.id, 1, ITEM).await;
        drop(answers.recv().await);
        fixture.say(Kind::Chunk, frame.id, 1, ITEM).await;
        fixture.say(Kind::Chunk, frame.id, 1, ITEM).await;
        let cancel = fixture.control.recv().await.unwrap();
        assert_eq!((cancel.kind, cancel.id), (Kind::Cancel, frame.id));
        fixture.say(Kind::End, frame.id, 0, b"").await;
        let [next] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        fixture.say(Kind::Response, frame.id, 200, b"next").await;
        assert_eq!(whole(next).await.unwrap(), "next");
        assert!(fixture.control.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_slow_reader_holds_back_its_own_stream_only() {
        let mut fixture = fixture(false);
        let [mut slow, quick] = fixture.dispatch([BODY, BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        let half = [&(STREAM_CREDIT as u32 / 2).to_le_bytes()[..], &vec![7; STREAM_CREDIT / 2]];
        let half = half.concat();
        fixture.say(Kind::Chunk, frame.id, 2, ITEM).await;
        fixture.say(Kind::Chunk, frame.id, 2, &half).await;
        fixture.say(Kind::Chunk, frame.id, 2, &half).await;
        fixture.say(Kind::Response, frame.id + (1 << 32) + 1, 200, b"quick").await;
        assert_eq!(whole(quick).await.unwrap(), "quick");
        let Ok(Answer::Stream(_, mut rest)) = slow.recv().await else { panic!("not a stream") };
        std::future::poll_fn(|cx| rest.poll_part(cx)).await;
        let credit = fixture.control.recv().await.unwrap();
        assert_eq!((credit.kind, credit.id), (Kind::Credit, frame.id));
        let more = u32::from_le_bytes(credit.payload[..].try_into().unwrap()) as usize;
        assert_eq!(more, ITEM.len() + half.len(), "what its client has taken");
    }

    #[tokio::test]
    async fn a_stream_that_ignores_its_credit_breaks_the_protocol() {
        let mut fixture = fixture(false);
        let [_answers] = fixture.dispatch([BODY]);
        let frame = read_frame(&mut fixture.worker).await.unwrap();
        let item = [&(STREAM_CREDIT as u32).to_le_bytes()[..], &vec![7; STREAM_CREDIT]].concat();
        fixture.say(Kind::Chunk, frame.id, 2, ITEM).await;
        fixture.say(Kind::Chunk, frame.id, 2, &item).await;
        fixture.say(Kind::Chunk, frame.id, 2, ITEM).await;
        assert!(fixture.ended.await.unwrap().unwrap().reason.contains("given credit for"));
    }
}
