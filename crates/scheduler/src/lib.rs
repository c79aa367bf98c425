//! The queue of an endpoint: admission, batching, and which worker gets what.
//!
//! ```text
//! Endpoint (handle) ──event──► EndpointTask ──jobs──► Worker
//!                                   ▲                   │
//!                                   └──── Progress ─────┘
//! ```
//!
//! One task owns an endpoint's queue and its view of the workers. What it decides is a pure
//! function ([`decide`]) of that view and the time. It never touches a socket, a process or JSON.

mod decide;
mod handle;
mod task;
mod window;

pub use decide::{Decision, Load, Rules, decide};
pub use handle::{Endpoint, spawn_endpoint};
pub use window::{ServiceTime, window};
