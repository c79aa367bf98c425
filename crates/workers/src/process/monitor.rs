//! The monitor of a worker process: its memory, and the stacks of its threads.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use litplex_core::{GpuMemory, LiveCode, Monitor, Pageable, Usage};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::memory::{Footprint, pageable, usage};
use crate::link::CodeHandle;

/// The time between two looks at a dump that is being written.
const LOOK: Duration = Duration::from_millis(20);

/// The number of looks after which a worker that wrote no dump is given up: a second.
const LOOKS: usize = 50;

/// The monitor of a worker process of this machine.
#[derive(Debug)]
pub(crate) struct ProcessMonitor {
    pid: u32,
    /// The process, which keeps its identity when its id is given to another one.
    process: Option<OwnedFd>,
    /// The file that the worker appends its stacks to.
    stacks: PathBuf,
    /// The code of its model, once it is loaded.
    code: Option<CodeHandle>,
    /// The last footprint.
    footprint: Mutex<Option<Footprint>>,
}

impl ProcessMonitor {
    /// Returns the monitor of a process that is a child of this one and was not waited for yet.
    pub(crate) fn new(pid: u32, stacks: PathBuf) -> Self {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let process = id.and_then(|id| pidfd_open(id, PidfdFlags::empty()).ok());
        Self { pid, process, stacks, code: None, footprint: Mutex::default() }
    }

    /// Returns the monitor with the code of the worker's model.
    pub(crate) fn with_code(self, code: CodeHandle) -> Self {
        Self { code: Some(code), ..self }
    }

    fn last_footprint(&self) -> MutexGuard<'_, Option<Footprint>> {
        self.footprint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Monitor for ProcessMonitor {
    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }

    fn footprint(&self) -> Option<u64> {
        let last = *self.last_footprint();
        let now = Footprint::measure(self.pid, last);
        *self.last_footprint() = now;
        now.map(|it| it.bytes)
    }

    fn pageable(&self) -> Option<Pageable> {
        pageable(self.pid)
    }

    fn usage(&self, gpu_memory: Option<&GpuMemory<'_>>) -> Usage {
        usage(self.pid, gpu_memory)
    }

    fn code(&self) -> Option<Arc<dyn LiveCode>> {
        self.code.clone().map(|code| Arc::new(code) as _)
    }

    /// The worker registered the signal with `faulthandler`, whose handler is C code: it needs neither
    /// the interpreter's lock nor the end of a call into native code.
    fn stack(&self) -> io::Result<String> {
        let mut stacks = OpenOptions::new().read(true).write(true).open(&self.stacks)?;
        stacks.set_len(0)?;
        let process = self.process.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        pidfd_send_signal(process, Signal::QUIT)?;
        read_dump(&mut stacks)
    }
}

/// Reads a dump that another process is writing. A dump has no mark at its end: it is complete if
/// nothing more was written between two looks.
fn read_dump(stacks: &mut File) -> io::Result<String> {
    let mut known = 0;
    for _ in 0..LOOKS {
        sleep(LOOK);
        let length = stacks.metadata()?.len();
        if length > 0 && length == known {
            let mut text = Vec::new();
            stacks.seek(SeekFrom::Start(0))?;
            stacks.read_to_end(&mut text)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        known = length;
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that ends with its test, also with one that fails.
    struct Shell(Child);

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Starts a shell that does this at each SIGQUIT, in a directory of its own.
    fn monitored(trap: &str) -> (Shell, ProcessMonitor, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let stacks = directory.path().join("stacks");
        fs::write(&stacks, "of an earlier request").unwrap();
        let script = format!("trap '{trap}' QUIT; echo; while :; do sleep 0.01; done");
        // A shell cannot trap a signal that it inherits as ignored, as a job in the background of a script does.
        let mut child = Command::new("env")
            .args(["--default-signal=QUIT", "sh", "-c", &script])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let shell = Shell(child);
        output.read_exact(&mut [0]).unwrap();
        let monitor = ProcessMonitor::new(shell.0.id(), stacks);
        (shell, monitor, directory)
    }

    #[test]
    fn a_dump_is_read_when_it_is_whole() {
        // In one write: a dump that pauses for longer than a look counts as whole, and on a busy machine a
        // pause between two writes has any length.
        let (shell, monitor, _directory) = monitored(r#"printf "one\ntwo\n" >> stacks"#);
        for _ in 0..2 {
            assert_eq!(monitor.stack().unwrap(), "one\ntwo\n");
        }
        drop(shell);
        let gone = monitor.stack().unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(rustix::io::Errno::SRCH.raw_os_error()));
    }

    #[test]
    fn a_process_that_writes_no_dump_is_given_up() {
        let (_shell, monitor, _directory) = monitored(":");
        assert_eq!(monitor.stack().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
