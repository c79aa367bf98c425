//! A running worker process, as the supervisor holds it: how it ends, and how it is ended.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{BoxFuture, Cause, Launched, Monitor, WorkerExit};
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::child::Process;
use super::memory::MemoryLimit;
use super::monitor::ProcessMonitor;
use crate::link::{Link, REPORT_AFTER};

/// The time that a process may take to exit after its connection ended.
const EXIT_WAIT: Duration = Duration::from_secs(1);

/// The supervisor's end of a worker process.
pub(crate) struct PythonLaunched {
    pub(crate) process: Process,
    pub(crate) monitor: Arc<ProcessMonitor>,
    pub(crate) memory: MemoryLimit,
    pub(crate) link: Link,
    /// The span of the worker, for the log.
    pub(crate) span: Span,
    /// The time that the process may take to exit once it has nothing to do; `None` for the whole
    /// grace.
    pub(crate) kill_after: Option<Duration>,
}

impl Launched for PythonLaunched {
    fn monitor(&self) -> Option<Arc<dyn Monitor>> {
        Some(self.monitor.clone())
    }

    fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
        Box::pin(async {
            let fault = tokio::select! {
                gone = self.process.gone() => return gone,
                fault = self.link.ended() => fault,
                excess = self.memory.exceeded() => Some(WorkerExit::new(Cause::Memory, excess)),
            };
            if let Some(fault) = fault {
                self.process.kill();
                self.process.gone().await;
                return WorkerExit::new(fault.cause, format!("{fault}; it was killed"));
            }
            // A worker without its connection is useless. It has usually exited by itself.
            match timeout(EXIT_WAIT, self.process.gone()).await {
                Ok(gone) => gone,
                Err(_) => {
                    self.process.kill();
                    WorkerExit::new(Cause::Exit, "it closed its connection and was killed")
                }
            }
        })
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        let span = self.span.clone();
        let stop = async move {
            self.link.retire();
            let memory = self.memory;
            let fault = tokio::select! {
                ended = timeout(grace, self.finished()) => match ended {
                    Ok(Ok(())) => return,
                    Ok(Err(fault)) => fault,
                    Err(_) => "its time to finish is over".into(),
                },
                excess = memory.exceeded() => excess,
            };
            tracing::warn!("killed: {fault}");
            self.process.kill();
            self.process.gone().await;
        };
        Box::pin(stop.instrument(span))
    }
}

impl PythonLaunched {
    /// Resolves when the worker has answered its jobs and its process has exited, or with the reason
    /// to kill it.
    async fn finished(&mut self) -> Result<(), String> {
        if let Some(fault) = self.link.ended().await {
            return Err(fault.reason);
        }
        self.link.send_bye();
        // Not `gone`: what it started may hold its output open for longer.
        if timeout(REPORT_AFTER, self.process.ended()).await.is_ok() {
            self.process.gone().await;
            return Ok(());
        }
        tracing::info!(
            "waiting for the process: it has answered everything and has not exited (`teardown`, or a \
             thread that it left, may still run)"
        );
        let Some(grace) = self.kill_after else {
            self.process.gone().await;
            return Ok(());
        };
        let exited = timeout(grace.saturating_sub(REPORT_AFTER), self.process.gone()).await;
        exited.map(drop).map_err(|_| {
            let grace = grace.max(REPORT_AFTER).as_secs_f64();
            format!("its process did not exit within {grace} s of its last answer (`kill_after`)")
        })
    }
}
