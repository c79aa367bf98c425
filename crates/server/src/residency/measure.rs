//! The measurement of workers: how much memory they have, and when it is back.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Monitor, Pageable};
use litplex_devices::{Gpus, used_by};
use litplex_residency::Memory;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// The longest time that the memory of a worker may take to come back after its process is gone. Then it is
/// counted as free, because no measurement shows otherwise.
const LONGEST_RETURN: Duration = Duration::from_secs(10);

/// The time between two looks whether it is back, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(100);

/// The memory of a worker, as hibernation sees it.
#[derive(Debug, Clone)]
pub(super) struct Movable {
    pub(super) host: Pageable,
    /// The bytes on its GPU; 0 if it has none, `None` if the driver does not tell.
    pub(super) on_gpu: Option<u64>,
}

/// The parts of a worker's measurement.
#[derive(Clone)]
pub(super) struct Measured {
    pub(super) monitor: Arc<dyn Monitor>,
    /// The GPU that its memory counts for.
    pub(super) gpu: Option<usize>,
    pub(super) driver: Option<Arc<Gpus>>,
}

impl Measured {
    /// Returns the memory of the worker now; `None` once its process is gone and the driver has its memory back.
    pub(super) async fn memory(&self) -> Option<Memory> {
        let (host, on_gpu) = self.figures(|monitor| monitor.footprint()).await;
        if host.is_none() && on_gpu.is_none() {
            return None;
        }
        Some(self.with_gpu(Memory::on_host(host.unwrap_or(0)), on_gpu))
    }

    /// Returns what hibernation moves of the worker.
    pub(super) async fn movable(&self) -> Option<Movable> {
        let (host, on_gpu) = self.figures(|monitor| monitor.pageable()).await;
        Some(Movable { host: host?, on_gpu: if self.gpu.is_some() { on_gpu } else { Some(0) } })
    }

    /// Returns the memory that is in use, of what hibernation moves.
    pub(super) fn in_use(&self, movable: &Movable) -> Memory {
        self.with_gpu(Memory::on_host(movable.host.resident), movable.on_gpu)
    }

    /// Returns a figure of the worker on the host, and its bytes on the GPU.
    async fn figures<T: Send + 'static>(
        &self,
        on_host: fn(&dyn Monitor) -> Option<T>,
    ) -> (Option<T>, Option<u64>) {
        let gpus = match (&self.driver, self.gpu) {
            (Some(driver), Some(_)) => driver.read().await,
            _ => Vec::new(),
        };
        let monitor = self.monitor.clone();
        // The exact figure of large processes takes the kernel milliseconds.
        let figures = spawn_blocking(move || {
            let host = on_host(monitor.as_ref());
            let by_processes = |processes: &[u32]| used_by(processes, &gpus);
            let on_gpu = (!gpus.is_empty()).then(|| monitor.usage(Some(&by_processes)).gpu_memory);
            (host, on_gpu.flatten())
        });
        figures.await.unwrap_or((None, None))
    }

    fn with_gpu(&self, memory: Memory, on_gpu: Option<u64>) -> Memory {
        match (self.gpu, on_gpu) {
            (Some(index), Some(bytes)) => memory.with_device(index, bytes),
            _ => memory,
        }
    }

    /// Resolves when the memory of a worker that is gone is back. Returns whether that was seen.
    pub(super) async fn back(&self) -> bool {
        let begin = Instant::now();
        let mut pause = FIRST_LOOK;
        while self.memory().await.is_some() {
            if begin.elapsed() >= LONGEST_RETURN {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
        true
    }
}
