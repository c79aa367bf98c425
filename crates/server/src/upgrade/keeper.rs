//! The first process after an upgrade: it keeps the server that took its place, and its successors.
//!
//! It forwards signals to all of them, and ends with the exit status of the last. Each has a connection to
//! it, so that they notice when it is gone.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper,
    test_kill_process, waitpid,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep};

use super::link::{KeeperLink, Message, NOTED};
use crate::Error;
use crate::signals::{Received, SIGNAL_DEBOUNCE, Signals};

/// The time between two looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The process that others wait for.
pub(crate) enum KeptBy {
    /// This process is the first one; its successors connect to this socket.
    Itself(UnixListener),
    /// The first process is another one.
    First(KeeperLink),
}

/// Keeps the successors of this process until they have ended, and returns how the last one ended.
/// `stops` is told how often this process was asked to stop; `until` resolves when it must end at once.
///
/// # Errors
/// The last one failed.
pub(crate) async fn keep(
    successors: UnixListener,
    first: u32,
    signals: &mut Signals,
    until: impl Future<Output = ()>,
    stops: &watch::Sender<u32>,
) -> Result<(), Error> {
    // The successor of a successor becomes a child of this process when the one between them ends.
    set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
    let mut upgrades = signal(SignalKind::user_defined2())?;
    let mut kept = Kept { serving: first, running: BTreeSet::from([first]), status: None };
    let (noted, mut messages) = mpsc::channel(1);
    let (mut look, mut until) = (interval(LOOK), pin!(until));
    let mut is_dropped = false;
    while !kept.running.is_empty() {
        tokio::select! {
            accepted = successors.accept() => {
                if let Ok((stream, _)) = accepted && let Some(pid) = peer(&stream) {
                    kept.running.insert(pid);
                    tokio::spawn(follow(stream, noted.clone()));
                }
            }
            Some(pid) = messages.recv() => kept.replaced_by(pid),
            _ = look.tick() => kept.wait(),
            _ = upgrades.recv() => kept.signal(Signal::USR2),
            received = signals.next() => match received {
                Received::Reload(_) => kept.signal(Signal::HUP),
                Received::Stop(name) => {
                    tracing::info!("received {name}; process {} stops", kept.serving);
                    stops.send_modify(|stops| *stops += 1);
                    kept.signal_all(by_name(name));
                }
            },
            () = &mut until, if !is_dropped => {
                is_dropped = true;
                stops.send_modify(|stops| *stops += 2);
                // The second one stops a server at once.
                kept.signal_all(Signal::TERM);
                sleep(SIGNAL_DEBOUNCE + LOOK).await;
                kept.signal_all(Signal::TERM);
            }
        }
    }
    kept.result()
}

/// The processes that are kept.
struct Kept {
    /// The process that serves.
    serving: u32,
    /// The processes that have not ended.
    running: BTreeSet<u32>,
    /// The end of the process that serves.
    status: Option<WaitStatus>,
}

impl Kept {
    fn replaced_by(&mut self, pid: u32) {
        tracing::info!("process {pid} serves in place of process {}", self.serving);
        self.serving = pid;
        self.running.insert(pid);
    }

    /// Waits for the processes that have ended.
    fn wait(&mut self) {
        let Self { serving, running, status } = self;
        running.retain(|pid| match ended(*pid) {
            None => true,
            Some(ended) => {
                litplex_workers::forget_beside(*pid);
                if pid == serving {
                    *status = ended;
                }
                false
            }
        });
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.serving as i32) {
            let _ = kill_process(pid, signal);
        }
    }

    fn signal_all(&self, signal: Signal) {
        for pid in self.running.iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
            let _ = kill_process(pid, signal);
        }
    }

    fn result(self) -> Result<(), Error> {
        let Some(status) = self.status else { return Ok(()) };
        let (pid, signal) = (self.serving, status.terminating_signal());
        match (status.exit_status(), signal) {
            (Some(0) | None, None) => Ok(()),
            (Some(status), _) => {
                let how = format!("ended with status {status}");
                Err(Error::Successor { pid, status: u8::try_from(status).unwrap_or(1), how })
            }
            (None, Some(signal)) => {
                let how = format!("was killed by signal {signal}");
                let status = u8::try_from(128 + signal).unwrap_or(1);
                Err(Error::Successor { pid, status, how })
            }
        }
    }
}

/// Returns whether a process has ended, and how, if this process may wait for it.
fn ended(pid: u32) -> Option<Option<WaitStatus>> {
    let pid = Pid::from_raw(pid as i32)?;
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(None) => None,
        Ok(Some((_, status))) => Some(Some(status)),
        // It is the child of another server, which still runs; or it is gone.
        Err(_) => test_kill_process(pid).is_err().then_some(None),
    }
}

/// Passes on which process takes the place of a server.
async fn follow(stream: UnixStream, noted: mpsc::Sender<u32>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(Message::Successor { pid }) = serde_json::from_str(&line) {
            // It becomes a child of this process later, and must not be taken for an orphan of a model.
            litplex_workers::list_beside(pid);
            let _ = noted.send(pid).await;
            let _ = write.write_all(&[NOTED]).await;
        }
    }
}

fn peer(stream: &UnixStream) -> Option<u32> {
    u32::try_from(stream.peer_cred().ok()?.pid()?).ok()
}

fn by_name(name: &str) -> Signal {
    // SIGHUP, after the terminal has closed, would reload a server without one.
    match name {
        "SIGINT" => Signal::INT,
        "SIGQUIT" => Signal::QUIT,
        _ => Signal::TERM,
    }
}
