//! The measurement of workers: how much memory they have, and when it is back.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::Monitor;
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
        let gpus = match (&self.driver, self.gpu) {
            (Some(driver), Some(_)) => driver.read().await,
            _ => Vec::new(),
        };
        let monitor = self.monitor.clone();
        // The exact figure of large processes takes the kernel milliseconds.
        let figures = spawn_blocking(move || {
            let host = monitor.footprint();
            let by_processes = |processes: &[u32]| used_by(processes, &gpus);
            let on_gpu = (!gpus.is_empty()).then(|| monitor.usage(Some(&by_processes)).gpu_memory);
            (host, on_gpu.flatten())
        });
        let (host, on_gpu) = figures.await.unwrap_or_default();
        if host.is_none() && on_gpu.is_none() {
            return None;
        }
        let memory = Memory::on_host(host.unwrap_or(0));
        Some(match (self.gpu, on_gpu) {
            (Some(index), Some(bytes)) => memory.with_device(index, bytes),
            _ => memory,
        })
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
