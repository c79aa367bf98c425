//! A running worker, as the scheduler and the supervisor hold it.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{
    BoxFuture, Cause, Job, Launched, Monitor, Outcome, Progress, Request, Unanswered, Worker,
    WorkerExit,
};
use litplex_wire::{Frame, Kind};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::child::Process;
use super::memory::{MemoryLimit, ProcessMonitor};
use crate::link::connection::{Order, SAY_AFTER};
use crate::link::control::CostQuery;

/// The scheduler's end of a worker process.
pub(crate) struct PythonWorker {
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) cost_queries: mpsc::UnboundedSender<CostQuery>,
    pub(crate) progress: Arc<dyn Progress>,
}

impl Worker for PythonWorker {
    fn dispatch(&mut self, jobs: Vec<Job>) {
        if let Err(SendError(Order::Jobs(jobs))) = self.orders.send(Order::Jobs(jobs)) {
            // The connection has just ended, and the scheduler will hear of it.
            self.progress.gone(jobs.into_iter().map(Unanswered::unstarted).collect());
        }
    }

    fn cancel_abandoned(&mut self) {
        let _ = self.orders.send(Order::CancelAbandoned);
    }

    fn cost(&mut self, request: Request, answer: oneshot::Sender<Outcome<f64>>) {
        let _ = self.cost_queries.send(CostQuery { request, answer });
    }
}

/// The supervisor's end of a worker process.
pub(crate) struct PythonLaunched {
    /// Its name, for the log.
    pub(crate) worker: String,
    pub(crate) process: Process,
    pub(crate) monitor: Arc<ProcessMonitor>,
    pub(crate) memory: MemoryLimit,
    pub(crate) to_worker: mpsc::UnboundedSender<Frame>,
    pub(crate) progress: Arc<dyn Progress>,
    /// How long its process may take to exit once it has nothing to do; the whole grace where it is
    /// not set.
    pub(crate) kill_after: Option<Duration>,
    /// How its connections ended, one after the other: with a fault, or because they did.
    pub(crate) fault: mpsc::UnboundedReceiver<Option<WorkerExit>>,
}

impl Launched for PythonLaunched {
    fn monitor(&self) -> Option<Arc<dyn Monitor>> {
        Some(self.monitor.clone())
    }

    fn gone(&mut self) -> BoxFuture<'_, WorkerExit> {
        Box::pin(async {
            let fault = tokio::select! {
                gone = self.process.gone() => return gone,
                fault = self.fault.recv() => fault.flatten(),
                excess = self.memory.exceeded() => Some(WorkerExit::new(Cause::Memory, excess)),
            };
            if let Some(fault) = fault {
                self.process.kill();
                self.process.gone().await;
                return WorkerExit::new(fault.cause, format!("{fault}; it was killed"));
            }
            // Without its connection it is of no use. It has usually ended by itself; one that
            // has not is not waited for.
            match timeout(Duration::from_secs(1), self.process.gone()).await {
                Ok(gone) => gone,
                Err(_) => {
                    self.process.kill();
                    WorkerExit::new(Cause::Exit, "it closed its connection and was killed")
                }
            }
        })
    }

    fn stop(mut self: Box<Self>, grace: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.progress.retiring();
            let memory = self.memory;
            let fault = tokio::select! {
                ended = timeout(grace, self.finished()) => match ended {
                    Ok(Ok(())) => return,
                    Ok(Err(fault)) => fault,
                    Err(_) => "its time to finish is over".into(),
                },
                excess = memory.exceeded() => excess,
            };
            tracing::warn!("{} is killed: {fault}", self.worker);
            self.process.kill();
            self.process.gone().await;
        })
    }
}

impl PythonLaunched {
    /// Resolves when the worker has answered what it had, and its process has ended; or says why
    /// that is not waited for.
    async fn finished(&mut self) -> Result<(), String> {
        if let Some(Some(fault)) = self.fault.recv().await {
            return Err(fault.reason);
        }
        let _ = self.to_worker.send(Frame::bare(Kind::Bye, 0));
        // Not `gone`: what it started may hold its output open for longer.
        if timeout(SAY_AFTER, self.process.ended()).await.is_ok() {
            self.process.gone().await;
            return Ok(());
        }
        tracing::info!(
            "waiting for {}: it has answered everything, and its process has not exited (`teardown` \
             or a thread that it left may still run)",
            self.worker
        );
        let Some(grace) = self.kill_after else {
            self.process.gone().await;
            return Ok(());
        };
        let exited = timeout(grace.saturating_sub(SAY_AFTER), self.process.gone()).await;
        exited.map(drop).map_err(|_| {
            let grace = grace.max(SAY_AFTER).as_secs_f64();
            format!("its process did not exit within {grace} s of its last answer (`kill_after`)")
        })
    }
}
