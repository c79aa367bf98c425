//! The link to one worker: two connections over which the framed protocol runs.
//!
//! ```text
//! handshake ──► LinkWorker ──commands──► Connection ◄──data frames──► the worker's loop
//!                   └───cost queries───► Control ◄──control frames──► its control thread
//!             Connection ◄──what calls inherit── CallsConnection ◄──calls── its hooks
//! ```
//!
//! The data connection owns the jobs that the worker holds; the control connection knows whether
//! the worker lives and is healthy; the calls connection is dialled when a hook first calls another
//! endpoint. All run over any [`Transport`]: this module knows no kind of
//! socket and no process. How a worker is started, and what ends it, is left to the launch that
//! made the connections. `protocol/PROTOCOL.md` is the contract between the two ends.

mod calls;
mod code;
mod connection;
mod control;
mod handshake;
mod in_flight;
mod metrics;
mod outbox;
mod pulse;
mod unhealthy;
mod worker;

use litplex_wire::FrameError;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use calls::WorkerNames;
pub(crate) use code::{CodeHandle, loaded_file};
pub(crate) use connection::REPORT_AFTER;
pub(crate) use control::HeartbeatSettings;
pub(crate) use handshake::{Connections, Handshake, greet_caller, model_info};
pub(crate) use in_flight::STREAM_CREDIT;
pub use in_flight::SharedPatience;
pub(crate) use metrics::SlotMetrics;
pub(crate) use unhealthy::HealthGuard;
pub use unhealthy::UnhealthyCount;
pub(crate) use worker::{Link, LinkSettings};

/// A byte stream to a worker.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for S {}

fn from_meta<T: serde::de::DeserializeOwned>(meta: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(meta).map_err(|_| FrameError::Message)
}
