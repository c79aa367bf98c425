//! Pipelines: endpoints whose model is a graph of calls of other endpoints.
//!
//! ```text
//! JSON definition ─read─► Graph ─check─► errors with their places
//!                           └─run(request)─► Caller::call(endpoint) … ─► a response, or a stream
//! ```
//!
//! A definition is JSON; Python, TOML and the Rust builder ([`Step`]) write the same. [`Graph::read`]
//! checks it alone, [`check()`] checks all graphs of a server together with its endpoints. A graph runs
//! inside the future of its request: dropping that future cancels every call. The crate knows no queue
//! and no HTTP: what a call is belongs to the [`Caller`].

mod builder;
mod caller;
mod check;
mod condition;
mod draw;
mod error;
mod fit;
mod graph;
mod kserve;
mod map;
mod path;
mod read;
mod run;
mod scope;
mod selection;
mod show;
mod template;
mod value;

pub use builder::Step;
pub use caller::{Caller, Delivery, Ended, StepCall, StepReport};
pub use check::{Endpoint, check};
pub use error::PipelineError;
pub use fit::{misfit, misfits};
pub use graph::{CallingStep, Graph};
pub use kserve::{Imported, import};
