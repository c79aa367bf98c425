//! Rust models, each on a thread of its own in this process.
//!
//! ```text
//! Inproc (Worker) ──jobs──► thread: Model ──answers──► deliver task ──► callers
//! ```
//!
//! Answers go through a task of the runtime: waking one task for all answers that are there is
//! far cheaper than waking every caller from another thread.

mod calls;
mod launch;
mod model;
mod names;

pub use calls::{Callee, Callees};
pub use launch::{InprocLaunch, Settings, batches, streams};
pub use names::current_requests;
