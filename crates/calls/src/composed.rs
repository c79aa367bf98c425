//! Endpoints without workers, which answer by calls of others.

use std::fmt::Debug;
use std::sync::Arc;

use litplex_core::{BoxFuture, Called, ModelInfo, Origin, Outcome, Request, Trace};

use crate::TimeBudget;

/// An endpoint without workers, which answers by calls of others.
pub trait Composed: Debug + Send + Sync {
    /// Returns its properties.
    fn info(&self) -> &ModelInfo;

    /// Answers a request. A drop before the end cancels its calls.
    fn run<'a>(&'a self, parent: Inherited, request: Request) -> BoxFuture<'a, Outcome<Called>>;
}

/// The parts of a call that the calls below it inherit.
#[derive(Debug, Clone)]
pub struct Inherited {
    /// The time that it may take.
    pub budget: TimeBudget,
    /// The trace of the request, if it is traced.
    pub trace: Option<Arc<Trace>>,
    /// Its place among the calls of endpoints; `None` if nothing is known.
    pub origin: Option<Arc<Origin>>,
    /// Whether the caller reads the items of a list as they come.
    pub takes_items: bool,
}
