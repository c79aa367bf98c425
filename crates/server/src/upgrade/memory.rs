//! The memory that an upgrade costs, said before it starts.

use litplex_admin::Status;
use litplex_core::size_in_words;
use litplex_devices::free_memory;

/// Returns a sentence about the memory that an upgrade takes for a while, and whether more is free.
pub(crate) fn note(status: &Status) -> Option<(String, bool)> {
    let workers = || status.endpoints.iter().flat_map(|endpoint| &endpoint.workers);
    let host: u64 = workers().filter_map(|worker| worker.memory).sum();
    let gpu: u64 = workers().filter_map(|worker| worker.gpu_memory).sum();
    let free = free_memory();
    let free_gpu: u64 = status.gpus.iter().map(|gpu| gpu.total.saturating_sub(gpu.used)).sum();
    let mut parts = Vec::new();
    if host > 0 {
        let free =
            free.map(|free| format!(" ({} available)", size_in_words(free))).unwrap_or_default();
        parts.push(format!("{} of memory{free}", size_in_words(host)));
    }
    if gpu > 0 {
        parts.push(format!(
            "{} of GPU memory ({} free)",
            size_in_words(gpu),
            size_in_words(free_gpu)
        ));
    }
    let fits = free.is_none_or(|free| host <= free) && gpu <= free_gpu;
    let needed = parts.join(" and ");
    let note = format!("the workers use {needed}, which two servers need for a while");
    (!parts.is_empty()).then_some((note, fits))
}
