//! The first bytes of a body on its way, for the memory of requests.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::{Frame, SizeHint};
use litplex_core::BoxError;
use litplex_history::KeptBody;
use litplex_http_core::body::Body;

/// The start of a body that is kept.
#[derive(Debug)]
pub(crate) struct BodyStart {
    content_type: Box<str>,
    data: Vec<u8>,
    limit: usize,
    is_cut: bool,
}

impl BodyStart {
    /// Returns the start of a body with these headers, without a byte yet; `None` if the body is encoded, or
    /// is neither JSON nor text.
    pub(crate) fn new(headers: &HeaderMap, limit: usize) -> Option<Self> {
        let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let is_plain = !headers.contains_key(CONTENT_ENCODING) && KeptBody::is_kept(content_type);
        let (data, is_cut) = (Vec::new(), false);
        is_plain.then(|| Self { content_type: content_type.into(), data, limit, is_cut })
    }

    /// Adds the next bytes.
    pub(crate) fn push(&mut self, data: &[u8]) {
        let room = self.limit - self.data.len();
        self.is_cut |= data.len() > room;
        self.data.extend_from_slice(&data[..data.len().min(room)]);
    }

    /// Returns it as it is remembered.
    pub(crate) fn kept(&self) -> KeptBody {
        KeptBody::new(&self.content_type, &self.data, self.is_cut)
    }
}

/// The start of the body of a request, shared with the body.
#[derive(Debug, Clone)]
pub(crate) struct SharedStart(Arc<Mutex<BodyStart>>);

impl SharedStart {
    /// Returns the start of this body, which notes its bytes as they are read.
    pub(crate) fn of(body: &mut Body, start: BodyStart) -> Self {
        let shared = Self(Arc::new(Mutex::new(start)));
        *body = Body::new(Noted { body: std::mem::take(body), start: shared.clone() });
        shared
    }

    /// Returns it as it is remembered.
    pub(crate) fn kept(&self) -> KeptBody {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).kept()
    }
}

/// A body whose first bytes are noted.
struct Noted {
    body: Body,
    start: SharedStart,
}

impl http_body::Body for Noted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.start.0.lock().unwrap_or_else(PoisonError::into_inner).push(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
