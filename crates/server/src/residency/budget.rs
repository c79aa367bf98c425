//! The budget: the memory that all workers together may have.

use std::fs;
use std::sync::Arc;

use litplex_config::Program;
use litplex_devices::{Gpus, count_gpus, memory_share};
use litplex_residency::Memory;

/// The share of the memory that is left to the rest of the machine, one in so many.
const RESERVE: u64 = 10;

/// Returns the budget of the host: the configured one, or what the machine or the container has, less a tenth.
pub(super) fn on_host(configured: Option<u64>) -> u64 {
    let there_is = || {
        let limits = [total(), cgroup_limit("memory.max"), cgroup_v1_limit()];
        limits.into_iter().flatten().min().map_or(u64::MAX, |bytes| bytes - bytes / RESERVE)
    };
    configured.unwrap_or_else(there_is)
}

/// The GPUs of this machine, as far as the program may use them.
#[derive(Debug, Clone)]
pub(super) struct Devices {
    configured: Option<u64>,
    count: usize,
    driver: Option<Arc<Gpus>>,
}

impl Devices {
    pub(super) fn of(config: &Program) -> Self {
        let count = count_gpus(visible().as_deref());
        let driver = (count > 0).then(Gpus::nvidia).map(Arc::new);
        Self { configured: config.gpu_memory_budget, count, driver }
    }

    /// Returns the reader of their figures; `None` without GPUs.
    pub(super) fn driver(&self) -> Option<Arc<Gpus>> {
        self.driver.clone()
    }

    /// Returns a budget of the host with that of each GPU.
    pub(super) async fn budget(&self, host: u64) -> Memory {
        let gpus = match &self.driver {
            Some(driver) => driver.read().await,
            None => Vec::new(),
        };
        let share = 1.0 - 1.0 / RESERVE as f64;
        let device_budget = |index| {
            let name = format!("cuda:{index}");
            let there_is = memory_share(share, &name, visible().as_deref(), &gpus);
            // Without figures of the driver nothing is known that could be passed.
            self.configured.or(there_is).unwrap_or(u64::MAX)
        };
        let whole = Memory::on_host(host);
        (0..self.count).fold(whole, |whole, index| whole.with_device(index, device_budget(index)))
    }
}

fn visible() -> Option<String> {
    std::env::var("CUDA_VISIBLE_DEVICES").ok()
}

/// Returns the memory of the machine.
fn total() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Returns the limit of this process's cgroup, version 2, and of those above it.
fn cgroup_limit(file: &str) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let mut place = std::path::Path::new("/sys/fs/cgroup").join(own);
    let mut least = None;
    while place.starts_with("/sys/fs/cgroup") {
        let limit = fs::read_to_string(place.join(file)).ok();
        let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
        least = [least, limit].into_iter().flatten().min();
        if !place.pop() {
            break;
        }
    }
    least
}

/// Returns the limit of the cgroup, version 1, that a container sees as its own.
fn cgroup_v1_limit() -> Option<u64> {
    fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_what_there_is_less_a_tenth_unless_it_is_set() {
        assert_eq!(on_host(Some(5)), 5);
        let total = total().expect("Linux says it");
        assert!(on_host(None) <= total - total / 10);
        assert!(on_host(None) > 0);
    }
}
