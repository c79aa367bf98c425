//! The calls connection of a worker: its hooks call other endpoints over it.
//!
//! The worker sends requests and the server answers, with the frames of the data connection. Each call
//! is a task, which ends when the worker cancels it, when no request needs it any longer, or with the
//! connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use litplex_core::{
    CallId, Called, Calls, Cause, Content, FormPart, Hook, Invocation, ItemKind, Items, MediaType,
    Outcome, Parent, Part, PartStream, Request, Response, ServeError, Waits, WorkerExit, WorkerKey,
};
use litplex_wire::{
    CallMeta, Decoder, Flags, Frame, FrameError, Header, Kind, RequestContent, RequestMeta,
    ResponseMeta,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::connection::poll_stream;
use super::in_flight::STREAM_CREDIT;
use super::outbox::Outbox;
use super::{Transport, from_meta};

/// The most calls of one worker that may be in flight.
const MAX_CALLS: usize = 1 << 14;

/// A worker, as the calls of its hooks know it.
pub(crate) struct WorkerCalls {
    calls: Arc<dyn Calls>,
    key: WorkerKey,
    /// The label of its endpoint.
    endpoint: Arc<str>,
    /// The name of the worker in a path of calls: `/ask#0`.
    pub(crate) name: Arc<str>,
}

impl WorkerCalls {
    /// Adds a worker of this endpoint, which runs this many hooks at the same time.
    pub(crate) fn attach(
        calls: Arc<dyn Calls>,
        WorkerNames { endpoint, slot, worker }: WorkerNames,
        places: usize,
    ) -> Self {
        let key = calls.attached(slot, places);
        Self { calls, key, endpoint: endpoint.into(), name: worker }
    }

    /// Notes that the worker takes no more jobs.
    pub(crate) fn retiring(&self) {
        self.calls.retiring(self.key);
    }

    /// Notes that the worker is given the job of a call as this item.
    pub(crate) fn held(&self, call: CallId, item: u64) {
        self.calls.held(call, self.key, item);
    }

    /// Notes that a call is in the queue again.
    pub(crate) fn requeued(&self, call: CallId) {
        self.calls.requeued(call);
    }

    /// Notes a part of the answer to a call, and whether it is the last.
    pub(crate) fn answered(&self, call: CallId, is_last: bool) {
        if is_last { self.calls.ended(call) } else { self.calls.resumed(call) }
    }
}

impl Drop for WorkerCalls {
    fn drop(&mut self) {
        self.calls.gone(self.key);
    }
}

/// The names of a worker.
#[derive(Debug, Clone)]
pub(crate) struct WorkerNames {
    /// The label of its endpoint.
    pub(crate) endpoint: String,
    /// Its slot.
    pub(crate) slot: usize,
    /// The worker: `/ask#0`.
    pub(crate) worker: Arc<str>,
}

/// A query to the data connection: the properties that these items hand down to a call.
pub(crate) struct ParentQuery {
    pub(crate) items: Vec<u64>,
    pub(crate) answer: oneshot::Sender<Outcome<Parent>>,
}

/// The calls connection of one worker.
pub(crate) struct CallsConnection<S> {
    stream: S,
    worker: Arc<WorkerCalls>,
    parents: mpsc::UnboundedSender<ParentQuery>,
    open: HashMap<u64, OpenCall>,
    tasks: JoinSet<()>,
    /// Bounded by the calls in flight and the credit of their streams.
    answers: mpsc::UnboundedSender<CallAnswer>,
    answered: mpsc::UnboundedReceiver<CallAnswer>,
    outbox: Outbox,
    decoder: Decoder,
    buffer: BytesMut,
}

/// A call that is not answered.
struct OpenCall {
    task: AbortHandle,
    granted: watch::Sender<usize>,
    progress: Arc<CallProgress>,
}

/// State that a call and its connection share.
#[derive(Default)]
struct CallProgress {
    /// The id, once the call has begun.
    id: OnceLock<CallId>,
    /// Whether a hook waits for it.
    waits: AtomicBool,
}

/// A part of the answer to the call with this number.
struct CallAnswer {
    number: u64,
    content: AnswerContent,
}

enum AnswerContent {
    Response(Response, Vec<String>),
    Items(Items),
    End,
    /// The stream of this path of calls broke.
    Broken(ServeError, Vec<String>),
}

enum Event {
    Answer(CallAnswer),
    Read(usize),
}

impl<S: Transport> CallsConnection<S> {
    pub(crate) fn new(
        stream: S,
        worker: Arc<WorkerCalls>,
        parents: mpsc::UnboundedSender<ParentQuery>,
    ) -> Self {
        let (answers, answered) = mpsc::unbounded_channel();
        Self {
            stream,
            worker,
            parents,
            open: HashMap::new(),
            tasks: JoinSet::new(),
            answers,
            answered,
            outbox: Outbox::default(),
            decoder: Decoder::default(),
            buffer: BytesMut::new(),
        }
    }

    /// Runs until the worker closes the connection, which ends its calls. Returns its fault, if it has
    /// one.
    pub(crate) async fn run(mut self) -> Option<WorkerExit> {
        loop {
            let handled = match self.next_event().await.ok()? {
                Event::Read(0) => return None,
                Event::Read(_) => self.take_frames(),
                Event::Answer(answer) => {
                    self.send(answer);
                    while let Ok(answer) = self.answered.try_recv() {
                        self.send(answer);
                    }
                    Ok(())
                }
            };
            if let Err(error) = handled {
                let reason = format!("it broke the protocol: {error}");
                return Some(WorkerExit::new(Cause::Protocol, reason));
            }
            while self.tasks.try_join_next().is_some() {}
        }
    }

    async fn next_event(&mut self) -> io::Result<Event> {
        let Self { stream, outbox, buffer, answered, .. } = self;
        tokio::select! {
            biased;
            Some(answer) = answered.recv() => Ok(Event::Answer(answer)),
            read = poll_fn(|cx| poll_stream(stream, outbox, buffer, cx)) => read.map(Event::Read),
        }
    }

    fn take_frames(&mut self) -> Result<(), FrameError> {
        while let Some(frame) = self.decoder.decode(&mut self.buffer)? {
            match frame.kind {
                Kind::Request => self.begin(frame)?,
                Kind::Cancel => self.cancel(frame.id),
                Kind::Credit => self.grant(&frame)?,
                Kind::Waiting => self.wait(&frame)?,
                unexpected => return Err(FrameError::Unexpected(unexpected)),
            }
        }
        Ok(())
    }

    /// Begins a call, as a task of its own.
    fn begin(&mut self, frame: Frame) -> Result<(), FrameError> {
        let number = frame.id;
        let (meta, body) = frame.into_meta_and_body()?;
        let RequestMeta { content, call, .. } = from_meta(&meta.ok_or(FrameError::Meta)?)?;
        let CallMeta { endpoint, parents, timeout, waits, stream } =
            call.ok_or(FrameError::Message)?;
        if self.open.len() >= MAX_CALLS {
            let detail = format!("a worker may have {MAX_CALLS} calls in flight; wait for some");
            let response = error_response(&ServeError::overloaded(detail, 1), &[]);
            self.push_response(number, response, Vec::new());
            return Ok(());
        }
        let (granted, credit) = watch::channel(STREAM_CREDIT);
        let progress = Arc::new(CallProgress::default());
        progress.waits.store(waits, Relaxed);
        let (answer, parent) = oneshot::channel();
        let _ = self.parents.send(ParentQuery { items: parents.clone(), answer });
        let hook = Hook { worker: self.worker.key, items: parents };
        let task = CallTask {
            calls: self.worker.calls.clone(),
            caller: self.worker.endpoint.clone(),
            endpoint,
            content: request_content(content),
            body,
            stream,
            timeout: timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            progress: progress.clone(),
            answers: Answers { number, answers: self.answers.clone(), credit },
        };
        let task = self.tasks.spawn(async move {
            let parent = parent.await.unwrap_or_else(|_| Err(ServeError::cancelled()));
            task.run(parent.map(|parent| Parent { hook: Some(hook), ..parent })).await;
        });
        match self.open.entry(number) {
            Entry::Vacant(place) => drop(place.insert(OpenCall { task, granted, progress })),
            Entry::Occupied(_) => return Err(FrameError::Message),
        }
        Ok(())
    }

    fn cancel(&mut self, number: u64) {
        if let Some(call) = self.open.remove(&number) {
            call.task.abort();
            // Before the worker's next frame: the task itself ends later.
            if let Some(id) = call.progress.id.get() {
                self.worker.calls.ended(*id);
            }
            let response = error_response(&ServeError::cancelled(), &[]);
            self.push_response(number, response, Vec::new());
        }
    }

    fn grant(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let bytes = number_in(frame)?;
        if let Some(call) = self.open.get(&frame.id) {
            call.granted.send_modify(|granted| *granted = granted.saturating_add(bytes as usize));
        }
        Ok(())
    }

    fn wait(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let taken = number_in(frame)?;
        if let Some(OpenCall { progress, .. }) = self.open.get(&frame.id) {
            progress.waits.store(true, Relaxed);
            if let Some(id) = progress.id.get() {
                self.worker.calls.waits(*id, taken.into());
            }
        }
        Ok(())
    }

    /// Sends a part of an answer, unless the call was cancelled since.
    fn send(&mut self, CallAnswer { number, content }: CallAnswer) {
        let is_last = !matches!(content, AnswerContent::Items(_));
        let is_open = if is_last {
            self.open.remove(&number).is_some()
        } else {
            self.open.contains_key(&number)
        };
        if !is_open {
            return;
        }
        match content {
            AnswerContent::Response(response, path) => self.push_response(number, response, path),
            AnswerContent::Items(items) => {
                let status = item_status(items.kind());
                self.outbox.push(header(Kind::Chunk, status, number), None, items.packed());
            }
            AnswerContent::End => {
                self.outbox.push(header(Kind::End, 0, number), None, &Bytes::new());
            }
            AnswerContent::Broken(error, path) => {
                let body = error_body(&error, &path);
                self.outbox.push(header(Kind::End, error.status(), number), None, &body);
            }
        }
    }

    fn push_response(&mut self, number: u64, response: Response, calls: Vec<String>) {
        let Response { status, media_type, headers, body } = response;
        let (media_type, content) = match media_type {
            MediaType::Json => (None, None),
            MediaType::Other(name) => (Some(name), None),
            MediaType::Packed(parts) => (None, Some(RequestContent::Packed((*parts).clone()))),
        };
        let is_plain = media_type.is_none() && content.is_none() && headers.is_empty();
        let meta = (!is_plain || !calls.is_empty()).then(|| {
            let meta = ResponseMeta { media_type, headers, stages: Vec::new(), content, calls };
            serde_json::to_vec(&meta).expect("metadata is plain data. This is a bug.")
        });
        self.outbox.push(header(Kind::Response, status, number), meta.as_deref(), &body);
    }
}

/// Returns the number that is the payload of a frame.
fn number_in(frame: &Frame) -> Result<u32, FrameError> {
    frame.payload.clone().try_get_u32_le().map_err(|_| FrameError::Message)
}

fn header(kind: Kind, status: u16, id: u64) -> Header {
    Header { kind, flags: Flags::NONE, status, id, length: 0 }
}

fn item_status(kind: ItemKind) -> u16 {
    match kind {
        ItemKind::Json => 0,
        ItemKind::Text => 1,
        ItemKind::Bytes => 2,
    }
}

/// One call, from its request to the last part of its answer.
struct CallTask {
    calls: Arc<dyn Calls>,
    caller: Arc<str>,
    endpoint: String,
    content: Content,
    body: Bytes,
    stream: bool,
    timeout: Option<Duration>,
    progress: Arc<CallProgress>,
    answers: Answers,
}

impl CallTask {
    async fn run(self, parent: Outcome<Parent>) {
        let mut path = Vec::new();
        let called = match parent {
            Err(error) => Err(error),
            Ok(parent) => {
                path.extend(parent.origin.path().iter().map(ToString::to_string));
                path.push(self.endpoint.clone());
                self.call(parent).await
            }
        };
        match called {
            Err(error) => {
                let path = longer(path, &error.calls);
                self.answers.response(error_response(&error, &path), Vec::new());
            }
            Ok((Called::Whole(response), _)) => {
                let path = if response.status >= 400 { path } else { Vec::new() };
                self.answers.response(response, path);
            }
            Ok((Called::Stream(first, rest), parent)) => {
                self.answers.stream(first, rest, parent, path).await;
            }
        }
    }

    async fn call(&self, mut parent: Parent) -> Outcome<(Called, Parent)> {
        let reservation = parent.reservation.clone();
        reservation.grow(self.body.len())?;
        let request = Request {
            content: self.content.clone(),
            body: vec![self.body.clone()],
            meta: None,
            id: parent.id.clone(),
            takes_values: true,
            reservation,
        };
        let waits = match self.progress.waits.load(Relaxed) {
            true => Waits::FromBeginning,
            false => Waits::Reported,
        };
        let invocation = Invocation {
            caller: self.caller.clone(),
            endpoint: self.endpoint.clone(),
            parent: parent.clone(),
            request,
            timeout: self.timeout,
            waits,
            stream: Some(self.stream),
            takes_items: self.stream,
        };
        let (calls, progress) = (self.calls.clone(), self.progress.clone());
        let waits = invocation.waits;
        let begun = Box::new(move |id| {
            let _ = progress.id.set(id);
            // The hook may have begun to wait since.
            if waits == Waits::Reported && progress.waits.load(Relaxed) {
                calls.waits(id, 0);
            }
        });
        let called = self.calls.call(invocation, begun);
        tokio::select! {
            biased;
            called = called => Ok((called?, parent)),
            () = parent.ended() => Err(ServeError::cancelled()),
        }
    }
}

/// The sender of one call's answer.
struct Answers {
    number: u64,
    answers: mpsc::UnboundedSender<CallAnswer>,
    /// The bytes that may be sent in all.
    credit: watch::Receiver<usize>,
}

impl Answers {
    fn send(&self, content: AnswerContent) {
        let _ = self.answers.send(CallAnswer { number: self.number, content });
    }

    fn response(&self, response: Response, path: Vec<String>) {
        self.send(AnswerContent::Response(response, path));
    }

    async fn stream(
        mut self,
        first: Items,
        mut rest: Box<dyn PartStream>,
        mut parent: Parent,
        path: Vec<String>,
    ) {
        let mut sent = 0;
        let mut part = Part::Items(first);
        loop {
            match part {
                Part::Items(items) => {
                    // The worker asked for a stream or a value: either is known at the first frame.
                    sent += items.packed_len();
                    self.send(AnswerContent::Items(items));
                }
                Part::End => return self.send(AnswerContent::End),
                Part::Failed(error) => {
                    let path = longer(path, &error.calls);
                    return self.send(AnswerContent::Broken(error, path));
                }
            }
            part = tokio::select! {
                biased;
                part = next_part(&mut self.credit, sent, &mut *rest) => part,
                () = parent.ended() => Part::Failed(ServeError::cancelled()),
            };
        }
    }
}

/// Returns the next part, once the worker has credit for it.
async fn next_part(
    credit: &mut watch::Receiver<usize>,
    sent: usize,
    rest: &mut dyn PartStream,
) -> Part {
    if credit.wait_for(|granted| *granted > sent).await.is_err() {
        return Part::Failed(ServeError::cancelled());
    }
    poll_fn(|cx| rest.poll_part(cx)).await
}

/// Returns the path of calls of an error: that of this call, or the longer one of a callee's own call.
fn longer(path: Vec<String>, callees: &[String]) -> Vec<String> {
    if callees.len() > path.len() { callees.to_vec() } else { path }
}

/// Returns an error as the response to a call: it names the path of calls.
fn error_response(error: &ServeError, path: &[String]) -> Response {
    let retry_after = error.retry_after.map(|seconds| ("retry-after".into(), seconds.to_string()));
    Response {
        status: error.status(),
        media_type: MediaType::Json,
        headers: retry_after.into_iter().collect(),
        body: error_body(error, path),
    }
}

fn error_body(error: &ServeError, path: &[String]) -> Bytes {
    #[derive(serde::Serialize)]
    struct Body<'a> {
        detail: &'a str,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        calls: &'a [String],
    }
    let body = Body { detail: &error.detail, calls: path };
    serde_json::to_vec(&body).expect("it is plain data. This is a bug.").into()
}

fn request_content(content: RequestContent) -> Content {
    match content {
        RequestContent::Json => Content::Json,
        RequestContent::Raw(media_type) => Content::Raw(media_type),
        RequestContent::Packed(parts) => Content::Packed(Arc::new(parts)),
        RequestContent::Form(parts) => {
            let part = |part: litplex_wire::RequestPart| FormPart {
                name: part.name,
                filename: part.filename,
                content_type: part.content_type,
                length: part.length,
            };
            Content::Form(parts.into_iter().map(part).collect())
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
