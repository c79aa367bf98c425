//! The link to one worker: two connections over which the framed protocol runs.
//!
//! The data connection owns the jobs that the worker holds; the control connection knows whether
//! the worker lives and is healthy. How the worker was started, and what ends it, is left to the
//! launch that made the connections. `protocol/PROTOCOL.md` is the contract between the two ends.

pub(crate) mod connection;
pub(crate) mod control;
pub(crate) mod handshake;
pub(crate) mod in_flight;
pub(crate) mod metrics;
mod outbox;
pub(crate) mod pulse;
mod unhealthy;

pub use unhealthy::Unwell;
