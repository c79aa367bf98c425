//! Residency: which workers are in memory, within a budget.
//!
//! A worker asks for memory before it starts. It is granted, or others are evicted for it, or it waits, or it is
//! refused with the sum. [`Residency`] decides; it starts and stops nothing, reads no clock and does no I/O: one
//! task reports the events and carries out the actions. The measuring of memory, the queues of requests and the
//! processes belong to others.

mod candidates;
mod decide;
mod endpoint;
mod event;
mod history;
mod memory;
mod price;
mod rate;
mod residency;
mod settings;
mod victims;
mod waiting;

pub use event::{
    Action, Ask, EndpointId, Event, EvictionCause, Refusal, RefusalReason, Usage, WorkerId,
};
pub use history::StartHistory;
pub use memory::{Memory, Place};
pub use residency::Residency;
pub use settings::{KeepAlive, Patience, ResidencySettings};

#[cfg(test)]
mod incidents;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod simulation;
