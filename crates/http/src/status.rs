//! The state of the server, as status pages show it and operators change it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use litplex_calls::Report;
use tokio::sync::Notify;

/// Whether the server drains, and the report on its endpoints.
pub(crate) struct Status {
    is_draining: AtomicBool,
    shutdown: Notify,
    report: Box<dyn Fn() -> Report + Send + Sync>,
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("is_draining", &self.is_draining).finish_non_exhaustive()
    }
}

impl Status {
    /// Returns the status of a server that accepts requests; `report` is called for each page.
    pub(crate) fn new(report: impl Fn() -> Report + Send + Sync + 'static) -> Self {
        let (is_draining, shutdown) = (AtomicBool::new(false), Notify::new());
        Self { is_draining, shutdown, report: Box::new(report) }
    }

    /// Refuses the requests that arrive from now on.
    pub(crate) fn begin_drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    pub(crate) fn report(&self) -> Report {
        (self.report)()
    }

    pub(crate) fn request_shutdown(&self) {
        self.shutdown.notify_one();
    }

    /// Resolves when a client has requested the shutdown.
    pub(crate) async fn shutdown_requested(&self) {
        self.shutdown.notified().await;
    }
}
