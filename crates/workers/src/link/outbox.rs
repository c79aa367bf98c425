use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use litplex_core::{Content, FormPart, Job, Request};
use litplex_wire::{
    Flags, Frame, Header, Kind, RequestContent, RequestContext, RequestMeta, RequestPart,
};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Longer pieces of a body are written from where they lie; shorter ones are copied together,
/// because a piece costs more than its bytes.
const COPY_BYTES: usize = 8 * 1024;

/// Pieces in one system call.
const PIECES: usize = 32;

/// Frames that wait to be written to a worker.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Bytes>,
    /// What comes after `pieces`; frames are encoded here.
    tail: BytesMut,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }

    /// Appends a request frame; `stages` asks how long they take.
    pub(crate) fn push_request(&mut self, id: u64, more: bool, stages: bool, job: &Job) {
        let (mut flags, lead) =
            lead(&job.request, stages, || job.deadline.saturating_duration_since(Instant::now()));
        if more {
            flags = flags.with(Flags::MORE);
        }
        let length = (lead.len() + job.request.body_len()) as u32;
        Header { kind: Kind::Request, flags, status: 0, id, length }.encode(&mut self.tail);
        self.tail.put_slice(&lead);
        job.request.body.iter().for_each(|piece| self.push_piece(piece));
    }

    fn push_piece(&mut self, piece: &Bytes) {
        if piece.len() <= COPY_BYTES {
            return self.tail.put_slice(piece);
        }
        self.pieces.push_back(self.tail.split().freeze());
        self.pieces.push_back(piece.clone());
    }

    /// Writes as much as the socket takes now.
    pub(crate) fn write_to(&mut self, stream: &UnixStream) -> io::Result<()> {
        while !self.is_empty() {
            let written = match self.write_once(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                written => written?,
            };
            self.advance(written);
        }
        Ok(())
    }

    fn write_once(&self, stream: &UnixStream) -> io::Result<usize> {
        if self.pieces.is_empty() {
            return stream.try_write(&self.tail);
        }
        let pieces = self.pieces.iter().take(PIECES).map(|piece| IoSlice::new(piece));
        stream.try_write_vectored(&pieces.collect::<Vec<_>>())
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
    let (flags, lead) = lead(request, false, || Duration::ZERO);
    let mut payload = BytesMut::from(lead.as_slice());
    request.body.iter().for_each(|piece| payload.put_slice(piece));
    Frame { kind, flags, status: 0, id, payload: payload.freeze() }
}

/// Returns what stands in front of a request's body, and the flags that say so.
fn lead(request: &Request, stages: bool, remaining: impl FnOnce() -> Duration) -> (Flags, Vec<u8>) {
    let (mut flags, mut lead) = (Flags::NONE, Vec::new());
    if let Some(id) = &request.id {
        let id = &id.as_bytes()[..id.len().min(u8::MAX.into())];
        flags = flags.with(Flags::REQUEST_ID);
        lead.push(id.len() as u8);
        lead.extend_from_slice(id);
    }
    if let Some(meta) = request_meta(request, stages, remaining) {
        flags = flags.with(Flags::META);
        lead.put_u32_le(meta.len() as u32);
        lead.extend_from_slice(&meta);
    }
    (flags, lead)
}

/// Returns the JSON in front of a request, where it needs any; `stages` says whether its worker is to
/// tell how long they took, and `remaining` what is left of its time budget.
fn request_meta(
    request: &Request,
    stages: bool,
    remaining: impl FnOnce() -> Duration,
) -> Option<Vec<u8>> {
    if request.content == Content::Json && request.meta.is_none() && !stages {
        return None;
    }
    let content = match &request.content {
        Content::Json => RequestContent::Json,
        Content::Raw(media_type) => RequestContent::Raw(media_type.clone()),
        Content::Form(parts) => RequestContent::Form(parts.iter().map(request_part).collect()),
    };
    let context = request.meta.as_deref().cloned().map(|meta| RequestContext {
        method: meta.method,
        path: meta.path,
        query: meta.query,
        headers: meta.headers,
        remaining_ms: remaining().as_millis() as u64,
    });
    let meta = RequestMeta { content, context, stages };
    Some(serde_json::to_vec(&meta).expect("metadata is plain data. This is a bug."))
}

fn request_part(part: &FormPart) -> RequestPart {
    let FormPart { name, filename, content_type, length } = part.clone();
    RequestPart { name, filename, content_type, length }
}
