//! The budget: the memory that all workers together may have.

use std::sync::Arc;

use litplex_config::Program;
use litplex_devices::{Gpus, count_gpus, memory_share, total_memory, visible_gpus};
use litplex_residency::Memory;

/// The share of the memory that is left to the rest of the machine, one in so many.
const RESERVE: u64 = 10;

/// Returns the budget of the host: the configured one, or what the machine or the container has, less a tenth.
pub(super) fn on_host(configured: Option<u64>) -> u64 {
    let there_is = || total_memory().map_or(u64::MAX, |bytes| bytes - bytes / RESERVE);
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
        let count = count_gpus(visible_gpus().as_deref());
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
            let there_is = memory_share(share, &name, visible_gpus().as_deref(), &gpus);
            // Without figures of the driver nothing is known that could be passed.
            self.configured.or(there_is).unwrap_or(u64::MAX)
        };
        let whole = Memory::on_host(host);
        (0..self.count).fold(whole, |whole, index| whole.with_device(index, device_budget(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_what_there_is_less_a_tenth_unless_it_is_set() {
        assert_eq!(on_host(Some(5)), 5);
        let total = total_memory().expect("Linux says it");
        assert!(on_host(None) <= total - total / 10);
        assert!(on_host(None) > 0);
    }
}
