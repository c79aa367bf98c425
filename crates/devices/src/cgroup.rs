//! Memory limits that the kernel enforces, if systemd has delegated a cgroup to this server.
//!
//! cgroup v2 forbids processes in a cgroup that has others below it, and this server moves no process
//! that it did not start. systemd therefore places the server: with `Delegate=memory` and
//! `DelegateSubgroup=…` it runs in a cgroup below the delegated one, and the cgroups of workers are
//! beside its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io, process, thread};

use rustix::fs::getxattr;

/// The mount point of cgroup v2.
const ROOT: &str = "/sys/fs/cgroup";

/// The attributes that mark a delegated cgroup: for root, and for other users.
const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// The number of attempts to remove a cgroup, and the time between them.
const REMOVALS: usize = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

/// The cgroup of one worker. On drop it is removed, and the processes left in it are killed.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    limit: u64,
}

impl Cgroup {
    /// Creates a cgroup for a worker that may use this many bytes; `None` if that is not permitted.
    pub fn create(limit: u64) -> Option<Self> {
        let delegated = delegated()?;
        Self::create_in(&delegated, limit).unwrap_or_else(|error| {
            let place = delegated.display();
            tracing::warn!(
                "`memory_limit` is watched, not enforced: no cgroup in {place}: {error}"
            );
            None
        })
    }

    fn create_in(delegated: &Path, limit: u64) -> io::Result<Option<Self>> {
        if !says(&delegated.join("cgroup.controllers"), "memory") {
            return Ok(None);
        }
        remove_left_over(delegated);
        let control = delegated.join("cgroup.subtree_control");
        if !says(&control, "memory") {
            fs::write(control, "+memory")?;
        }
        let path = (0..)
            .map(|number| delegated.join(format!("litplex-{}-{number}", process::id())))
            .find(|path| !path.exists())
            .ok_or(io::ErrorKind::AlreadyExists)?;
        fs::create_dir(&path)?;
        let made = Self { path, limit };
        made.allow_swap(false)?;
        fs::write(made.path.join("memory.max"), limit.to_string())?;
        // One process above the limit ends all of them: a worker needs its children.
        fs::write(made.path.join("memory.oom.group"), "1")?;
        Ok(Some(made))
    }

    /// Sets whether its processes may move memory to swap. By default they may not: above the limit they would grow
    /// into swap. What is there already stays.
    pub fn allow_swap(&self, is_allowed: bool) -> io::Result<()> {
        let swap = self.path.join("memory.swap.max");
        // A kernel without swap has no such file.
        if swap.exists() {
            fs::write(swap, if is_allowed { "max" } else { "0" })?;
        }
        Ok(())
    }

    /// Moves a process into the cgroup, and with it the processes that it will start.
    pub fn admit(&self, process: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), process.to_string())
    }

    /// Returns the limit, if the kernel has killed a process at it.
    pub fn exceeded(&self) -> Option<u64> {
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        let count = |name| events.lines().find_map(|line| line.strip_prefix(name));
        // The kernel also kills processes when the machine has no memory left.
        let is_some = |count: &str| count.trim() != "0";
        (is_some(count("oom ")?) && is_some(count("oom_kill ")?)).then_some(self.limit)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Older kernels lack this file; the worker's process group was killed in any case.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        if fs::remove_dir(&self.path).is_ok() {
            return;
        }
        // A killed process may take a moment to end.
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            let is_removed = |()| fs::remove_dir(&path).is_ok();
            (0..REMOVALS).map(|_| thread::sleep(REMOVAL_PAUSE)).any(is_removed);
        };
        // If no thread can be started, the next start of a server removes the cgroup.
        let _ = thread::Builder::new().name("cgroup".into()).spawn(remove);
    }
}

/// Returns the cgroup above this server's, if systemd has delegated it.
fn delegated() -> Option<PathBuf> {
    let own = own_cgroup(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    let above = own.parent()?;
    MARKS.iter().any(|mark| is_marked(above, mark)).then(|| above.to_owned())
}

/// Returns the path of the cgroup v2 that `/proc/self/cgroup` names.
fn own_cgroup(text: &str) -> Option<PathBuf> {
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!own.is_empty()).then(|| Path::new(ROOT).join(own))
}

fn is_marked(cgroup: &Path, mark: &str) -> bool {
    let mut value = [0; 8];
    getxattr(cgroup, mark, &mut value).is_ok_and(|length| value[..length] == *b"1")
}

/// Returns whether a file has this word.
fn says(file: &Path, word: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|each| each == word))
}

/// Removes the cgroups of servers that were killed. The kernel keeps those that hold a process.
fn remove_left_over(delegated: &Path) {
    for entry in fs::read_dir(delegated).into_iter().flatten().flatten() {
        if owner(&entry.file_name()).is_some_and(|server| !is_running(server)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Returns the process id in the name of a cgroup of a litplex server.
fn owner(name: &OsStr) -> Option<u32> {
    name.to_str()?.strip_prefix("litplex-")?.split_once('-')?.0.parse().ok()
}

fn is_running(server: u32) -> bool {
    Path::new("/proc").join(server.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delegated_directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("cgroup.controllers"), "cpu memory\n").expect("a file");
        fs::write(directory.path().join("cgroup.subtree_control"), "").expect("a file");
        directory
    }

    fn read(cgroup: &Cgroup, file: &str) -> String {
        fs::read_to_string(cgroup.path.join(file)).expect("it was written")
    }

    #[test]
    fn a_worker_has_a_limit_of_its_own() {
        let directory = delegated_directory();
        let create = || Cgroup::create_in(directory.path(), 1000).expect("it may").expect("one");
        let (one, other) = (create(), create());
        assert_ne!(one.path, other.path);
        let control = fs::read_to_string(directory.path().join("cgroup.subtree_control"));
        assert_eq!(control.expect("a file"), "+memory");
        one.admit(7).expect("it may");
        let files = ["memory.max", "memory.oom.group", "cgroup.procs"];
        assert_eq!(files.map(|file| read(&one, file)), ["1000", "1", "7"]);
        assert_eq!(one.exceeded(), None);
        fs::write(one.path.join("memory.events"), "oom 1\noom_kill 0\n").expect("a file");
        assert_eq!(one.exceeded(), None, "the kernel found what it could take");
        fs::write(one.path.join("memory.events"), "oom 1\noom_kill 2\n").expect("a file");
        assert_eq!(one.exceeded(), Some(1000));
    }

    #[test]
    fn what_is_left_of_servers_that_are_gone_is_removed() {
        let directory = delegated_directory();
        let make = |name: &str| {
            fs::create_dir(directory.path().join(name)).expect("it may");
            directory.path().join(name)
        };
        let gone = make("litplex-4194305-0");
        let (init, others) = (make("litplex-1-0"), make("litplex-server"));
        let one = Cgroup::create_in(directory.path(), 1).expect("it may").expect("one");
        assert_eq!([gone.exists(), init.exists(), others.exists()], [false, true, true]);
        let path = one.path.clone();
        drop(one);
        assert_eq!(fs::read_to_string(path.join("cgroup.kill")).expect("a file"), "1");
    }

    #[test]
    fn nothing_is_made_without_the_controller_or_the_mark() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("cgroup.controllers"), "cpu\n").expect("a file");
        assert!(Cgroup::create_in(directory.path(), 1).expect("it is no mistake").is_none());
        assert!(!is_marked(directory.path(), "user.delegate"));
        let text = "4:memory:/a\n0::/system.slice/litplex.service/server\n";
        let own = own_cgroup(text).expect("version 2");
        assert_eq!(own, Path::new(ROOT).join("system.slice/litplex.service/server"));
        assert_eq!(own_cgroup("0::/\n"), None, "a container's own root");
    }
}
