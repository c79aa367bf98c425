//! The last requests of each endpoint, with their stages, in a bounded amount of memory.

mod log;
mod record;
mod retained;
mod stages;

pub use log::{RequestLog, RequestLogs};
pub use record::{RequestRecord, Stage, StageKind};
pub use retained::Choice;
pub use stages::recorded_stages;
