//! A process that another one forked for this program, and that this program adopts as a subreaper.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, WaitOptions, child_subreaper, kill_process, waitpid};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::child::{forget_beside, list_beside};

/// Returns whether processes that others started can become children of this one.
pub(super) fn can_adopt() -> bool {
    child_subreaper().is_ok_and(|reaper| reaper.is_some())
}

/// A child of this process that another process started. On drop it is killed.
#[derive(Debug)]
pub(crate) struct Adopted {
    pid: Pid,
    /// A signal whenever a child has ended: the runtime waits only for those that it started.
    ended: Signals,
    status: Option<ExitStatus>,
}

impl Adopted {
    /// Takes over a process that becomes a child of this one when its parent exits. It must be listed
    /// before that: an orphan that is not listed is waited for in `orphans.rs`.
    ///
    /// # Errors
    /// The error of the system.
    pub(super) fn new(pid: u32) -> io::Result<Self> {
        let id =
            i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let ended = signal(SignalKind::child())?;
        list_beside(pid);
        Ok(Self { pid: id, ended, status: None })
    }

    /// Returns the process id, until the process was waited for.
    pub(super) fn id(&self) -> Option<u32> {
        self.status.is_none().then(|| self.pid.as_raw_nonzero().get() as u32)
    }

    /// Resolves when the process is gone, with how it ended.
    ///
    /// # Errors
    /// The error of the system.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.status {
                return Ok(status);
            }
            match waitpid(Some(self.pid), WaitOptions::NOHANG)? {
                Some((_, status)) => self.status = Some(ExitStatus::from_raw(status.as_raw())),
                None => _ = self.ended.recv().await,
            }
        }
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if let Some(id) = self.id() {
            let _ = kill_process(self.pid, Signal::KILL);
            // What has ended already is waited for here, and the rest as an orphan.
            let _ = waitpid(Some(self.pid), WaitOptions::NOHANG);
            forget_beside(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{ChildStdout, Command, Stdio};

    use super::*;
    use crate::process::child::start_beside;

    #[expect(clippy::zombie_processes, reason = "the value that is tested waits for it")]
    fn adopted(script: &str) -> (Adopted, ChildStdout) {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped());
        let mut child = start_beside(&mut command).expect("a shell");
        let output = child.stdout.take().expect("a pipe");
        (Adopted::new(child.id()).expect("signals are received"), output)
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_told_as_often_as_it_is_asked() {
        let (mut process, _output) = adopted("exit 3");
        assert!(process.id().is_some());
        for _ in 0..2 {
            assert_eq!(process.wait().await.expect("a child").code(), Some(3));
        }
        assert_eq!(process.id(), None);
    }

    #[tokio::test]
    async fn a_process_that_is_not_held_is_killed() {
        let (process, mut output) = adopted("exec sleep 3600");
        drop(process);
        assert_eq!(output.read(&mut [0]).expect("a pipe"), 0);
    }
}
