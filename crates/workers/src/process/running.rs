//! A worker process and its memory limit, from its start to its end.

use super::child::Process;
use super::memory::MemoryLimit;
use crate::Error;

/// A worker process that is there.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) memory: MemoryLimit,
}

impl Running {
    /// Returns a process with its limit in bytes, if it has one.
    pub(crate) fn new(process: Process, limit: Option<u64>) -> Self {
        let memory = MemoryLimit { process: process.id().unwrap_or_default(), bytes: limit };
        Self { process, memory }
    }

    /// Takes a step towards a worker that is ready. When it fails, or the worker ends or exceeds its memory limit
    /// meanwhile, the worker is killed.
    pub(crate) async fn step<T>(
        &mut self,
        step: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let done = tokio::select! {
            done = step => done,
            gone = self.process.gone() => Err(Error::Gone(gone)),
            reason = self.memory.exceeded() => Err(Error::Memory(reason)),
        };
        // A model that does not fit fails at each start, and must not be replaced forever.
        let done = match (done, self.memory.excess().await) {
            (Ok(_), Some(reason)) => Err(Error::Memory(reason)),
            (done, _) => done,
        };
        if done.is_err() {
            self.process.kill();
            // Its output may say more than the reason.
            self.process.gone().await;
        }
        done
    }
}
