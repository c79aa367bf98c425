//! A running worker process, as the supervisor holds it: how it ends, and how it is ended.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{BoxFuture, Cause, Hibernated, Launched, Monitor, WorkerExit};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::hibernated::{Hibernation, PythonHibernated};
use super::monitor::ProcessMonitor;
use super::running::Running;
use crate::link::{Connections, Link, REPORT_AFTER};

/// The time that a process may take to exit after its connection ended.
const EXIT_WAIT: Duration = Duration::from_secs(1);

/// The time in which a worker moves its memory to swap. It stops by itself before that (`_worker/_swap.py`).
const SWAP_TIME: Duration = Duration::from_secs(120);

/// The supervisor's end of a worker process.
pub(crate) struct PythonLaunched {
    pub(crate) running: Running,
    pub(crate) monitor: Arc<ProcessMonitor>,
    pub(crate) link: Link,
    /// The task that accepts its connections for calls.
    pub(crate) accepting: JoinSet<()>,
    /// The span of the worker, for the log.
    pub(crate) span: Span,
    /// The time that the process may take to exit once it has nothing to do; `None` for the whole
    /// grace.
    pub(crate) kill_after: Option<Duration>,
    pub(crate) hibernation: Hibernation,
}

impl Launched for PythonLaunched {
    fn monitor(&self) -> Option<Arc<dyn Monitor>> {
        Some(self.monitor.clone())
    }

    fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
        Box::pin(async {
            let fault = tokio::select! {
                gone = self.running.process.gone() => return gone,
                fault = self.link.ended() => fault,
                excess = self.running.memory.exceeded() => Some(WorkerExit::new(Cause::Memory, excess)),
            };
            if let Some(fault) = fault {
                self.running.process.kill();
                self.running.process.gone().await;
                return WorkerExit::new(fault.cause, format!("{fault}; it was killed"));
            }
            // A worker without its connection is useless. It has usually exited by itself.
            match timeout(EXIT_WAIT, self.running.process.gone()).await {
                Ok(gone) => gone,
                Err(_) => {
                    self.running.process.kill();
                    WorkerExit::new(Cause::Exit, "it closed its connection and was killed")
                }
            }
        })
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        let span = self.span.clone();
        let stop = async move {
            self.link.retire();
            let memory = self.running.memory;
            let ended = tokio::select! {
                ended = timeout(grace, self.finished()) => ended.unwrap_or_else(|_| out_of_time()),
                excess = memory.exceeded() => Err(excess),
            };
            if let Err(fault) = ended {
                self.kill(&fault).await;
            }
        };
        Box::pin(stop.instrument(span))
    }

    fn hibernate(
        mut self: Box<Self>,
        grace: Duration,
    ) -> BoxFuture<'static, Option<Box<dyn Hibernated>>> {
        let span = self.span.clone();
        let hibernate = async move {
            let Some(pausing) = self.hibernation.pausing.clone() else {
                self.stop(grace).await;
                return None;
            };
            self.link.retire();
            let memory = self.running.memory;
            let connected = tokio::select! {
                connected = self.moved_to_swap(grace) => connected,
                excess = memory.exceeded() => Err(excess),
            };
            match connected {
                Ok(connections) => {
                    pausing.pause();
                    let Self { running, span, hibernation, .. } = *self;
                    let wake = hibernation.wake;
                    let hibernated = PythonHibernated { wake, running, pausing, connections, span };
                    Some(Box::new(hibernated) as _)
                }
                Err(fault) => {
                    self.kill(&fault).await;
                    None
                }
            }
        };
        Box::pin(hibernate.instrument(span))
    }
}

/// Returns the reason to kill a worker after its grace.
fn out_of_time<T>() -> Result<T, String> {
    Err("its time to finish is over".into())
}

impl PythonLaunched {
    async fn kill(&mut self, fault: &str) {
        tracing::warn!("killed: {fault}");
        self.running.process.kill();
        self.running.process.gone().await;
    }

    /// Resolves when the worker has answered its jobs, moved its memory to swap and connected again, or with the
    /// reason to kill it.
    async fn moved_to_swap(&mut self, grace: Duration) -> Result<Connections<UnixStream>, String> {
        match timeout(grace, self.link.ended()).await {
            Ok(Some(fault)) => return Err(fault.reason),
            Ok(None) => {}
            Err(_) => return out_of_time(),
        }
        self.running.process.allow_swap(true);
        // Its next connections are not for calls.
        self.accepting.shutdown().await;
        self.link.send_hibernate();
        let connected = timeout(SWAP_TIME, self.hibernation.listener.accept());
        tokio::select! {
            connected = connected => match connected {
                Ok(connections) => connections.map_err(|error| error.to_string()),
                Err(_) => Err("it did not move its memory to swap in time".into()),
            },
            gone = self.running.process.gone() => Err(gone.reason),
        }
    }

    /// Resolves when the worker has answered its jobs and its process has exited, or with the reason
    /// to kill it.
    async fn finished(&mut self) -> Result<(), String> {
        if let Some(fault) = self.link.ended().await {
            return Err(fault.reason);
        }
        self.link.send_bye();
        // Not `gone`: what it started may hold its output open for longer.
        let process = &mut self.running.process;
        if timeout(REPORT_AFTER, process.ended()).await.is_ok() {
            process.gone().await;
            return Ok(());
        }
        tracing::info!(
            "waiting for the process: it has answered everything and has not exited (`teardown`, or a \
             thread that it left, may still run)"
        );
        let Some(grace) = self.kill_after else {
            process.gone().await;
            return Ok(());
        };
        let exited = timeout(grace.saturating_sub(REPORT_AFTER), process.gone()).await;
        exited.map(drop).map_err(|_| {
            let grace = grace.max(REPORT_AFTER).as_secs_f64();
            format!("its process did not exit within {grace} s of its last answer (`kill_after`)")
        })
    }
}
