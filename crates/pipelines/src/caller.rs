//! The seam to the server: how a graph calls endpoints, and to whom it reports its steps.

use std::time::Duration;

use litplex_core::{BoxFuture, Called, Outcome, Request, ServeError};
use tokio::time::Instant;

/// What a running graph needs of the server: calls that inherit everything of one request, and an
/// observer of its steps.
pub trait Caller: Send + Sync {
    /// Calls an endpoint. A drop of the future, or of the stream, cancels the call.
    fn call(&self, call: StepCall<'_>) -> BoxFuture<'static, Outcome<Called>>;

    /// Runs work on this many bytes where it blocks no other request.
    fn off_thread(&self, bytes: usize, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Notes that a step has ended.
    fn ended(&self, step: &StepReport<'_>);
}

/// A call that a step makes.
#[derive(Debug)]
pub struct StepCall<'a> {
    /// The path or the name of the endpoint.
    pub endpoint: &'a str,
    /// The request.
    pub request: Request,
    /// The time limit of the step.
    pub timeout: Option<Duration>,
    /// Whether the response becomes that of the pipeline, so that it may be a stream. Other steps need a
    /// value.
    pub is_last: bool,
    /// Whether it is for a shadow, for which the pipeline does not wait.
    pub is_shadow: bool,
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
