//! The supervisor of an endpoint: slots whose workers it launches, watches, replaces and stops.
//!
//! ```text
//! Supervisor (handle) ──target─► SupervisorTask ──► Launch, Launched
//!                                       │
//! Health, Readiness ◄──states───────────┘
//! ```
//!
//! The supervisor sees workers through [`Launch`](litplex_core::Launch) alone: no job, process or
//! Python. It hands on the monitors of the workers that serve, and never asks them. One task owns
//! the slots of an endpoint and publishes their states on a watch; [`health`] and [`readiness`] are
//! pure functions of these states. The next step of a slot and its backoff are pure functions too.
//!
//! The owner sets the number of wanted slots. [`Autoscaler`] computes it from the load, as a pure
//! function of its observations and their times.

mod autoscale;
mod health;
mod peak;
mod rate;
mod restart;
mod settings;
mod slot;
mod supervisor;
mod target;
mod task;

pub use autoscale::{Autoscaler, Demand, Limits, Scaling};
pub use health::{Health, Readiness, health, readiness};
pub use settings::SupervisorSettings;
pub use slot::SlotState;
pub use supervisor::{Supervisor, View, Wanted, supervise};
pub use target::Record;
