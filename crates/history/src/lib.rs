//! The history of an endpoint: a [`Period`] for each second of the last 24 hours, in a bounded amount of
//! memory, and the sentence that says from it why an endpoint is slow.
//!
//! It also remembers the last requests of each endpoint, the last that failed and the slowest, with their
//! stages ([`RequestLogs`]).
//!
//! This crate knows no server. `server/history.rs` samples the endpoints once a second, and `http` records
//! the requests.

mod block;
mod history;
mod period;
mod requests;
mod slow;
mod varint;

pub use history::{History, Located};
pub use period::{BUCKETS, ErrorCounts, Period, quantile};
pub use requests::{
    Choice, KeptBody, RequestLog, RequestLogs, RequestRecord, Stage, StageKind, recorded_stages,
};
pub use slow::{Batch, Situation, explanation};
