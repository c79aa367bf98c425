//! Python models, each in a process of its own with any interpreter.
//!
//! ```text
//! PythonLaunch ──spawns──► python …/litplex/_worker
//!      │                        │ dials in twice: data and control
//!      ▼                        ▼
//! Connection (Worker) ◄──data frames──► its loop
//! Control             ◄──control frames──► its control thread
//! ```
//!
//! `protocol/PROTOCOL.md` is the contract between the two.

mod app_host;
mod cgroup;
mod connection;
mod control;
mod digest;
mod environments;
mod handshake;
mod in_flight;
mod inspect;
mod launch;
mod launched;
mod marks;
mod memory;
mod metrics;
mod orphans;
mod outbox;
mod output;
mod process;
mod pulse;
mod record;
mod requirements;
mod sdk;
mod unwell;
mod venv;

pub use app_host::{AppHostLaunch, AppHostSpec};
pub use environments::{Environment, environments, remove_environment};
pub use inspect::{Inspected, Inspection, inspect};
pub use launch::{Overrides, PythonLaunch, PythonSpec};
pub use memory::with_descendants;
pub use orphans::{adopt_orphans, end_orphans};
pub use output::{OUTPUT, OutputSpec, logs_objects};
pub use sdk::{Sdk, default_interpreter};
pub use unwell::Unwell;
