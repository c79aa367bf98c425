//! The body type that layers see: of requests, and of responses on their way through layers.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use litplex_core::{BoxError, Reservation};
use tokio::time::Instant;

use crate::request_name::RequestName;
use crate::response::ResponseBody;
use crate::stream::Broken;
use crate::upload::Upload;

/// The body of a request or of a response. Its pieces arrive one after the other.
pub struct Body(Kind);

enum Kind {
    Empty,
    Upload(Upload),
    /// Boxed: every request moves a `Body` several times, and only layers have this kind.
    Response(Box<ResponseBody>),
    Other(UnsyncBoxBody<Bytes, BoxError>),
    /// Boxed: only requests at paths that several endpoints share have this kind.
    Received(Box<Received>),
}

/// A body that has arrived, and the memory that it takes.
struct Received {
    data: Option<Bytes>,
    reservation: Reservation,
    arrived: Instant,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Body {
    /// Returns a body with the data of any other type of body.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        Self(Kind::Other(body.map(|b| b.map_err(Into::into).boxed_unsync()).unwrap_or_default()))
    }

    /// Returns a body that was read, of a request that arrived at this instant. Its memory stays in the
    /// reservation until it is read again.
    pub fn received(data: Bytes, reservation: Reservation, arrived: Instant) -> Self {
        let data = Some(data).filter(|data| !data.is_empty());
        Self(Kind::Received(Box::new(Received { data, reservation, arrived })))
    }

    /// Returns the instant at which the request arrived, if the body was read since.
    pub fn arrived(&self) -> Option<Instant> {
        match &self.0 {
            Kind::Received(received) => Some(received.arrived),
            _ => None,
        }
    }

    /// Returns it as the body of the response to this request.
    pub fn into_response_body(self, request: RequestName) -> ResponseBody {
        match self.0 {
            Kind::Response(body) => *body,
            Kind::Empty => ResponseBody::default(),
            kind => ResponseBody::boxed(FromLayer { body: Self(kind), request }),
        }
    }
}

/// A response body that a layer made. A panic in it ends this body alone: hyper would take the
/// connection down, and other requests may be on it.
struct FromLayer {
    body: Body,
    request: RequestName,
}

impl http_body::Body for FromLayer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let body = Pin::new(&mut self.body);
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) else {
            tracing::error!(request_id = self.request.text(), "the body of a layer panicked");
            return Poll::Ready(Some(Err(internal())));
        };
        polled.map_err(|error| match error.downcast::<Broken>() {
            Ok(broken) => *broken,
            Err(error) => {
                let request_id = self.request.text();
                tracing::error!(error = &*error, request_id, "the body of a layer failed");
                internal()
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn internal() -> Broken {
    Broken { status: StatusCode::INTERNAL_SERVER_ERROR.as_u16() }
}

impl Default for Body {
    fn default() -> Self {
        Self(Kind::Empty)
    }
}

impl From<Upload> for Body {
    fn from(body: Upload) -> Self {
        Self(Kind::Upload(body))
    }
}

impl From<ResponseBody> for Body {
    fn from(body: ResponseBody) -> Self {
        Self(Kind::Response(Box::new(body)))
    }
}

impl From<Bytes> for Body {
    fn from(body: Bytes) -> Self {
        ResponseBody::Whole(Some(body).filter(|body| !body.is_empty())).into()
    }
}

impl From<String> for Body {
    fn from(body: String) -> Self {
        Bytes::from(body).into()
    }
}

impl From<&'static str> for Body {
    fn from(body: &'static str) -> Self {
        Bytes::from_static(body.as_bytes()).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Upload(body) => Pin::new(body).poll_frame(cx),
            Kind::Response(body) => Pin::new(&mut **body).poll_frame(cx).map_err(Into::into),
            Kind::Other(body) => Pin::new(body).poll_frame(cx),
            Kind::Received(body) => {
                let data = body.data.take();
                body.reservation.shrink(data.as_ref().map_or(0, Bytes::len));
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Upload(body) => body.is_end_stream(),
            Kind::Response(body) => body.is_end_stream(),
            Kind::Other(body) => body.is_end_stream(),
            Kind::Received(body) => body.data.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Upload(body) => body.size_hint(),
            Kind::Response(body) => body.size_hint(),
            Kind::Other(body) => body.size_hint(),
            Kind::Received(body) => {
                SizeHint::with_exact(body.data.as_ref().map_or(0, |data| data.len() as u64))
            }
        }
    }
}
