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

use super::BoxError;
use crate::answer::AnswerBody;
use crate::stream::Broken;
use crate::upload::Upload;

/// The body of a request, or of an answer. It comes piece by piece, as it is sent.
pub struct Body(Kind);

enum Kind {
    Empty,
    Upload(Upload),
    /// Boxed: every request moves a `Body` several times, and only layers have this kind.
    Answer(Box<AnswerBody>),
    Other(UnsyncBoxBody<Bytes, BoxError>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Body {
    /// Makes one of any other.
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

    /// Makes it one that is sent.
    pub(crate) fn into_answer(self) -> AnswerBody {
        match self.0 {
            Kind::Answer(answer) => *answer,
            Kind::Empty => AnswerBody::default(),
            kind => AnswerBody::Layered(Box::new(Self(kind))),
        }
    }

    /// Gives the next piece to hyper, which a panic here must not take down with it: other requests
    /// may be on the same connection.
    pub(crate) fn poll_sent(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let poll = AssertUnwindSafe(|| http_body::Body::poll_frame(Pin::new(self), cx));
        let Ok(polled) = catch_unwind(poll) else {
            tracing::error!("the body of a layer panicked");
            return Poll::Ready(Some(Err(internal())));
        };
        polled.map_err(|error| match error.downcast::<Broken>() {
            Ok(broken) => *broken,
            Err(error) => {
                tracing::error!(error = &*error, "the body of a layer failed");
                internal()
            }
        })
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

impl From<AnswerBody> for Body {
    fn from(body: AnswerBody) -> Self {
        Self(Kind::Answer(Box::new(body)))
    }
}

impl From<Bytes> for Body {
    fn from(body: Bytes) -> Self {
        AnswerBody::Whole(Some(body).filter(|body| !body.is_empty())).into()
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
            Kind::Answer(body) => Pin::new(&mut **body).poll_frame(cx).map_err(Into::into),
            Kind::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Upload(body) => body.is_end_stream(),
            Kind::Answer(body) => body.is_end_stream(),
            Kind::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Upload(body) => body.size_hint(),
            Kind::Answer(body) => body.size_hint(),
            Kind::Other(body) => body.size_hint(),
        }
    }
}
