//! The seam to the server: how a graph calls endpoints, and to whom it reports its steps.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use litplex_core::{
    BoxFuture, Items, Outcome, Part, Request, Response, ServeError, StreamReceiver,
};
use tokio::time::Instant;

/// What a running graph needs of the server: calls that inherit everything of one request, and an
/// observer of its steps.
pub trait Caller: Send + Sync {
    /// Calls an endpoint. A drop of the future, or of the stream, cancels the call.
    fn call(
        &self,
        endpoint: &str,
        request: Request,
        timeout: Option<Duration>,
    ) -> BoxFuture<'static, Outcome<Called>>;

    /// Notes that a step has ended.
    fn ended(&self, step: &StepReport<'_>);
}

/// The response to a call.
pub enum Called {
    /// A whole response.
    Whole(Response),
    /// The first items of a stream, and the rest of it.
    Stream(Items, Box<dyn Parts>),
}

impl fmt::Debug for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(response) => f.debug_tuple("Whole").field(response).finish(),
            Self::Stream(first, _) => f.debug_tuple("Stream").field(first).finish_non_exhaustive(),
        }
    }
}

/// The rest of a stream.
pub trait Parts: Send {
    /// Polls for the next part; not called again after the last one.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part>;
}

impl Parts for StreamReceiver {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        self.poll_part(cx)
    }
}

/// A step that has ended, for metrics and spans.
#[derive(Debug)]
pub struct StepReport<'a> {
    /// The name of the step; without one, its endpoint or its kind.
    pub name: &'a str,
    /// The start of the step.
    pub began: Instant,
    /// How it ended.
    pub ended: Ended<'a>,
}

/// How a step ended. A stream has ended here when its first items are there.
#[derive(Debug, Clone, Copy)]
pub enum Ended<'a> {
    /// With a value.
    Done,
    /// With this error.
    Failed(&'a ServeError),
    /// With this error, in place of which the pipeline has taken a default.
    Defaulted(&'a ServeError),
    /// Before its end, because another step failed, its time was up or the client left.
    Cancelled,
}
