//! The two kinds of worker: a Rust model on a thread of this process, and a Python model in a
//! process of its own, over the framed protocol.
//!
//! Both are a [`Launch`](litplex_core::Launch) for the supervisor, and hand a
//! [`Worker`](litplex_core::Worker) to their endpoint's queue once they are ready.

mod error;
mod inproc;
mod link;
mod log_file;
mod process;
mod span;

pub use error::Error;
pub use inproc::{Callee, Callees, InprocLaunch, Settings, batches, current_requests, streams};
pub use link::{SharedPatience, UnhealthyCount};
pub use log_file::LogFile;
pub use process::{
    AppHostLaunch, AppHostSpec, Description, Environment, FOR_SERVERS, Inspected, Inspection,
    OUTPUT, OutputHistory, OutputLine, OutputSpec, Overrides, Preload, ProcessSpec, PythonLaunch,
    PythonProgram, Sdk, Templates, WorkerLimits, WorkerSpec, WorkerTelemetry, adopt_orphans,
    become_reaper, default_interpreter, end_orphans, environments, forget_beside, inspect,
    list_beside, logs_objects, remove_environment, reported_sources, start_beside,
};
pub use span::{endpoint_span, worker_span};
