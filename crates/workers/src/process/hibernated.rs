//! A worker process that hibernates: it is stopped, and its memory is in swap.
//!
//! ```text
//! serves ──retire, `hibernate`──► moves its memory to swap ──connects──► stopped
//!   ▲                                                                      │
//!   └──────────── `ready` ── reads its memory back ◄──── continued, `setup`┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{BoxFuture, Hibernated, LaunchError, Launched, Pausing, WorkerExit};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::listener::WorkerListener;
use super::running::Running;
use crate::link::Connections;

/// Serves with a worker that was continued.
pub(crate) type Wake = Box<
    dyn FnOnce(
            Running,
            Connections<UnixStream>,
        ) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>>
        + Send,
>;

/// The means of a worker that serves to hibernate.
pub(crate) struct Hibernation {
    pub(crate) wake: Wake,
    pub(crate) listener: Arc<WorkerListener>,
    /// `None` if the worker cannot hibernate.
    pub(crate) pausing: Option<Arc<dyn Pausing>>,
}

/// A worker process that hibernates.
pub(crate) struct PythonHibernated {
    pub(crate) wake: Wake,
    pub(crate) running: Running,
    pub(crate) pausing: Arc<dyn Pausing>,
    /// The connections that it opened before it was stopped.
    pub(crate) connections: Connections<UnixStream>,
    /// The span of the worker, for the log.
    pub(crate) span: Span,
}

impl Hibernated for PythonHibernated {
    fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
        Box::pin(self.running.process.gone())
    }

    fn wake(self: Box<Self>) -> BoxFuture<'static, Result<Box<dyn Launched>, LaunchError>> {
        let Self { wake, running, pausing, connections, .. } = *self;
        pausing.resume();
        wake(running, connections)
    }

    fn end(self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        let span = self.span.clone();
        let end = async move {
            let Self { mut running, pausing, connections, .. } = *self;
            // It finds that the server wants no more, and tears down.
            drop(connections);
            pausing.resume();
            if timeout(grace, running.process.gone()).await.is_err() {
                tracing::warn!("killed: its time to finish is over");
                running.process.kill();
                running.process.gone().await;
            }
        };
        Box::pin(end.instrument(span))
    }
}
