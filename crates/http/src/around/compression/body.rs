use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame};
use litplex_core::Reservation;
use tokio::task::{JoinHandle, spawn_blocking};

use super::INLINE_BYTES;
use super::coding::{Coding, Encoder};
use crate::answer::AnswerBody;
use crate::stream::Broken;

/// A body that is compressed as it comes. Each piece goes out at once: the first token of a stream
/// must not wait for the second.
pub(crate) struct PackedBody {
    body: AnswerBody,
    work: Work,
    /// What the encoder takes.
    _held: Reservation,
}

enum Work {
    /// The next piece is waited for.
    Waiting(Encoder),
    /// A large piece is compressed where it holds nobody up.
    Packing(JoinHandle<(Encoder, Bytes)>),
    Ended,
}

impl fmt::Debug for PackedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedBody").field("body", &self.body).finish_non_exhaustive()
    }
}

impl PackedBody {
    /// Returns a body that is compressed, whose encoder takes what is reserved.
    pub(super) fn new(coding: Coding, body: AnswerBody, held: Reservation) -> Self {
        Self { body, work: Work::Waiting(Encoder::new(coding, None)), _held: held }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(self.work, Work::Ended)
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            let packed = match &mut self.work {
                Work::Waiting(_) => match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let Ok(piece) = frame.into_data() else { continue };
                        self.pack(piece)
                    }
                    Some(Err(broken)) => {
                        self.work = Work::Ended;
                        return Poll::Ready(Some(Err(broken)));
                    }
                    None => self.finish(),
                },
                Work::Packing(packing) => {
                    let Ok((encoder, packed)) = ready!(Pin::new(packing).poll(cx)) else {
                        self.work = Work::Ended;
                        let status = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
                        return Poll::Ready(Some(Err(Broken { status })));
                    };
                    self.work = Work::Waiting(encoder);
                    Some(packed)
                }
                Work::Ended => return Poll::Ready(None),
            };
            if let Some(packed) = packed.filter(|packed| !packed.is_empty()) {
                return Poll::Ready(Some(Ok(Frame::data(packed))));
            }
        }
    }

    /// Compresses a piece, or begins to.
    fn pack(&mut self, piece: Bytes) -> Option<Bytes> {
        let Work::Waiting(mut encoder) = std::mem::replace(&mut self.work, Work::Ended) else {
            return None;
        };
        if piece.len() > INLINE_BYTES {
            self.work = Work::Packing(spawn_blocking(move || {
                let packed = encoder.pack(&piece);
                (encoder, packed)
            }));
            return None;
        }
        let packed = encoder.pack(&piece);
        self.work = Work::Waiting(encoder);
        Some(packed)
    }

    fn finish(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.work, Work::Ended) {
            Work::Waiting(encoder) => Some(encoder.finish()),
            _ => None,
        }
    }
}
