//! Slots: places for workers, each started, watched, replaced and stopped on its own.
//!
//! ```text
//! Supervisor (handle) ──wish──► SupervisorTask ──► Launch, Launched
//!                                     │
//! Health, Outlook ◄────states─────────┘
//! ```
//!
//! The supervisor sees workers through [`Launch`](litplex_core::Launch) alone: no job, process id
//! or Python. One task owns the slots of an endpoint; what each is doing is published on a watch,
//! and [`health`] and [`outlook`] are pure readings of it. What a slot does next and how long it
//! backs off are pure functions too.
//!
//! How many slots are wanted is the caller's to say. [`Autoscaler`] says it from the load, as a
//! pure function of what it was shown and when.

mod autoscale;
mod health;
mod peak;
mod rate;
mod restart;
mod slot;
mod supervisor;
mod task;

pub use autoscale::{Autoscaler, Demand, Limits, Scaling};
pub use health::{Health, Outlook, health, outlook};
pub use slot::SlotState;
pub use supervisor::{Record, Settings, Supervisor, View, Wanted, supervise};
