//! The frames that wait to be written to a worker, and the encoding of requests.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use litplex_core::{Content, FormPart, Job, JobTrace, Request};
use litplex_wire::{
    Flags, Frame, Header, Kind, RequestContent, RequestContext, RequestMeta, RequestPart,
};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

/// The longest piece of a body that is copied, in bytes. Longer ones are written without a copy;
/// a short piece costs more in a system call than in a copy.
const COPY_BYTES: usize = 8 * 1024;

/// The bytes in front of metadata that have its length.
const META_LENGTH_BYTES: usize = 4;

/// The most pieces in one system call.
const PIECES: usize = 32;

/// Frames that wait to be written to a worker.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Bytes>,
    /// The bytes after `pieces`; frames are encoded here.
    tail: BytesMut,
    /// Whether the stream may still hold bytes that were written to it.
    has_unflushed: bool,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }

    /// Appends a request frame; `stages` asks the worker for the duration of its stages.
    pub(crate) fn push_request(&mut self, id: u64, more: bool, stages: bool, job: &Job) {
        let (mut flags, prefix) = encode_prefix(&job.request, stages, job.reply.trace(), || {
            job.deadline.saturating_duration_since(Instant::now())
        });
        if more {
            flags = flags.with(Flags::MORE);
        }
        let length = (prefix.len() + job.request.body_len()) as u32;
        Header { kind: Kind::Request, flags, status: 0, id, length }.encode(&mut self.tail);
        self.tail.put_slice(&prefix);
        job.request.body.iter().for_each(|piece| self.push_piece(piece));
    }

    /// Appends a short frame.
    pub(crate) fn push_frame(&mut self, frame: &Frame) {
        frame.encode(&mut self.tail);
    }

    /// Appends a frame with this metadata and body.
    pub(crate) fn push(&mut self, header: Header, meta: Option<&[u8]>, body: &Bytes) {
        let (flags, prefix) = match meta {
            Some(meta) => (header.flags.with(Flags::META), META_LENGTH_BYTES + meta.len()),
            None => (header.flags, 0),
        };
        let length = (prefix + body.len()) as u32;
        Header { flags, length, ..header }.encode(&mut self.tail);
        if let Some(meta) = meta {
            self.tail.put_u32_le(meta.len() as u32);
            self.tail.put_slice(meta);
        }
        self.push_piece(body);
    }

    fn push_piece(&mut self, piece: &Bytes) {
        if piece.len() <= COPY_BYTES {
            return self.tail.put_slice(piece);
        }
        self.pieces.push_back(self.tail.split().freeze());
        self.pieces.push_back(piece.clone());
    }

    /// Writes as much as the stream takes now. Ready once everything is written and flushed.
    pub(crate) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(self.poll_write(stream, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            self.has_unflushed = true;
        }
        if self.has_unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.has_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        if self.pieces.is_empty() {
            return stream.poll_write(cx, &self.tail);
        }
        let pieces = self.pieces.iter().take(PIECES).map(|piece| IoSlice::new(piece));
        stream.poll_write_vectored(cx, &pieces.collect::<Vec<_>>())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let taken = written.min(piece.len());
            piece.advance(taken);
            written -= taken;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.tail.advance(written);
    }
}

/// Returns a frame of this kind that carries a request.
pub(crate) fn request_frame(kind: Kind, id: u64, request: &Request) -> Frame {
    let (flags, prefix) = encode_prefix(request, false, None, || Duration::ZERO);
    let mut payload = BytesMut::from(prefix.as_slice());
    request.body.iter().for_each(|piece| payload.put_slice(piece));
    Frame { kind, flags, status: 0, id, payload: payload.freeze() }
}

/// Returns the bytes before a request's body, and the flags that announce them.
fn encode_prefix(
    request: &Request,
    stages: bool,
    trace: Option<&JobTrace>,
    remaining: impl FnOnce() -> Duration,
) -> (Flags, Vec<u8>) {
    let (mut flags, mut prefix) = (Flags::NONE, Vec::new());
    if let Some(id) = &request.id {
        let id = &id.as_bytes()[..id.len().min(u8::MAX.into())];
        flags = flags.with(Flags::REQUEST_ID);
        prefix.push(id.len() as u8);
        prefix.extend_from_slice(id);
    }
    if request.takes_values {
        flags = flags.with(Flags::VALUES);
    }
    if let Some(meta) = request_meta(request, stages, trace, remaining) {
        flags = flags.with(Flags::META);
        prefix.put_u32_le(meta.len() as u32);
        prefix.extend_from_slice(&meta);
    }
    (flags, prefix)
}

/// Returns the metadata of a request as JSON, if it needs any. `stages` asks the worker for the
/// duration of its stages, as every request with a `trace` does; `remaining` returns the rest of the
/// request's time budget.
fn request_meta(
    request: &Request,
    stages: bool,
    trace: Option<&JobTrace>,
    remaining: impl FnOnce() -> Duration,
) -> Option<Vec<u8>> {
    if request.content == Content::Json && request.meta.is_none() && !stages {
        return None;
    }
    let content = match &request.content {
        Content::Json => RequestContent::Json,
        Content::Raw(media_type) => RequestContent::Raw(media_type.clone()),
        Content::Packed(parts) => RequestContent::Packed((**parts).clone()),
        Content::Form(parts) => RequestContent::Form(parts.iter().map(request_part).collect()),
    };
    let context = request.meta.as_deref().cloned().map(|meta| RequestContext {
        method: meta.method,
        path: meta.path,
        query: meta.query,
        headers: meta.headers,
        remaining_ms: remaining().as_millis() as u64,
    });
    let name = trace.filter(|_| request.id.is_none()).map(JobTrace::request_name);
    let meta = RequestMeta { content, context, stages, name, call: None };
    Some(serde_json::to_vec(&meta).expect("metadata is plain data. This is a bug."))
}

fn request_part(part: &FormPart) -> RequestPart {
    let FormPart { name, filename, content_type, length } = part.clone();
    RequestPart { name, filename, content_type, length }
}
