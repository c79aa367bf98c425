//! The queue of an endpoint: admission, batching and dispatch.
//!
//! ```text
//! Endpoint (handle) ──event──► EndpointTask ──jobs──► Worker
//!                                   ▲                   │
//!                                   └──── Progress ─────┘
//! ```
//!
//! One task owns an endpoint's queue and its view of the workers. Its decisions are pure functions
//! of that view and the time: whether a job is admitted ([`admit`]), which worker gets jobs
//! ([`decide`]), which jobs form a batch ([`fill`]). The crate never touches a socket, a process or
//! JSON.

mod admission;
mod attached;
mod batch_model;
#[cfg(test)]
mod batch_simulations;
mod busy;
mod decide;
mod event;
mod fill;
mod handle;
mod load;
mod pace;
mod queue;
#[cfg(test)]
mod schedules;
mod settings;
mod share;
mod size;
mod speed;
mod standing;
mod state;
mod task;
mod turn;
mod window;

pub use admission::{Backlog, Refusal, admit};
pub use batch_model::{Basis, BatchModel, BatchWork, Learned};
pub use decide::{Decision, Load, Rules, Waiting, decide};
pub use fill::fill;
pub use handle::{Endpoint, spawn_endpoint, spawn_seated_endpoint};
pub use load::{EndpointLoad, WorkerLoad};
pub use pace::Pace;
pub use settings::{Outlook, QueueSettings};
pub use share::{Capacity, DeviceShares, Seat, SharedDevice};
pub use speed::Speed;
pub use window::{ServiceTime, window};
