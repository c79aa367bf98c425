//! The memory that an upgrade costs, said before it starts.

use std::fs;

use litplex_admin::Status;

/// Returns a sentence about the memory that an upgrade takes for a while, and whether more is free.
pub(crate) fn note(status: &Status) -> Option<(String, bool)> {
    let workers = || status.endpoints.iter().flat_map(|endpoint| &endpoint.workers);
    let host: u64 = workers().filter_map(|worker| worker.memory).sum();
    let gpu: u64 = workers().filter_map(|worker| worker.gpu_memory).sum();
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let free_gpu: u64 = status.gpus.iter().map(|gpu| gpu.total.saturating_sub(gpu.used)).sum();
    let mut parts = Vec::new();
    if host > 0 {
        let free = free.map(|free| format!(" ({} available)", shown(free))).unwrap_or_default();
        parts.push(format!("{} of memory{free}", shown(host)));
    }
    if gpu > 0 {
        parts.push(format!("{} of GPU memory ({} free)", shown(gpu), shown(free_gpu)));
    }
    let fits = free.is_none_or(|free| host <= free) && gpu <= free_gpu;
    let needed = parts.join(" and ");
    let note = format!("the workers use {needed}, which two servers need for a while");
    (!parts.is_empty()).then_some((note, fits))
}

/// Returns the bytes that `/proc/meminfo` says are available.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn shown(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_available_memory_is_read_in_bytes() {
        let text = "MemTotal:       100 kB\nMemAvailable:    40 kB\n";
        assert_eq!(available(text), Some(40_960));
        assert_eq!(available("MemTotal: 1 kB"), None);
    }
}
