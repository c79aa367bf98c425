//! The successor of a server: its start, until it serves.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::command::StartCommand;
use super::inherited::{KEEPER, PREDECESSOR};
use super::link::Message;

/// The name of the socket in the directory of a server on which its successor reports.
pub(super) const SUCCESSOR: &str = "successor.sock";

/// The first descriptor that is passed to a process (`sd_listen_fds(3)`).
const FIRST: i32 = 3;

/// The time between two looks whether the process has ended.
const LOOK: Duration = Duration::from_millis(50);

/// The time that a process which is not wanted has to exit.
const EXIT_TIME: Duration = Duration::from_secs(10);

/// The time in which the last message of a process that has ended is read.
const LAST_MESSAGE: Duration = Duration::from_millis(500);

/// The plan of a successor.
pub(super) struct Plan<'a> {
    pub(super) command: &'a StartCommand,
    /// The sockets that it takes over.
    pub(super) sockets: Vec<(&'static str, OwnedFd)>,
    /// The path of the socket on which it reports.
    pub(super) predecessor: PathBuf,
    /// The path of the first process's socket.
    pub(super) keeper: &'a Path,
}

impl Plan<'_> {
    /// Starts the process.
    pub(super) fn start(self) -> io::Result<Starting> {
        // An earlier attempt may have left it.
        let _ = fs::remove_file(&self.predecessor);
        let reports = UnixListener::bind(&self.predecessor)?;
        let names = self.sockets.iter().map(|(name, _)| *name);
        let names = Vec::from_iter(names).join(":");
        let mut command = self.command.command();
        command
            .stdin(Stdio::null())
            .env("LISTEN_FDS", self.sockets.len().to_string())
            .env("LISTEN_FDNAMES", names)
            // Without it, the number of the process is not checked: it is not known yet.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS_FIRST_FD")
            .env(PREDECESSOR, &self.predecessor)
            .env(KEEPER, self.keeper)
            // The first process notifies the service manager.
            .env_remove("NOTIFY_SOCKET");
        let sockets = (FIRST..).zip(self.sockets);
        let mappings = sockets.map(|(child_fd, (_, parent_fd))| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.collect()).map_err(io::Error::other)?;
        let process = litplex_workers::start_beside(&mut command)?;
        Ok(Starting { process: Some(process), reports })
    }
}

/// A process that starts. On drop it is asked to end.
pub(super) struct Starting {
    process: Option<Child>,
    reports: UnixListener,
}

/// A server that has taken the place of this one.
#[derive(Debug)]
pub(crate) struct Successor {
    /// The process id of the server. That of the started process is another one where a script starts the
    /// server.
    pub(crate) pid: u32,
    pub(crate) version: String,
    /// The process that was started. It is not waited for here: the first process does.
    _process: Child,
}

impl Starting {
    pub(super) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// Returns the successor once it serves; otherwise returns why it does not, and it is ended.
    pub(super) async fn ready(mut self, limit: Duration) -> Result<Successor, String> {
        match timeout(limit, self.reported()).await {
            Ok(Ok((pid, version))) => {
                let process = self.process.take();
                let process = process.ok_or("its process is gone. This is a bug.")?;
                Ok(Successor { pid, version, _process: process })
            }
            Ok(Err(reason)) => {
                self.end().await;
                Err(reason)
            }
            Err(_) => {
                self.end().await;
                Err(format!("it was not ready after {} s", limit.as_secs_f64()))
            }
        }
    }

    /// Ends the process, if it runs.
    async fn end(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        terminate(&process);
        if timeout(EXIT_TIME, ended(&mut process)).await.is_err() {
            let _ = process.kill();
            ended(&mut process).await;
        }
        litplex_workers::forget_beside(process.id());
    }

    /// Waits for the report of the process, or for its end.
    async fn reported(&mut self) -> Result<(u32, String), String> {
        let Self { process: Some(process), reports } = self else {
            return Err("its process is gone. This is a bug.".into());
        };
        let report = report(reports);
        tokio::pin!(report);
        tokio::select! {
            report = &mut report => report,
            status = ended(process) => {
                // It may have said why before it ended.
                let said = timeout(LAST_MESSAGE, report).await;
                said.ok().filter(Result::is_err).unwrap_or_else(|| {
                    Err(format!("it ended with {status} before it was ready; its output has the reason"))
                })
            }
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.process.iter().for_each(terminate);
    }
}

fn terminate(process: &Child) {
    if let Some(pid) = Pid::from_raw(process.id() as i32) {
        // It may have ended.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// Returns the process id and the version of the server that reports to be ready.
async fn report(reports: &UnixListener) -> Result<(u32, String), String> {
    let broken = |error: io::Error| format!("it does not report: {error}");
    let (stream, _): (UnixStream, _) = reports.accept().await.map_err(broken)?;
    let pid = stream.peer_cred().map_err(broken)?.pid();
    let pid = pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
    let line = BufReader::new(stream).lines().next_line().await.map_err(broken)?;
    match line.map(|line| serde_json::from_str(&line)) {
        Some(Ok(Message::Ready { version })) => Ok((pid, version)),
        Some(Ok(Message::Failed { reason })) => Err(reason),
        Some(other) => Err(format!("it is another version of litplex: {other:?}")),
        // The status of the process says more.
        None => std::future::pending().await,
    }
}

async fn ended(process: &mut Child) -> ExitStatus {
    loop {
        match process.try_wait() {
            Ok(Some(status)) => return status,
            Ok(None) => sleep(LOOK).await,
            Err(_) => return ExitStatus::default(),
        }
    }
}
