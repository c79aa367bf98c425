//! The mode of an endpoint.

/// The mode of an endpoint, set by its operator: what it does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Requests are answered.
    #[default]
    Serving,
    /// Requests wait in its queue, within their time budgets. Jobs that workers hold are finished.
    Paused,
    /// New requests are refused, and those in progress are finished. Calls of hooks are not refused: the
    /// work of their callers would be lost.
    Draining,
}
