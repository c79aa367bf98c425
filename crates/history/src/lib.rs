//! The history of an endpoint: a [`Period`] for each second of the last 24 hours, in a bounded amount of
//! memory, and the sentence that says from it why an endpoint is slow.
//!
//! This crate is pure data: it reads no clock and knows no server. `server/history.rs` samples the
//! endpoints once a second.

mod block;
mod history;
mod period;
mod slow;
mod varint;

pub use history::{History, Located};
pub use period::{BUCKETS, Errors, Period, quantile};
pub use slow::{Batch, Situation, explanation};
