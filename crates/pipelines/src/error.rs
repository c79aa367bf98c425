//! Errors of steps: which step failed, in which call, and why.

use std::fmt::{self, Write};
use std::sync::Arc;

use litplex_core::{ErrorCause, Response, ServeError};

use crate::graph::{Node, Work};
use crate::path::excerpt;

/// The error of a pipeline: that of the step that failed.
#[derive(Debug, Clone)]
pub struct PipelineError {
    /// The status, the reason, which begins with the step, and the path of calls if a call failed.
    pub error: ServeError,
    /// The name of the step; without one, its endpoint or its kind.
    pub step: Option<Arc<str>>,
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for PipelineError {}

/// The result of a part of a graph.
pub(crate) type Done<T> = Result<T, StepError>;

/// An error inside a graph. It is known in which step it arose once it has passed that step.
#[derive(Debug, Clone)]
pub(crate) struct StepError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    error: ServeError,
    step: Option<Arc<str>>,
    /// The endpoint of the step, if its name does not say it.
    endpoint: Option<String>,
    /// The items of the maps around the step, the innermost first, each with the name of its map.
    items: Vec<(usize, Arc<str>)>,
}

impl From<ServeError> for StepError {
    fn from(error: ServeError) -> Self {
        let (step, endpoint, items) = Default::default();
        Self(Box::new(Parts { error, step, endpoint, items }))
    }
}

impl StepError {
    /// Returns the error as one of this step, unless a step inside of it has failed.
    pub(crate) fn in_step(mut self, step: &Node) -> Self {
        if self.0.step.is_none() {
            self.0.step = Some(step.label.clone());
            self.0.endpoint = match &step.work {
                Work::Call(endpoint) if **endpoint != *step.label => Some(endpoint.clone()),
                _ => None,
            };
        }
        self
    }

    /// Returns the error as one of this item of a map.
    pub(crate) fn in_item(mut self, number: usize, map: Arc<str>) -> Self {
        self.0.items.push((number, map));
        self
    }

    /// Returns the error without the names.
    pub(crate) fn error(&self) -> &ServeError {
        &self.0.error
    }
}

impl From<StepError> for PipelineError {
    fn from(StepError(parts): StepError) -> Self {
        let Parts { mut error, step, endpoint, items } = *parts;
        if let Some(step) = &step {
            let mut place = format!("step `{step}`");
            if let Some(endpoint) = endpoint {
                let _ = write!(place, " ({endpoint})");
            }
            for (number, map) in items.iter().rev() {
                let _ = write!(place, ", item [{number}] of `{map}`");
            }
            error.detail = format!("{place}: {}", error.detail);
        }
        Self { error, step }
    }
}

/// Returns the error that a response with the status of one stands for.
pub(crate) fn refusal_of(response: &Response) -> ServeError {
    let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let detail = match json.get("detail") {
        Some(serde_json::Value::String(detail)) => detail.clone(),
        Some(detail) => detail.to_string(),
        None => excerpt(&response.body).into_owned(),
    };
    let retry_after = response.headers.iter().find(|it| it.0.eq_ignore_ascii_case("retry-after"));
    let retry_after = retry_after.and_then(|(_, seconds)| seconds.trim().parse().ok());
    let calls = json["calls"].as_array().into_iter().flatten();
    let calls = calls.filter_map(|call| call.as_str().map(str::to_owned));
    let calls = Vec::from_iter(calls).into();
    ServeError { retry_after, calls, ..ServeError::new(response.status, detail) }
}

/// Returns the error of a callee as that of the pipeline. What the client sent, the client must mend; a
/// refusal of what a step made is the pipeline's fault.
pub(crate) fn as_callers(error: ServeError, is_from_client: bool) -> ServeError {
    match error.status() {
        401 | 403 | 429 | 503 | 504 | 508 => error,
        400..500 if is_from_client => error,
        status => {
            let detail = format!("status {status}: {}", error.detail);
            ServeError { cause: ErrorCause::Internal, detail, retry_after: None, ..error }
        }
    }
}
