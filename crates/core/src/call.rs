//! Numbers of the calls between endpoints, and of the workers whose hooks make calls.

/// The number of a call of a hook or a pipeline, unique within this process. A later call has a
/// larger number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// The number of an attached worker, unique within this process. It is never used for another worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerKey(pub u64);
