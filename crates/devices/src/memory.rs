//! The memory of the machine, or of the cgroup in which this process runs.

use std::fs;
use std::path::Path;

/// The mount point of cgroup v2, and the limit of v1 that a container sees as its own.
const ROOT: &str = "/sys/fs/cgroup";
const V1_LIMIT: &str = "/sys/fs/cgroup/memory/memory.limit_in_bytes";

/// Returns the bytes of memory that programs can have: those of the machine, or the least limit of this process's
/// cgroups.
pub fn total_memory() -> Option<u64> {
    let machine = meminfo().and_then(|text| in_meminfo(&text, "MemTotal:"));
    [machine, limit(), number(Path::new(V1_LIMIT))].into_iter().flatten().min()
}

/// Returns the bytes of memory that programs can get: those of the machine, or of this process's cgroup.
pub fn free_memory() -> Option<u64> {
    let machine = meminfo().and_then(|text| in_meminfo(&text, "MemAvailable:"));
    [machine, free_in_cgroup()].into_iter().flatten().min()
}

/// Returns the bytes that can be moved to swap: those of the machine, or of this process's cgroup.
pub fn free_swap() -> Option<u64> {
    // What is cached is in memory, too, and leaves it again without another place in swap.
    let free = |text: &String| {
        Some(in_meminfo(text, "SwapFree:")? + in_meminfo(text, "SwapCached:").unwrap_or(0))
    };
    let machine = meminfo().as_ref().and_then(free);
    [machine, free_swap_in_cgroup()].into_iter().flatten().min()
}

fn free_swap_in_cgroup() -> Option<u64> {
    let root = Path::new(ROOT);
    let used = number(&root.join("memory.swap.current"))?;
    Some(number(&root.join("memory.swap.max"))?.saturating_sub(used))
}

fn meminfo() -> Option<String> {
    fs::read_to_string("/proc/meminfo").ok()
}

/// Returns the bytes in a line of `/proc/meminfo`.
fn in_meminfo(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let kib = line.strip_prefix(name)?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok()?.checked_mul(1024)
    })
}

/// Returns the least limit of the cgroup of this process, version 2, and of those above it.
fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new(ROOT).join(own);
    let above = own.ancestors().take_while(|place| place.starts_with(ROOT));
    above.filter_map(|place| number(&place.join("memory.max"))).min()
}

/// Returns the bytes that the cgroup of this process, as a container sees it, may still take.
fn free_in_cgroup() -> Option<u64> {
    let root = Path::new(ROOT);
    // The file cache is given back when memory is short.
    let stat = fs::read_to_string(root.join("memory.stat")).ok()?;
    let cached = stat.lines().find_map(|line| {
        line.strip_prefix("inactive_file ").and_then(|bytes| bytes.parse::<u64>().ok())
    });
    let used = number(&root.join("memory.current"))?.saturating_sub(cached.unwrap_or_default());
    Some(number(&root.join("memory.max"))?.saturating_sub(used))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let text = "MemTotal:       16000000 kB\nMemAvailable:       1024 kB\nBuffers: 1 kB\n";
        assert_eq!(in_meminfo(text, "MemAvailable:"), Some(1 << 20));
        assert_eq!(in_meminfo(text, "MemTotal:"), Some(16_000_000 << 10));
        assert_eq!(in_meminfo("MemTotal: 1 kB", "MemAvailable:"), None);
        assert!(total_memory() >= free_memory());
    }
}
