//! NVIDIA's management library, which comes with the driver and is loaded while the server runs.

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::gpus::Gpu;

/// The library that the driver installs. The name without a number comes only with CUDA's tools.
pub(crate) const LIBRARY: &str = "libnvidia-ml.so.1";

/// Loads the library.
pub(crate) fn open(library: &str) -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(library.as_ref()).init()
}

/// Returns the GPUs of the driver, without those that do not answer.
pub(crate) fn read(driver: &Nvml) -> Vec<Gpu> {
    let count = driver.device_count().unwrap_or_default();
    (0..count).filter_map(|index| gpu(&driver.device_by_index(index).ok()?, index).ok()).collect()
}

fn gpu(device: &Device<'_>, index: u32) -> Result<Gpu, NvmlError> {
    let memory = device.memory_info()?;
    // A GPU that is divided into instances has no utilization.
    let utilization = device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0);
    let processes = device.running_compute_processes().unwrap_or_default();
    let used = processes.into_iter().filter_map(|process| match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some((process.pid, bytes)),
        UsedGpuMemory::Unavailable => None,
    });
    Ok(Gpu {
        index,
        uuid: device.uuid()?,
        used: memory.used,
        total: memory.total,
        utilization,
        processes: used.collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// A driver with one GPU, on which two processes compute.
    const FAKE: &str = r#"
        #include <stdio.h>
        typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
        typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process;
        typedef struct { unsigned gpu, memory; } rates;
        int nvmlInit_v2(void) { return 0; }
        int nvmlShutdown(void) { return 0; }
        int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { return 0; }
        int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
            snprintf(uuid, length, "GPU-5a"); return 0;
        }
        int nvmlDeviceGetMemoryInfo_v2(void *device, memory *info) {
            info->total = 80; info->used = 30; return 0;
        }
        int nvmlDeviceGetUtilizationRates(void *device, rates *of) { of->gpu = 40; return 0; }
        int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process *all) {
            if (*count < 2) { *count = 2; return 7; }
            *count = 2;
            all[0] = (process){ 7, 12, -1, -1 };
            all[1] = (process){ 8, -1, -1, -1 };
            return 0;
        }
    "#;

    #[test]
    fn a_machine_without_a_driver_is_an_error() {
        assert!(matches!(open("libnvidia-ml-missing.so.1"), Err(NvmlError::LibloadingError(_))));
    }

    #[test]
    fn figures_are_read_off_a_driver() {
        let directory = tempfile::tempdir().expect("a directory");
        let (source, library) = (directory.path().join("a.c"), directory.path().join("a.so"));
        fs::write(&source, FAKE).expect("it is written");
        let mut cc = Command::new("cc");
        let built = cc.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status();
        assert!(built.expect("a compiler, which links Rust too").success());
        let driver = open(library.to_str().expect("a name")).expect("it loads");
        let expected = Gpu {
            index: 0,
            uuid: "GPU-5a".into(),
            used: 30,
            total: 80,
            utilization: Some(0.4),
            processes: vec![(7, 12)],
        };
        assert_eq!(read(&driver), [expected], "one does not say what it has");
    }
}
