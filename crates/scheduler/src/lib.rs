//! The queue of an endpoint: admission, batching, and which worker gets what.
//!
//! ```text
//! Endpoint (handle) ──event──► EndpointTask ──jobs──► Worker
//!                                   ▲                   │
//!                                   └──── Progress ─────┘
//! ```
//!
//! One task owns an endpoint's queue and its view of the workers. What it decides are pure
//! functions of that view and the time: whether a job may wait ([`admit`]), what goes where
//! ([`decide`]), what goes together ([`fill`]). It never touches a socket, a process or JSON.

mod admission;
mod busy;
mod decide;
mod fill;
mod handle;
mod member;
#[cfg(test)]
mod schedules;
mod speed;
mod state;
mod task;
mod window;

pub use admission::{Backlog, Refusal, admit};
pub use decide::{Decision, Load, Rules, Waiting, decide};
pub use fill::fill;
pub use handle::{Endpoint, EndpointLoad, Outlook, Settings, WorkerLoad, spawn_endpoint};
pub use speed::Speed;
pub use window::{ServiceTime, window};
