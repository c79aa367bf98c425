//! The control connection of a worker: heartbeat, health, metrics, cost queries and changes of the code.
//!
//! A worker that answers no pings is reported as hung, unless it computes; how long a worker may
//! compute is left to the data connection.

use std::future::pending;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use litplex_core::{Cause, Outcome, Request, ServeError, WorkerExit};
use litplex_wire::{Decoder, Frame, FrameError, Kind};
use slab::Slab;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Transport;
use super::code::{CodeLink, PatchQuery};
use super::connection::stream_error;
use super::metrics::SlotMetrics;
use super::outbox::request_frame;
use super::pulse::{Pulse, UNANSWERED_PINGS};
use super::unhealthy::HealthGuard;

/// The number of pings in a heartbeat.
const PINGS: u32 = 2;

/// A query for the cost of a request.
pub(crate) struct CostQuery {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Outcome<f64>>,
}

/// The times that a worker may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeartbeatSettings {
    pub(crate) heartbeat: Duration,
    /// Whether the heartbeat counts while the worker computes, too.
    pub(crate) is_strict: bool,
    /// The time that the model has to return a cost.
    pub(crate) patience: Duration,
}

/// The control connection of one worker: heartbeat, health, metrics, and the costs of requests.
pub(crate) struct Control<S> {
    from_worker: ReadHalf<S>,
    to_worker: mpsc::UnboundedSender<Frame>,
    cost_queries: mpsc::UnboundedReceiver<CostQuery>,
    code: CodeLink,
    /// The senders of the queries that wait, with the time of each query.
    queried: Slab<(Instant, oneshot::Sender<Outcome<f64>>)>,
    decoder: Decoder,
    buffer: BytesMut,
    metrics: SlotMetrics,
    times: HeartbeatSettings,
    pulse: Pulse,
    health: HealthGuard,
    pings: u64,
    unanswered: u32,
}

enum Event {
    Read(usize),
    CostQuery(CostQuery),
    Patch(PatchQuery),
    Heartbeat,
}

impl<S: Transport> Control<S> {
    /// Creates the connection. A task of its own writes the frames in `frames`: a worker that does not
    /// read cannot delay what it sends.
    pub(crate) fn new(
        stream: S,
        (to_worker, frames): (mpsc::UnboundedSender<Frame>, mpsc::UnboundedReceiver<Frame>),
        (cost_queries, code): (mpsc::UnboundedReceiver<CostQuery>, CodeLink),
        metrics: SlotMetrics,
        times: HeartbeatSettings,
        pulse: Pulse,
        health: HealthGuard,
    ) -> Self {
        let (from_worker, writer) = split(stream);
        tokio::spawn(write(writer, frames));
        Self {
            from_worker,
            to_worker,
            cost_queries,
            code,
            queried: Slab::new(),
            decoder: Decoder::default(),
            buffer: BytesMut::new(),
            metrics,
            times,
            pulse,
            health,
            pings: 0,
            unanswered: 0,
        }
    }

    /// Runs until the worker closes the connection, and returns its fault, if it has one.
    pub(crate) async fn run(mut self) -> Option<WorkerExit> {
        let mut heartbeats = interval(self.times.heartbeat / PINGS);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                read = self.from_worker.read_buf(&mut self.buffer) => Event::Read(read.ok()?),
                query = next(&mut self.cost_queries) => Event::CostQuery(query),
                query = self.code.next() => Event::Patch(query),
                _ = heartbeats.tick() => Event::Heartbeat,
            };
            match event {
                Event::Read(0) => return None,
                Event::Read(_) => {
                    if let Err(error) = self.take_frames() {
                        let reason = format!("it broke the protocol: {error}");
                        return Some(WorkerExit::new(Cause::Protocol, reason));
                    }
                }
                Event::CostQuery(query) => self.cost(query),
                Event::Patch(query) => self.code.send(query, &self.to_worker),
                Event::Heartbeat if self.hangs() => {
                    let silent = self.silence().as_secs_f64();
                    let reason = format!(
                        "it hangs: its interpreter was silent for {silent} s (`heartbeat` is {} s)",
                        self.times.heartbeat.as_secs_f64()
                    );
                    return Some(WorkerExit::new(Cause::Hang, reason));
                }
                Event::Heartbeat => self.ping(),
            }
        }
    }

    /// Returns whether the worker has been silent for too long. While it computes, a call into native
    /// code may hold its interpreter for as long as the endpoint allows; the data connection measures
    /// that. If the heartbeat is strict, only the decoding of bodies excuses the silence.
    fn hangs(&self) -> bool {
        let asked = self.queried.iter().map(|(_, (asked, _))| *asked).min();
        let cost_queries = asked.is_some_and(|asked| asked.elapsed() < self.times.patience);
        let is_excused = if self.times.is_strict {
            self.silence() < self.pulse.time_to_decode()
        } else {
            !self.pulse.is_idle()
        };
        self.unanswered >= UNANSWERED_PINGS && !is_excused && !cost_queries
    }

    fn silence(&self) -> Duration {
        self.times.heartbeat / PINGS * self.unanswered
    }

    fn ping(&mut self) {
        self.pings += 1;
        self.unanswered = self.unanswered.saturating_add(1);
        self.pulse.set_unanswered(self.unanswered);
        // A silent worker has enough pings to answer.
        if self.unanswered <= UNANSWERED_PINGS {
            let _ = self.to_worker.send(Frame::bare(Kind::Ping, self.pings));
        }
    }

    fn cost(&mut self, CostQuery { request, answer }: CostQuery) {
        let id = self.queried.insert((Instant::now(), answer));
        let _ = self.to_worker.send(request_frame(Kind::CostQuery, id as u64, &request));
    }

    fn take_frames(&mut self) -> Result<(), FrameError> {
        while let Some(frame) = self.decoder.decode(&mut self.buffer)? {
            self.unanswered = 0;
            self.pulse.set_unanswered(0);
            match frame.kind {
                Kind::Pong => self.health.set(frame.status >= 400),
                Kind::Metrics => self.metrics.take(&frame)?,
                Kind::Sources => self.code.loaded(&frame)?,
                Kind::Patched => self.code.answered(&frame)?,
                Kind::Cost => {
                    let answer = self.queried.try_remove(frame.id as usize);
                    let (_, answer) = answer.ok_or(FrameError::Unexpected(Kind::Cost))?;
                    // The caller may have left.
                    let _ = answer.send(cost(&frame)?);
                }
                unexpected => return Err(FrameError::Unexpected(unexpected)),
            }
        }
        Ok(())
    }
}

/// Resolves to the next value, and never once the senders are gone.
async fn next<T>(inbox: &mut mpsc::UnboundedReceiver<T>) -> T {
    match inbox.recv().await {
        Some(value) => value,
        None => pending().await,
    }
}

fn cost(frame: &Frame) -> Result<Outcome<f64>, FrameError> {
    if frame.status >= 400 {
        return Ok(Err(stream_error(frame.status, &frame.payload)));
    }
    let mut payload = frame.payload.clone();
    if payload.len() != size_of::<f64>() {
        return Err(FrameError::Message);
    }
    let cost = payload.get_f64_le();
    Ok(if cost.is_finite() { Ok(cost) } else { Err(ServeError::internal()) })
}

async fn write<S: Transport>(mut writer: WriteHalf<S>, mut frames: mpsc::UnboundedReceiver<Frame>) {
    let mut bytes = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        frame.encode(&mut bytes);
        // The next read shows that the connection is broken.
        let _ = writer.write_all_buf(&mut bytes).await;
        let _ = writer.flush().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use litplex_core::{LiveCode, LoadedFile, PatchRefusal, PatchStep, Patched};
    use litplex_metrics::UserMetrics;
    use litplex_wire::{Flags, LoadedFile as SourceFile};
    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::super::code::CodeHandle;
    use super::super::connection::Command;
    use super::super::handshake::write_frame;
    use super::super::unhealthy::UnhealthyCount;
    use super::*;

    /// A control connection whose worker is the test.
    struct Fixture {
        worker: DuplexStream,
        decoder: Decoder,
        buffer: BytesMut,
        cost_queries: mpsc::UnboundedSender<CostQuery>,
        unhealthy: UnhealthyCount,
        pulse: Pulse,
        code: CodeHandle,
        /// The commands to the data connection, and their sender, which the queue holds.
        data: (mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
        ended: JoinHandle<Option<WorkerExit>>,
    }

    fn fixture() -> Fixture {
        fixture_with(false)
    }

    fn fixture_with(is_strict: bool) -> Fixture {
        let (ours, worker) = duplex(64 * 1024);
        let (cost_queries, inbox) = mpsc::unbounded_channel();
        let (heartbeat, unhealthy) = (Duration::from_secs(2), UnhealthyCount::default());
        let (frames, metrics) = (mpsc::unbounded_channel(), UserMetrics::spawn());
        let slot = SlotMetrics::new(metrics.sink("/test"), 0);
        let times = HeartbeatSettings { heartbeat, is_strict, patience: Duration::from_secs(40) };
        let pulse = Pulse::default();
        let health = unhealthy.guard();
        let (data, commands) = mpsc::unbounded_channel();
        let loaded = [SourceFile { path: "a.py".into(), digest: "1".into() }];
        let (link, code) = CodeLink::new(&loaded, data.downgrade());
        let ends = (inbox, link);
        let control = Control::new(ours, frames, ends, slot, times, pulse.clone(), health);
        let (decoder, buffer) = (Decoder::default(), BytesMut::new());
        let ended = tokio::spawn(control.run());
        let data = (data, commands);
        Fixture { worker, decoder, buffer, cost_queries, unhealthy, pulse, code, data, ended }
    }

    impl Fixture {
        /// Returns the next frame of this kind.
        async fn hear(&mut self, kind: Kind) -> Frame {
            loop {
                while let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                    if frame.kind == kind {
                        return frame;
                    }
                }
                self.worker.read_buf(&mut self.buffer).await.unwrap();
            }
        }
    }

    fn ask(fixture: &Fixture, body: &'static str) -> oneshot::Receiver<Outcome<f64>> {
        let (answer, answered) = oneshot::channel();
        let request = Request::json(body);
        assert!(fixture.cost_queries.send(CostQuery { request, answer }).is_ok());
        answered
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_answers_no_ping_hangs() {
        let fixture = fixture();
        let start = Instant::now();
        let fault = fixture.ended.await.unwrap().unwrap();
        assert_eq!(fault.cause, Cause::Hang);
        assert!(fault.reason.contains("silent for 5 s"), "{fault}");
        assert!(start.elapsed() < Duration::from_secs(6), "three heartbeats");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_computes_may_be_silent() {
        let mut fixture = fixture();
        let start = Instant::now();
        fixture.pulse.set_load(1, 0);
        tokio::time::sleep(Duration::from_millis(60_500)).await;
        assert!(!fixture.ended.is_finished() && fixture.pulse.is_silent());
        fixture.pulse.set_load(0, 0);
        assert_eq!((&mut fixture.ended).await.unwrap().unwrap().cause, Cause::Hang);
        assert_eq!(start.elapsed().as_secs(), 61);
    }

    #[tokio::test(start_paused = true)]
    async fn a_strict_heartbeat_excuses_the_decoding_of_bodies_alone() {
        for (bytes, seconds) in [(0, 5), (60_000_000, 30)] {
            let fixture = fixture_with(true);
            let start = Instant::now();
            fixture.pulse.set_load(1, bytes);
            assert_eq!(fixture.ended.await.unwrap().unwrap().cause, Cause::Hang);
            assert_eq!(start.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_that_is_asked_for_a_cost_has_its_time() {
        let fixture = fixture();
        let _answer = ask(&fixture, "1");
        let start = Instant::now();
        assert_eq!(fixture.ended.await.unwrap().unwrap().cause, Cause::Hang);
        assert_eq!(start.elapsed().as_secs(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_answers_lives() {
        let mut fixture = fixture();
        for _ in 0..20 {
            let ping = fixture.hear(Kind::Ping).await;
            write_frame(&mut fixture.worker, &Frame::bare(Kind::Pong, ping.id)).await;
        }
        drop(fixture.worker);
        assert_eq!(fixture.ended.await.unwrap(), None, "its process says why it ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_says_whether_it_is_well() {
        let mut fixture = fixture();
        for (status, unhealthy) in [(0, 0), (503, 1), (503, 1), (200, 0), (503, 1)] {
            let ping = fixture.hear(Kind::Ping).await;
            let pong = Frame { status, ..Frame::bare(Kind::Pong, ping.id) };
            write_frame(&mut fixture.worker, &pong).await;
            fixture.hear(Kind::Ping).await;
            assert_eq!(fixture.unhealthy.count(), unhealthy);
        }
        drop(fixture.worker);
        fixture.ended.await.unwrap();
        assert_eq!(fixture.unhealthy.count(), 0, "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn costs_find_who_asked() {
        let mut fixture = fixture();
        let (mut ids, mut answers) = (Vec::new(), Vec::new());
        for body in ["1", "22"] {
            answers.push(ask(&fixture, body));
            let query = fixture.hear(Kind::CostQuery).await;
            ids.push((query.id, query.payload.len()));
        }
        for (id, length) in ids.into_iter().rev() {
            let payload = Bytes::copy_from_slice(&(length as f64).to_le_bytes());
            let (kind, flags) = (Kind::Cost, Flags::NONE);
            write_frame(&mut fixture.worker, &Frame { kind, flags, status: 200, id, payload })
                .await;
        }
        for (answer, cost) in answers.into_iter().zip([1.0, 2.0]) {
            assert_eq!(answer.await.unwrap(), Ok(cost));
        }
    }

    async fn answer(fixture: &mut Fixture, id: u64, answer: &str) {
        let payload = Bytes::copy_from_slice(answer.as_bytes());
        let frame = Frame { payload, ..Frame::bare(Kind::Patched, id) };
        write_frame(&mut fixture.worker, &frame).await;
    }

    #[tokio::test(start_paused = true)]
    async fn steps_of_a_change_of_the_code_are_answered_in_any_order() {
        let mut fixture = fixture();
        let steps = [PatchStep::Prepare(Arc::new([])), PatchStep::Abort, PatchStep::Commit];
        let answers: Vec<_> = steps.into_iter().map(|step| fixture.code.patch(step)).collect();
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(fixture.hear(Kind::Patch).await.id);
        }
        answer(&mut fixture, ids[2], "{}").await;
        answer(&mut fixture, ids[1], r#"{"unchanged": true}"#).await;
        answer(&mut fixture, ids[0], r#"{"reason": "no", "traceback": "T"}"#).await;
        let [prepared, aborted, committed] = answers.try_into().map_err(drop).unwrap();
        let traceback = Some("T".into());
        assert_eq!(prepared.await, Err(PatchRefusal { reason: "no".into(), traceback }));
        assert_eq!(aborted.await, Ok(Patched::Unchanged));
        assert_eq!(committed.await, Ok(Patched::Done));
    }

    #[tokio::test(start_paused = true)]
    async fn the_step_that_stops_the_worker_is_sent_among_its_requests() {
        let mut fixture = fixture();
        let held = fixture.code.patch(PatchStep::Hold);
        let Some(Command::Hold(frame)) = fixture.data.1.recv().await else { panic!("no hold") };
        answer(&mut fixture, frame.id, "{}").await;
        assert_eq!(held.await, Ok(Patched::Done));
        let dismissed = fixture.code.patch(PatchStep::Hold);
        let (sender, _commands) = fixture.data;
        drop((sender, _commands));
        drop(fixture.worker);
        fixture.ended.await.unwrap();
        assert!(dismissed.await.unwrap_err().reason.contains("ended"));
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_are_loaded_later_are_known() {
        let mut fixture = fixture();
        let payload = Bytes::from_static(
            br#"{"sources": [{"path": "b.py", "digest": "2"}, {"path": "a.py", "digest": "3"}]}"#,
        );
        let frame = Frame { payload, ..Frame::bare(Kind::Sources, 0) };
        write_frame(&mut fixture.worker, &frame).await;
        drop(fixture.worker);
        fixture.ended.await.unwrap();
        let file =
            |path: &str, digest: &str| LoadedFile { path: path.into(), digest: digest.into() };
        // The first one was loaded again.
        assert_eq!(fixture.code.sources(), [file("a.py", "3"), file("b.py", "2")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cost_without_a_query_breaks_the_protocol() {
        let mut fixture = fixture();
        write_frame(&mut fixture.worker, &Frame::bare(Kind::Cost, 7)).await;
        assert!(fixture.ended.await.unwrap().unwrap().reason.contains("no place here"));
    }
}
