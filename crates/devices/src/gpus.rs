//! The memory of GPUs, and the processes that use it.

use std::cell::LazyCell;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::{isolate, nvml};

/// The time that the driver has to answer. It answers in milliseconds, or hangs with its GPU.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(1);

/// The driver's figures of one GPU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gpu {
    /// Its index at the driver.
    pub index: u32,
    /// Its UUID, `GPU-…`.
    pub uuid: String,
    /// Bytes of its memory that are used.
    pub used: u64,
    /// Bytes of its memory.
    pub total: u64,
    /// The share of time in which it computed, from 0 to 1; `None` if it is divided.
    pub utilization: Option<f64>,
    /// The processes that compute on it, each with the bytes of its memory that it uses.
    pub processes: Vec<(u32, u64)>,
}

/// A reader of GPU figures. Its thread may hang with the driver.
#[derive(Debug)]
pub struct Gpus {
    questions: SyncSender<oneshot::Sender<Vec<Gpu>>>,
}

impl Gpus {
    /// Returns a reader of NVIDIA's driver, which is loaded at the first read.
    pub fn nvidia() -> Self {
        let warn = |error: &_| tracing::warn!("GPU metrics are unavailable: {error}");
        let driver = LazyCell::new(move || nvml::open(nvml::LIBRARY).inspect_err(warn).ok());
        Self::ask(move || driver.as_ref().map(nvml::read).unwrap_or_default())
    }

    fn ask(mut read: impl FnMut() -> Vec<Gpu> + Send + 'static) -> Self {
        // One read may wait while another runs: two clients may read the metrics at once.
        let (questions, asked) = sync_channel::<oneshot::Sender<_>>(1);
        thread::spawn(move || {
            while let Ok(question) = asked.recv() {
                // The reader may have timed out.
                let _ = question.send(read());
            }
        });
        Self { questions }
    }

    /// Returns all GPUs; none if the driver does not answer in time.
    pub async fn read(&self) -> Vec<Gpu> {
        let (question, answer) = oneshot::channel();
        if self.questions.try_send(question).is_err() {
            return Vec::new();
        }
        timeout(DRIVER_TIMEOUT, answer).await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

/// Returns the bytes of GPU memory that these processes use together; `None` if the driver names none
/// of them.
pub fn used_by(processes: &[u32], gpus: &[Gpu]) -> Option<u64> {
    let all = gpus.iter().flat_map(|gpu| &gpu.processes);
    let own = all.filter(|(process, _)| processes.contains(process));
    own.map(|(_, bytes)| *bytes).reduce(|sum, bytes| sum + bytes)
}

/// Returns the bytes of a share (0 to 1) of a GPU's memory.
///
/// `device` is the server's name of the GPU, and `visible` the server's `CUDA_VISIBLE_DEVICES`, in
/// which the name is an index.
pub fn memory_share(
    fraction: f64,
    device: &str,
    visible: Option<&str>,
    gpus: &[Gpu],
) -> Option<u64> {
    let (_, name) = isolate(device, visible);
    let name = name.filter(|name| !name.is_empty())?;
    let is_meant = |gpu: &&Gpu| {
        // The start of a UUID is enough for CUDA.
        gpu.index.to_string() == name || gpu.uuid.starts_with(&name)
    };
    let total = gpus.iter().find(is_meant)?.total;
    Some((total as f64 * fraction) as u64)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn gpu(index: u32, uuid: &str, processes: &[(u32, u64)]) -> Gpu {
        let (uuid, total) = (uuid.to_owned(), 1000 * u64::from(index + 1));
        Gpu { index, uuid, total, processes: processes.to_vec(), ..Gpu::default() }
    }

    #[test]
    fn what_a_worker_started_counts_as_its_own_on_every_gpu() {
        let gpus = [gpu(0, "GPU-a", &[(10, 3), (99, 7)]), gpu(1, "GPU-b", &[(11, 4), (10, 1)])];
        assert_eq!(used_by(&[10, 11, 12], &gpus), Some(8));
        assert_eq!(used_by(&[99], &gpus), Some(7));
        assert_eq!(used_by(&[12], &gpus), None, "it has nothing yet");
    }

    #[test]
    fn a_share_is_of_the_gpu_that_the_worker_has() {
        let gpus = [gpu(0, "GPU-5a00", &[]), gpu(1, "GPU-6b00", &[])];
        assert_eq!(memory_share(0.3, "cuda:0", None, &gpus), Some(300));
        assert_eq!(memory_share(0.5, "cuda:1", None, &gpus), Some(1000));
        assert_eq!(
            memory_share(0.5, "cuda:0", Some("1"), &gpus),
            Some(1000),
            "all that is visible"
        );
        assert_eq!(memory_share(0.5, "cuda:1", Some("1,GPU-5a"), &gpus), Some(500));
        assert_eq!(memory_share(0.5, "cuda:2", None, &gpus), None);
        assert_eq!(memory_share(0.5, "cpu", None, &gpus), None);
    }

    #[tokio::test]
    async fn a_driver_that_answers_is_heard() {
        let gpus = Gpus::ask(|| vec![gpu(0, "GPU-a", &[])]);
        assert_eq!(gpus.read().await, [gpu(0, "GPU-a", &[])]);
        assert_eq!(gpus.read().await, [gpu(0, "GPU-a", &[])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_hangs_delays_no_read_for_long() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let gpus = Gpus::ask(move || {
            let _ = ended.recv();
            Vec::new()
        });
        for _ in 0..5 {
            assert_eq!(gpus.read().await, []);
        }
        let start = Instant::now();
        assert_eq!(gpus.read().await, []);
        assert_eq!(start.elapsed(), Duration::ZERO, "one question waits, and no more are asked");
        drop(end);
    }
}
