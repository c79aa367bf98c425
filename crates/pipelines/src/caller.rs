//! The seam to the server: how a graph calls endpoints, and to whom it reports its steps.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{BoxFuture, Called, Outcome, Request, ServeError, Trace};
use tokio::time::Instant;

/// What a running graph needs of the server: calls that inherit everything of one request, and an
/// observer of its steps.
pub trait Caller: Send + Sync {
    /// Calls an endpoint. A drop of the future, or of the stream, cancels the call.
    fn call(&self, call: StepCall<'_>) -> BoxFuture<'static, Outcome<Called>>;

    /// Runs work on this many bytes where it blocks no other request.
    fn off_thread(&self, bytes: usize, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Returns the path of calls to the pipeline, which is its last part.
    fn path(&self) -> Vec<String>;

    /// Notes that a step has ended.
    fn ended(&self, step: StepReport<'_>);
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
    /// The trace whose span is that of the step, if the request is traced.
    pub trace: Option<Arc<Trace>>,
    /// How the response may come.
    pub delivery: Delivery,
    /// Whether it is for a shadow, for which the pipeline does not wait.
    pub is_shadow: bool,
}

/// How the response of a step may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// As a value.
    Whole,
    /// As a value or a stream: it becomes the response of the pipeline.
    Any,
    /// As items where it has any, because the client of the pipeline reads them as they come.
    Items,
}

/// A step that has ended, for metrics and spans.
#[derive(Debug)]
pub struct StepReport<'a> {
    /// The name of the step; without one, its endpoint or its kind.
    pub name: &'a str,
    /// The start of the step.
    pub began: Instant,
    /// Whether it ran for an item of a map. The map is the step that counts.
    pub is_in_map: bool,
    /// The trace whose span is that of the step, if it has one.
    pub trace: Option<&'a Trace>,
    /// How it ended.
    pub ended: Ended<'a>,
}

/// How a step ended. One with a stream has ended here when the first items are there.
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
    /// Before it began: it is a shadow, and too many copies of it were running.
    Skipped,
}
