//! Worker processes: Python models, each in a process with an interpreter of its own.
//!
//! ```text
//! PythonLaunch ──spawns──► python …/litplex/_worker
//!      │                        │ connects twice: data and control
//!      ▼                        ▼
//! WorkerListener ◄──────────── its two connections, for a `Link`
//! ```
//!
//! This module owns all that is local to a process: its interpreter and environment, its output,
//! its memory and its end. What the two sides say to each other is left to [`crate::link`].

mod adopted;
mod app_host;
mod child;
mod description;
mod environments;
mod hibernated;
mod inspect;
mod launch;
mod launched;
mod listener;
mod lock;
mod marks;
mod memory;
mod monitor;
mod order;
mod orphans;
mod output;
mod pausing;
mod pipes;
mod record;
mod requirements;
mod running;
mod sdk;
mod spec;
mod template;
mod template_process;
mod templates;
mod venv;

pub use app_host::{AppHostLaunch, AppHostSpec, reported_sources};
pub use child::{FOR_SERVERS, forget_beside, list_beside, start_beside};
pub use description::{Description, PythonProgram};
pub use environments::{Environment, environments, remove_environment};
pub use inspect::{Inspected, Inspection, inspect};
pub use launch::{PythonLaunch, WorkerTelemetry};
pub use orphans::{adopt_orphans, become_reaper, end_orphans};
pub use output::{OUTPUT, OutputHistory, OutputLine, OutputSpec, logs_objects};
pub use sdk::{Sdk, default_interpreter};
pub use spec::{Overrides, ProcessSpec, WorkerLimits, WorkerSpec};
pub use templates::{Preload, Templates};
