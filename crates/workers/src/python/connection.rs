use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use litmux_core::{
    Abandoned, ItemKind, Items, Job, MediaType, Part, Progress, Reply, Response, ServeError,
    StreamSender,
};
use litmux_wire::{Decoder, Flags, Frame, FrameError, Kind, ResponseMeta};
use slab::Slab;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::handshake::write_frame;
use super::outbox::Outbox;

/// Room that is made for one read.
const READ_BYTES: usize = 64 * 1024;

/// The data connection of one worker: it owns the jobs that the worker holds.
///
/// It always reads while it writes, so that two full sockets cannot wait for each other.
pub(crate) struct Connection {
    stream: UnixStream,
    jobs: mpsc::UnboundedReceiver<Vec<Job>>,
    control: mpsc::UnboundedSender<Frame>,
    progress: Arc<dyn Progress>,
    /// Whether the jobs of one dispatch are a batch.
    batches: bool,
    in_flight: Slab<InFlight>,
    /// Counts what was dispatched; with the slot it makes an id that is never used again.
    generation: u32,
    outbox: Outbox,
    decoder: Decoder,
    buffer: BytesMut,
    blocked: Option<Blocked>,
    /// Jobs answered since the scheduler was told last.
    finished: usize,
}

/// A job that the worker holds.
struct InFlight {
    generation: u32,
    caller: Caller,
}

/// Whom an answer is for.
enum Caller {
    Waiting(Reply),
    Streaming(StreamSender),
    /// Left in the middle of a stream; the worker has been told.
    Gone,
}

/// A part of a stream whose client reads slowly. Nothing is read from the worker meanwhile,
/// which holds it back: it has no other answer to give before this stream ends.
struct Blocked {
    slot: usize,
    part: Part,
    room: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What happens to a connection.
enum Event {
    Jobs(Vec<Job>),
    Readable,
    Writable,
    Room,
    /// Nobody will send jobs any more.
    Dismissed,
}

impl Connection {
    pub(crate) fn new(
        stream: UnixStream,
        jobs: mpsc::UnboundedReceiver<Vec<Job>>,
        control: mpsc::UnboundedSender<Frame>,
        progress: Arc<dyn Progress>,
        batches: bool,
    ) -> Self {
        Self {
            stream,
            jobs,
            control,
            progress,
            batches,
            in_flight: Slab::new(),
            generation: 0,
            outbox: Outbox::default(),
            decoder: Decoder::default(),
            buffer: BytesMut::new(),
            blocked: None,
            finished: 0,
        }
    }

    /// Runs until the worker is gone or no longer wanted, and returns what it did wrong, if it
    /// did. The jobs that it then still holds are dropped, which answers them.
    pub(crate) async fn run(mut self) -> Option<String> {
        let reason = loop {
            let event = match self.next_event().await {
                Ok(Event::Dismissed) | Err(_) => break None,
                Ok(event) => event,
            };
            match self.handle_event(event) {
                Ok(()) => {}
                Err(Lost::Closed | Lost::Socket) => break None,
                Err(Lost::Protocol(error)) => {
                    break Some(format!("it broke the protocol and is dropped: {error}"));
                }
            }
            if self.finished > 0 {
                self.progress.finished(std::mem::take(&mut self.finished));
            }
        };
        self.progress.gone();
        reason
    }

    async fn next_event(&mut self) -> io::Result<Event> {
        let reading = self.blocked.is_none();
        let room = async {
            match &mut self.blocked {
                Some(blocked) => blocked.room.as_mut().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = room => Ok(Event::Room),
            readable = self.stream.readable(), if reading => readable.map(|()| Event::Readable),
            writable = self.stream.writable(), if !self.outbox.is_empty() => {
                writable.map(|()| Event::Writable)
            }
            jobs = self.jobs.recv() => Ok(jobs.map_or(Event::Dismissed, Event::Jobs)),
        }
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Lost> {
        match event {
            Event::Jobs(jobs) => {
                self.accept(jobs);
                // Whatever else is there goes out in the same write.
                while let Ok(jobs) = self.jobs.try_recv() {
                    self.accept(jobs);
                }
                Ok(self.outbox.write_to(&self.stream)?)
            }
            Event::Writable => Ok(self.outbox.write_to(&self.stream)?),
            Event::Readable => self.read(),
            Event::Room => self.unblock(),
            Event::Dismissed => Ok(()),
        }
    }

    fn accept(&mut self, jobs: Vec<Job>) {
        let mut left = jobs.len();
        for job in jobs {
            left -= 1;
            self.generation = self.generation.wrapping_add(1);
            let entry = self.in_flight.vacant_entry();
            let id = u64::from(self.generation) << 32 | entry.key() as u64;
            self.outbox.push_request(id, self.batches && left > 0, &job);
            let caller = Caller::Waiting(job.reply);
            entry.insert(InFlight { generation: self.generation, caller });
        }
    }

    fn read(&mut self) -> Result<(), Lost> {
        loop {
            self.buffer.reserve(READ_BYTES);
            let room = self.buffer.capacity() - self.buffer.len();
            let read = match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Err(Lost::Closed),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.take_frames()?;
            // A short read emptied the socket.
            if read < room || self.blocked.is_some() {
                return Ok(());
            }
        }
    }

    fn take_frames(&mut self) -> Result<(), Lost> {
        while self.blocked.is_none() {
            match self.decoder.decode(&mut self.buffer)? {
                Some(frame) => self.take(frame)?,
                None => break,
            }
        }
        Ok(())
    }

    fn unblock(&mut self) -> Result<(), Lost> {
        if let Some(Blocked { slot, part, .. }) = self.blocked.take() {
            self.pass_on(slot, part);
        }
        self.take_frames()
    }

    fn take(&mut self, frame: Frame) -> Result<(), Lost> {
        // An answer to a slot that has been used again since is too late for anybody.
        let slot = (frame.id & u64::from(u32::MAX)) as usize;
        let generation = (frame.id >> 32) as u32;
        if self.in_flight.get(slot).is_none_or(|job| job.generation != generation) {
            return Ok(());
        }
        match frame.kind {
            Kind::Response => self.answer(slot, response(frame)?),
            Kind::Chunk => self.pass_on(slot, Part::Items(items(&frame)?)),
            Kind::End if frame.status == 0 => self.pass_on(slot, Part::End),
            Kind::End => self.pass_on(slot, Part::Failed(stream_error(&frame))),
            unexpected => return Err(FrameError::Unexpected(unexpected).into()),
        }
        Ok(())
    }

    fn answer(&mut self, slot: usize, response: Response) {
        let job = self.in_flight.remove(slot);
        self.finished += 1;
        if let Caller::Waiting(reply) = job.caller {
            reply.send(Ok(response));
        }
    }

    fn pass_on(&mut self, slot: usize, part: Part) {
        let last = !matches!(part, Part::Items(_));
        let job = &mut self.in_flight[slot];
        match job.caller.try_send(part) {
            Ok(None) => {}
            Ok(Some(part)) => {
                let room = job.caller.room();
                self.blocked = Some(Blocked { slot, part, room });
                return;
            }
            Err(Abandoned) if last => {}
            Err(Abandoned) => {
                job.caller = Caller::Gone;
                let id = u64::from(job.generation) << 32 | slot as u64;
                let flags = Flags::NONE;
                let cancel =
                    Frame { kind: Kind::Cancel, flags, status: 0, id, payload: Bytes::new() };
                let _ = self.control.send(cancel);
            }
        }
        if last {
            self.in_flight.remove(slot);
            self.finished += 1;
        }
    }
}

impl Caller {
    /// Sends a part of a stream; gives it back when the client must catch up first.
    fn try_send(&mut self, part: Part) -> Result<Option<Part>, Abandoned> {
        if let Self::Waiting(_) = self
            && let Self::Waiting(reply) = std::mem::replace(self, Self::Gone)
        {
            *self = Self::Streaming(reply.into_stream());
        }
        match self {
            Self::Streaming(sender) => sender.try_send(part),
            // It was told once that its client is gone; what it had sent by then is dropped.
            Self::Gone | Self::Waiting(_) => Ok(None),
        }
    }

    /// Resolves when a part may be sent again.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match self {
            Self::Streaming(sender) => Box::pin(sender.room()),
            Self::Waiting(_) | Self::Gone => Box::pin(std::future::ready(())),
        }
    }
}

fn response(frame: Frame) -> Result<Response, FrameError> {
    let status = frame.status;
    let (meta, body) = frame.into_meta_and_body()?;
    let Some(meta) = meta else {
        return Ok(Response { status, media_type: MediaType::Json, headers: Vec::new(), body });
    };
    let meta: ResponseMeta = serde_json::from_slice(&meta).map_err(|_| FrameError::Message)?;
    let ResponseMeta { media_type, headers } = meta;
    Ok(Response { status, media_type: MediaType::Other(media_type), headers, body })
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

/// The error that a stream ended with; its payload is `{"detail": …}`, as in a response.
fn stream_error(frame: &Frame) -> ServeError {
    #[derive(serde::Deserialize)]
    struct Body {
        detail: serde_json::Value,
    }
    let detail = match serde_json::from_slice::<Body>(&frame.payload).map(|body| body.detail) {
        Ok(serde_json::Value::String(detail)) => detail,
        Ok(detail) => detail.to_string(),
        Err(_) => "Internal server error".into(),
    };
    ServeError::new(frame.status, detail)
}

/// Why a worker is lost.
#[derive(Debug)]
enum Lost {
    Closed,
    Socket,
    Protocol(FrameError),
}

impl From<io::Error> for Lost {
    fn from(_: io::Error) -> Self {
        Self::Socket
    }
}

impl From<FrameError> for Lost {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error)
    }
}

/// Writes what must be seen while a model runs: cancellations and the end.
pub(crate) async fn write_control(
    mut stream: UnixStream,
    mut frames: mpsc::UnboundedReceiver<Frame>,
) {
    while let Some(frame) = frames.recv().await {
        write_frame(&mut stream, &frame).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use litmux_core::{Answer, Answers, Outcome, Request, reply};
    use litmux_wire::Header;
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    use super::super::handshake::read_frame;
    use super::*;

    #[derive(Default)]
    struct Counted {
        finished: Mutex<usize>,
    }

    impl Progress for Counted {
        fn finished(&self, jobs: usize) {
            *self.finished.lock().unwrap() += jobs;
        }
        fn gone(&self) {}
    }

    /// A connection whose worker is the test.
    struct Bench {
        worker: UnixStream,
        jobs: mpsc::UnboundedSender<Vec<Job>>,
        control: mpsc::UnboundedReceiver<Frame>,
        progress: Arc<Counted>,
        ended: tokio::task::JoinHandle<Option<String>>,
    }

    fn bench(batches: bool) -> Bench {
        let (ours, worker) = UnixStream::pair().unwrap();
        let (jobs, inbox) = mpsc::unbounded_channel();
        let (orders, control) = mpsc::unbounded_channel();
        let progress = Arc::new(Counted::default());
        let connection = Connection::new(ours, inbox, orders, progress.clone(), batches);
        let ended = tokio::spawn(connection.run());
        Bench { worker, jobs, control, progress, ended }
    }

    impl Bench {
        fn dispatch<const N: usize>(&self, bodies: [Bytes; N]) -> [Answers; N] {
            let (mut jobs, mut waiting) = (Vec::new(), Vec::new());
            for body in bodies {
                let (reply, answers) = reply();
                let arrived = Instant::now();
                let deadline = arrived + Duration::from_secs(30);
                jobs.push(Job { request: Request::json(body), arrived, deadline, reply });
                waiting.push(answers);
            }
            self.jobs.send(jobs).unwrap();
            waiting.try_into().unwrap()
        }

        async fn say(&mut self, kind: Kind, id: u64, status: u16, payload: &[u8]) {
            let length = payload.len() as u32;
            let mut bytes = BytesMut::new();
            Header { kind, flags: Flags::NONE, status, id, length }.encode(&mut bytes);
            bytes.extend_from_slice(payload);
            self.worker.write_all(&bytes).await.unwrap();
        }
    }

    async fn whole(mut answers: Answers) -> Outcome<Bytes> {
        match answers.recv().await? {
            Answer::Whole(response) => Ok(response.body),
            Answer::Stream(..) => panic!("not a stream"),
        }
    }

    const BODY: Bytes = Bytes::from_static(b"1");

    #[tokio::test]
    async fn answers_find_their_callers_in_any_order() {
        let mut bench = bench(false);
        let [first, second] = bench.dispatch([BODY, Bytes::from_static(b"2")]);
        // One read may bring both: the second frame is read by hand.
        let mut decoder = Decoder::default();
        let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
        while frames.len() < 2 {
            bench.worker.readable().await.unwrap();
            let _ = bench.worker.try_read_buf(&mut buffer);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        bench.say(Kind::Response, frames[1].id, 200, b"b").await;
        bench.say(Kind::Response, frames[0].id, 200, b"a").await;
        assert_eq!(
            (whole(first).await.unwrap(), whole(second).await.unwrap()),
            ("a".into(), "b".into())
        );
        assert_eq!(*bench.progress.finished.lock().unwrap(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_nobody_is_owed_is_dropped() {
        let mut bench = bench(false);
        let [answers] = bench.dispatch([BODY]);
        let frame = read_frame(&mut bench.worker).await.unwrap();
        let of_another_generation = frame.id + (1 << 32);
        bench.say(Kind::Response, of_another_generation, 200, b"stale").await;
        bench.say(Kind::Response, frame.id + 1, 200, b"unknown").await;
        bench.say(Kind::Response, frame.id, 200, b"right").await;
        assert_eq!(whole(answers).await.unwrap(), "right");
    }

    #[tokio::test]
    async fn a_worker_that_hangs_up_answers_its_callers() {
        let mut bench = bench(false);
        let [answers] = bench.dispatch([BODY]);
        read_frame(&mut bench.worker).await.unwrap();
        drop(bench.worker);
        assert_eq!(whole(answers).await.unwrap_err().status, 502);
        assert_eq!(bench.ended.await.unwrap(), None, "its process says why");
    }

    #[tokio::test]
    async fn a_worker_that_breaks_the_protocol_is_dropped_with_a_reason() {
        let mut bench = bench(false);
        let [answers] = bench.dispatch([BODY]);
        let frame = read_frame(&mut bench.worker).await.unwrap();
        bench.say(Kind::Hello, frame.id, 0, b"").await;
        assert_eq!(whole(answers).await.unwrap_err().status, 502);
        assert!(bench.ended.await.unwrap().unwrap().contains("Hello has no place here"));
    }

    #[tokio::test]
    async fn a_large_body_goes_out_in_pieces_while_answers_come_in() {
        let mut bench = bench(false);
        let large = Bytes::from(vec![7; 3_000_000]);
        let [answers] = bench.dispatch([large.clone()]);
        let frame = read_frame(&mut bench.worker).await.unwrap();
        assert_eq!(frame.payload, large);
        bench.say(Kind::Response, frame.id, 200, &large).await;
        assert_eq!(whole(answers).await.unwrap(), large);
    }

    #[tokio::test]
    async fn a_client_that_leaves_its_stream_cancels_it_once() {
        let mut bench = bench(false);
        let [mut answers] = bench.dispatch([BODY]);
        let frame = read_frame(&mut bench.worker).await.unwrap();
        let item = b"\x01\0\0\0x";
        bench.say(Kind::Chunk, frame.id, 1, item).await;
        drop(answers.recv().await);
        bench.say(Kind::Chunk, frame.id, 1, item).await;
        bench.say(Kind::Chunk, frame.id, 1, item).await;
        let cancel = bench.control.recv().await.unwrap();
        assert_eq!((cancel.kind, cancel.id), (Kind::Cancel, frame.id));
        bench.say(Kind::End, frame.id, 0, b"").await;
        let [next] = bench.dispatch([BODY]);
        let frame = read_frame(&mut bench.worker).await.unwrap();
        bench.say(Kind::Response, frame.id, 200, b"next").await;
        assert_eq!(whole(next).await.unwrap(), "next");
        assert!(bench.control.try_recv().is_err());
    }
}
