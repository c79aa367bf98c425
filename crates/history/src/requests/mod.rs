//! The last requests of each endpoint, with their stages, in a bounded amount of memory.

mod body;
mod log;
mod record;
mod retained;
mod stages;

pub use body::KeptBody;
pub use log::{RequestLog, RequestLogs};
pub use record::{RequestRecord, Stage, StageKind};
pub use retained::Choice;
pub use stages::recorded_stages;
