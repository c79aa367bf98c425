//! The memory of a worker and its child processes, and its limit.

use std::fs;
use std::future::pending;
use std::time::Duration;

use litplex_core::{GpuMemory, Pageable, Usage, size_in_words};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// The time between two measurements.
const LOOK: Duration = Duration::from_millis(500);

/// The part of the time in which exact footprints are taken, one in so many, and where the memory has changed by a
/// noteworthy part. What other processes share with this one may have changed as well, so it is taken now and then.
const ONE_IN: u32 = 1000;
const CHANGED_ONE_IN: u32 = 50;
const NOTEWORTHY_PART: u64 = 8;
const LONGEST_ESTIMATE: Duration = Duration::from_secs(20);

/// The limit of one worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MemoryLimit {
    /// The worker's process.
    pub(crate) process: u32,
    /// The bytes of resident memory; `None` for no limit.
    pub(crate) bytes: Option<u64>,
}

impl MemoryLimit {
    /// Resolves once the worker is above the limit, with a description; never if there is no limit.
    pub(crate) async fn exceeded(self) -> String {
        if self.bytes.is_none() {
            return pending().await;
        }
        loop {
            if let Some(reason) = self.excess().await {
                return reason;
            }
            sleep(LOOK).await;
        }
    }

    /// Returns a description, if the worker is above the limit now.
    pub(crate) async fn excess(self) -> Option<String> {
        let limit = self.bytes?;
        // The exact figure of large processes takes the kernel milliseconds.
        let used = spawn_blocking(move || used(self.process, limit)).await;
        excess(used.unwrap_or_default(), limit)
    }
}

/// Returns the usage of a process of this machine.
pub(super) fn usage(pid: u32, gpu_memory: Option<&GpuMemory<'_>>) -> Usage {
    let gpu_memory = gpu_memory.and_then(|used_by| used_by(&with_descendants(pid)));
    Usage { memory: resident(pid), gpu_memory }
}

/// Returns the bytes of host memory that come back when a process and its descendants end: shared pages count in
/// part. `None` once there is no such process.
fn footprint(pid: u32) -> Option<u64> {
    if !fs::exists(format!("/proc/{pid}")).unwrap_or(false) {
        return None;
    }
    let own = |process: &u32| proportional(*process).or_else(|| resident(*process));
    Some(with_descendants(pid).iter().filter_map(own).sum())
}

/// The footprint of a process from one look to the next.
///
/// The exact figure takes the kernel 10 to 25 ms by gigabyte, in which it delays what else runs on that core. So it is
/// taken in a small part of the time; meanwhile the anonymous memory, which the kernel counts, says how it changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footprint {
    /// The bytes of host memory that come back when the process and its descendants end.
    pub(super) bytes: u64,
    exact: Exact,
}

#[derive(Debug, Clone, Copy)]
struct Exact {
    bytes: u64,
    /// The bytes of anonymous memory then, in full where processes share it.
    anonymous: u64,
    at: Instant,
    /// The time that the measurement took.
    took: Duration,
}

impl Footprint {
    /// Measures a process after an earlier look. `None` once it is gone.
    pub(super) fn measure(pid: u32, last: Option<Self>) -> Option<Self> {
        let anonymous = with_descendants(pid).into_iter().filter_map(anonymous).sum();
        let at = Instant::now();
        if let Some(Self { exact, .. }) = last.filter(|it| it.exact.is_enough(anonymous, at)) {
            return (anonymous > 0).then(|| Self { bytes: exact.changed_to(anonymous), exact });
        }
        let bytes = footprint(pid)?;
        Some(Self { bytes, exact: Exact { bytes, anonymous, at, took: at.elapsed() } })
    }
}

impl Exact {
    /// Returns whether no exact figure is due.
    fn is_enough(self, anonymous: u64, now: Instant) -> bool {
        let has_changed = anonymous.abs_diff(self.anonymous) > self.anonymous / NOTEWORTHY_PART;
        let pause = match has_changed {
            true => self.took * CHANGED_ONE_IN,
            false => (self.took * ONE_IN).min(LONGEST_ESTIMATE),
        };
        now < self.at + pause
    }

    /// Returns the footprint with so much anonymous memory.
    fn changed_to(self, anonymous: u64) -> u64 {
        (self.bytes + anonymous).saturating_sub(self.anonymous)
    }
}

/// Returns what hibernation moves of a process and its descendants.
pub(super) fn pageable(pid: u32) -> Option<Pageable> {
    let mut sum = Pageable::default();
    for process in with_descendants(pid) {
        let Ok(text) = fs::read_to_string(format!("/proc/{process}/smaps_rollup")) else {
            continue;
        };
        let bytes = |name| kilobytes(&text, name);
        sum.resident += bytes("Pss:")?;
        // Shared memory has no file on a disk either.
        sum.anonymous += bytes("Pss_Anon:")? + bytes("Pss_Shmem:")?;
        sum.swapped += bytes("SwapPss:")?;
    }
    Some(sum).filter(|sum| sum.resident > 0)
}

/// Returns a description of the excess, if a worker is above its limit.
fn excess(used: u64, limit: u64) -> Option<String> {
    let say = || {
        let (used, limit) = (size_in_words(used), size_in_words(limit));
        format!("it used {used} and may use {limit} (`memory_limit`)")
    };
    (used > limit).then(say)
}

/// Returns the bytes that a process and its descendants use; exact if that is above the limit.
fn used(process: u32, limit: u64) -> u64 {
    let processes = with_descendants(process);
    let sum: u64 = processes.iter().filter_map(|process| resident(*process)).sum();
    if sum <= limit || processes.len() == 1 {
        return sum;
    }
    // A forked process shares pages with its parent, which were counted for both.
    let own = |process: &u32| proportional(*process).or_else(|| resident(*process));
    processes.iter().filter_map(own).sum()
}

/// Returns a process and its descendants.
fn with_descendants(process: u32) -> Vec<u32> {
    let mut processes = vec![process];
    let mut seen = 0;
    while let Some(parent) = processes.get(seen) {
        processes.extend(children(*parent));
        seen += 1;
    }
    processes
}

pub(super) fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| Vec::from_iter(list.split_whitespace().flat_map(str::parse))).collect()
}

/// Returns the bytes of memory that only swap can take, in full where processes share it.
fn anonymous(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    Some(kilobytes(&text, "RssAnon:")? + kilobytes(&text, "RssShmem:")?)
}

fn resident(process: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{process}/status")).ok()?, "VmRSS:")
}

/// Returns the resident memory; shared pages are divided among their processes.
fn proportional(process: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?, "Pss:")
}

/// Returns the bytes in a line of these files.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let count: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(count * 1024)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn more_than_the_limit_is_said_with_both_figures() {
        assert_eq!(excess(2_000_000_000, 2_000_000_000), None);
        assert_eq!(
            excess(2_300_000_000, 2_000_000_000).unwrap(),
            "it used 2.3 GB and may use 2.0 GB (`memory_limit`)"
        );
        assert_eq!(
            excess(2_340_000, 999).unwrap(),
            "it used 2.3 MB and may use 999 B (`memory_limit`)"
        );
    }

    #[test]
    fn figures_are_read_from_their_lines() {
        let text = "VmHWM:\t  99 kB\nVmRSS:\t    1234 kB\nThreads:\t1\n";
        assert_eq!(kilobytes(text, "VmRSS:"), Some(1234 * 1024));
        assert_eq!(kilobytes(text, "Pss:"), None, "a process that has just ended");
    }

    #[test]
    fn an_exact_footprint_is_due_after_its_time_and_sooner_where_the_memory_has_changed() {
        let (at, took) = (Instant::now(), Duration::from_millis(10));
        let exact = Exact { bytes: 300, anonymous: 400, at, took };
        let is_due = |anonymous, milliseconds| {
            !exact.is_enough(anonymous, at + Duration::from_millis(milliseconds))
        };
        assert_eq!([is_due(440, 9_990), is_due(440, 10_010)], [false, true]);
        assert_eq!([is_due(460, 490), is_due(460, 510), is_due(340, 510)], [false, true, true]);
        let large = Exact { took: took * 100, ..exact };
        assert!(
            !large.is_enough(400, at + LONGEST_ESTIMATE),
            "it takes 1 s: a thousand times that is too long"
        );
    }

    #[test]
    fn between_exact_footprints_the_anonymous_memory_says_how_it_changed() {
        let (at, took) = (Instant::now(), LOOK);
        let exact = Exact { bytes: 300, anonymous: 400, at, took };
        assert_eq!([400, 450, 150, 50].map(|now| exact.changed_to(now)), [300, 350, 50, 0]);
        let mut sleeper = Command::new("sleep").arg("60").spawn().expect("it starts");
        let pid = sleeper.id();
        let first = Footprint::measure(pid, None).expect("it runs");
        assert_eq!(first.exact.bytes, first.bytes);
        // One that no exact one would confirm.
        let wrong = Exact { bytes: 1 << 50, took, ..first.exact };
        let again = Footprint::measure(pid, Some(Footprint { exact: wrong, ..first }));
        assert!(again.expect("it runs").bytes > 1 << 49);
        let due = Exact { took: Duration::ZERO, ..wrong };
        let again = Footprint::measure(pid, Some(Footprint { exact: due, ..first }));
        assert!(again.expect("it runs").exact.bytes < 1 << 49, "it is time for an exact one");
        sleeper.kill().expect("it runs");
        sleeper.wait().expect("it ends");
        for exact in [wrong, due] {
            let gone = Footprint::measure(pid, Some(Footprint { exact, ..first }));
            assert!(gone.is_none());
        }
    }

    #[test]
    fn what_a_process_started_counts() {
        let (script, pipe) = ("sleep 60 & read line; kill $!", Stdio::piped);
        let mut shell =
            Command::new("sh").args(["-c", script]).stdin(pipe()).spawn().expect("a shell");
        while children(shell.id()).is_empty() {
            std::thread::yield_now();
        }
        let alone = resident(shell.id()).expect("it runs");
        assert!(used(shell.id(), u64::MAX) > alone);
        let count = |processes: &[u32]| Some(processes.len() as u64);
        let (memory, gpu_memory) = (resident(shell.id()), Some(2));
        assert_eq!(usage(shell.id(), Some(&count)), Usage { memory, gpu_memory });
        assert_eq!(usage(shell.id(), None), Usage { memory, gpu_memory: None });
        let exact = used(shell.id(), 0);
        assert!(exact > 0 && exact < used(shell.id(), u64::MAX), "they share their library");
        drop(shell.stdin.take());
        shell.wait().expect("it ends");
        assert_eq!(used(shell.id(), 0), 0);
    }
}
