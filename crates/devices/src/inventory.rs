//! The GPUs and cores that this process may use.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity};

/// Returns `CUDA_VISIBLE_DEVICES`, which names the GPUs that programs may use, by index or by UUID; `None` for all.
pub fn visible_gpus() -> Option<String> {
    std::env::var("CUDA_VISIBLE_DEVICES").ok()
}

/// Returns the number of NVIDIA GPUs that programs may use: all GPUs of the driver, or the visible ones.
pub fn count_gpus(visible: Option<&str>) -> usize {
    let in_driver = fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    match visible {
        Some(names) => {
            let named = names.split(',').map(str::trim);
            named.take_while(|name| !name.is_empty() && *name != "-1").count().min(in_driver)
        }
        None => in_driver,
    }
}

/// Returns the cores on which this process may run; `None` if the system does not say.
pub fn available_cores() -> Option<Vec<usize>> {
    let cores = sched_getaffinity(None).ok()?;
    Some((0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect())
}
