//! A response body that is compressed while it is sent.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame};
use litplex_core::Reservation;
use litplex_http_core::response::ResponseBody;
use litplex_http_core::stream::Broken;
use tokio::task::{JoinHandle, spawn_blocking};

use super::INLINE_BYTES;
use super::coding::{Coding, Encoder};

/// A body that is compressed piece by piece. Each piece is sent at once: the first token of a
/// stream must not wait for the second.
pub(crate) struct CompressedBody {
    body: ResponseBody,
    work: Work,
    /// The memory of the encoder.
    _held: Reservation,
}

enum Work {
    /// The next piece has not arrived.
    Waiting(Encoder),
    /// A large piece is being compressed off the HTTP threads.
    Compressing(JoinHandle<(Encoder, Bytes)>),
    Ended,
}

impl fmt::Debug for CompressedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressedBody").field("body", &self.body).finish_non_exhaustive()
    }
}

impl CompressedBody {
    /// Returns a body that is compressed, whose encoder takes the reserved memory.
    pub(super) fn new(coding: Coding, body: ResponseBody, held: Reservation) -> Self {
        Self { body, work: Work::Waiting(Encoder::new(coding, None)), _held: held }
    }

    /// Compresses a piece, or begins to.
    fn compress(&mut self, piece: Bytes) -> Option<Bytes> {
        let Work::Waiting(mut encoder) = std::mem::replace(&mut self.work, Work::Ended) else {
            return None;
        };
        if piece.len() > INLINE_BYTES {
            self.work = Work::Compressing(spawn_blocking(move || {
                let compressed = encoder.compress(&piece);
                (encoder, compressed)
            }));
            return None;
        }
        let compressed = encoder.compress(&piece);
        self.work = Work::Waiting(encoder);
        Some(compressed)
    }

    fn finish(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.work, Work::Ended) {
            Work::Waiting(encoder) => Some(encoder.finish()),
            _ => None,
        }
    }
}

impl Body for CompressedBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        loop {
            let compressed = match &mut this.work {
                Work::Waiting(_) => match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let Ok(piece) = frame.into_data() else { continue };
                        this.compress(piece)
                    }
                    Some(Err(broken)) => {
                        this.work = Work::Ended;
                        return Poll::Ready(Some(Err(broken)));
                    }
                    None => this.finish(),
                },
                Work::Compressing(compressing) => {
                    let Ok((encoder, compressed)) = ready!(Pin::new(compressing).poll(cx)) else {
                        this.work = Work::Ended;
                        let status = StatusCode::INTERNAL_SERVER_ERROR.as_u16();
                        return Poll::Ready(Some(Err(Broken { status })));
                    };
                    this.work = Work::Waiting(encoder);
                    Some(compressed)
                }
                Work::Ended => return Poll::Ready(None),
            };
            if let Some(compressed) = compressed.filter(|compressed| !compressed.is_empty()) {
                return Poll::Ready(Some(Ok(Frame::data(compressed))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.work, Work::Ended)
    }
}
