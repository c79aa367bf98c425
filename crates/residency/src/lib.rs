//! Residency: which workers are in memory, within a budget.
//!
//! [`Residency`] decides; it starts and stops nothing, reads no clock and does no I/O: one task reports the
//! [`Event`]s and carries out the [`Action`]s. The measuring of memory, the queues of requests and the processes
//! belong to others.
//!
//! # The life of an ask
//!
//! ```text
//!            ┌────────────── Refuse: too large, knot, deadline ──────────────► answered
//! Ask ─► waiting ─► Grant ─► loading ─Started─► resident ─Evict─► leaving ─Gone─► gone ─MemoryBack─► free
//!            │                  │                    │  │             │  ▲
//!            │                  └────Gone──► gone     │  └─Hibernated──┴─►hibernated ─Grant─► loading
//!            └─Withdraw─► free                       └─remove_endpoint┘     └─End─► leaving
//! ```
//!
//! An ask that fits beside all memory that is held is granted at once. Otherwise the cheapest set of workers that
//! frees enough is evicted for it, once the ask has waited for as long as the eviction is expected to cost, or is
//! urgent: after [`Patience::longest_wait`], early enough for its deadline, or at once if a caller is blocked. Its
//! memory is reserved from then on. None of the *core* leaves for an ask that is not urgent, if the others can free
//! enough: the core is the most valuable set of workers that leaves room for any other model. A worker that leaves
//! is asked for again like any other, and is granted after its own memory is back. Memory counts from `Grant` to
//! `MemoryBack`, at the predicted amount until `Started` or `Measured` reports another. A worker that hibernates has a
//! little of it, and its slot is free: the next grant wakes it.
//!
//! # Who sends which event
//!
//! | event | sender | instant |
//! |---|---|---|
//! | [`Event::Arrivals`] | the queue of the endpoint | requests have come, also if a worker is ready |
//! | [`Event::Ask`] | the launch of a slot | before the process starts; with the requests, the callers and a deadline |
//! | [`Event::Queued`] | the queue | the number of requests that wait for a worker has changed |
//! | [`Event::Withdraw`] | the launch | it is dropped before its grant |
//! | [`Event::Started`] | the launch | the worker is ready |
//! | [`Event::Loads`] | the launch | a worker that was granted is loaded, and not woken |
//! | [`Event::Hibernated`] | the launch | a worker that left its slot is stopped, and most of its memory in swap |
//! | [`Event::Measured`] | the monitor of the worker | each measurement, also while it loads |
//! | [`Event::Usage`] | the queue | the first job begins, the last one ends |
//! | [`Event::Gone`] | the end of the worker | its process is gone, whatever the reason |
//! | [`Event::MemoryBack`] | what measures the places | see below |
//! | [`Event::Budget`] | the settings | a reload, or another program takes or returns memory |
//! | [`Event::Tick`] | the task itself | at [`Residency::next_due`] |
//!
//! # What the caller promises
//!
//! - All events come through one task, with instants that never go backwards, and its actions are carried out in
//!   their order. After each event the task asks for [`Residency::next_due`] again.
//! - `MemoryBack` is reported only when the measured memory of each place has really fallen, not when the process
//!   has ended: a driver frees a device's memory later. If the fall cannot be measured, the caller reports it after a
//!   time that is long enough, and a budget that leaves room for what remains.
//! - Every granted worker is reported as `Started` or `Gone`; every evicted one as `Gone` or `Hibernated`. The
//!   caller kills a load or a drain that takes too long: this crate bounds the wait of asks, not that of processes.
//! - A victim gets no job after its `Evict`, although the process still runs. Requests for it wait, and ask.
//! - Requests for a resident worker are not held back by any load.
//! - [`Ask::chain`] holds every endpoint that is blocked in a call on the path to the ask. One that is left out
//!   may be evicted in vain, and a call whose callers cannot fit beside it waits until its deadline.

mod candidates;
mod core;
mod decide;
mod endpoint;
mod event;
mod history;
mod memory;
mod plan;
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
pub use plan::Plan;
pub use residency::Residency;
pub use settings::{Patience, ResidencySettings};

#[cfg(test)]
mod incidents;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod simulation;
