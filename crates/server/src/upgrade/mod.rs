//! The upgrade of a server: a new process starts the program again, takes over the sockets, and this one drains.
//!
//! ```text
//!  first process ──starts──► successor        `LISTEN_FDS`: the sockets
//!       │  ▲                     │
//!       │  └── ready, or failed ─┘            the socket of the predecessor
//!       │
//!       └ drains its requests, then keeps the successor: forwards signals, ends with its exit status
//! ```
//!
//! The first process stays, because others wait for it: a shell, `python server.py`, systemd, a container. A
//! successor that is replaced, too, drains and ends, and the kernel makes its own successor a child of the
//! first process, which has become a subreaper.
//!
//! The task [`Upgrader`] owns the upgrade. What fails before the successor is ready ends the successor, and
//! this server goes on.

mod command;
mod inherited;
mod keeper;
mod link;
mod memory;
mod successor;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use litplex_admin::{EventKind, Refusal, UpgradeState, Upgraded};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::command::StartCommand;
pub use self::inherited::{Inherited, Predecessor};
pub(crate) use self::inherited::{Sockets, TakenSocket, is_at, socket_name};
pub(crate) use self::keeper::{KeptBy, keep};
pub(crate) use self::link::KEEPER;
pub(crate) use self::memory::note as memory_note;
pub(crate) use self::successor::Successor;
use self::successor::{Plan, SUCCESSOR};
use crate::events::Events;

/// The time that a new server has to become ready, for an upgrade that a signal asks for.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);

/// A request for an upgrade.
struct Command {
    /// The time that the new server has to become ready.
    limit: Duration,
    done: oneshot::Sender<Result<Upgraded, Refusal>>,
}

/// The upgrades of this server, as operators ask for them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upgrades(mpsc::Sender<Command>);

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Default for Upgrades {
    /// Returns those of a server that nothing upgrades.
    fn default() -> Self {
        Self(mpsc::channel(1).0)
    }
}

impl Upgrades {
    /// Replaces this server. Returns once the new one serves, or has failed. A drop of the future does not
    /// end the upgrade.
    pub(crate) async fn upgrade(&self, limit: Duration) -> Result<Upgraded, Refusal> {
        let (done, result) = oneshot::channel();
        let stopping = || Refusal::conflict("the server is stopping");
        self.0.try_send(Command { limit, done }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => in_progress(),
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        result.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// The task that upgrades the server.
#[derive(Debug)]
pub(crate) struct Upgrader {
    /// The command that starts the program again; otherwise why there is none.
    command: Result<StartCommand, String>,
    sockets: Vec<(&'static str, OwnedFd)>,
    directory: PathBuf,
    keeper: PathBuf,
    events: Events,
    ready: watch::Receiver<bool>,
    commands: mpsc::Receiver<Command>,
}

impl Upgrader {
    /// Returns the task of a server with these sockets, and the handle for operators. `keeper` is the socket
    /// of the first process.
    pub(crate) fn new(
        command: Result<StartCommand, String>,
        sockets: Vec<(&'static str, OwnedFd)>,
        directory: &Path,
        keeper: PathBuf,
        events: Events,
        ready: watch::Receiver<bool>,
    ) -> (Self, Upgrades) {
        let (sender, commands) = mpsc::channel(1);
        let directory = directory.to_owned();
        (Self { command, sockets, directory, keeper, events, ready, commands }, Upgrades(sender))
    }

    /// Resolves once a successor serves. Failed upgrades are reported.
    pub(crate) async fn upgraded(&mut self) -> Successor {
        loop {
            // The handler of the admin API, which has the other end, lives as long as the server.
            let Some(Command { limit, done }) = self.commands.recv().await else {
                return std::future::pending().await;
            };
            let (process, began) = (std::process::id(), Instant::now());
            let (result, successor) = match self.upgrade(limit).await {
                Ok(successor) => {
                    let (pid, version) = (successor.pid, successor.version.clone());
                    let seconds = began.elapsed().as_secs_f64();
                    self.note(UpgradeState::Serving, Some(pid), None);
                    (Ok(Upgraded { before: process, pid, version, seconds }), Some(successor))
                }
                Err(reason) => {
                    self.note(UpgradeState::Failed, None, Some(&reason));
                    let reason =
                        format!("the upgrade failed, and process {process} goes on: {reason}");
                    (Err(Refusal::conflict(reason)), None)
                }
            };
            // The client may have left.
            let _ = done.send(result);
            if let Some(successor) = successor {
                return successor;
            }
        }
    }

    /// Starts a successor, and returns it once it is ready; otherwise returns why it is not.
    async fn upgrade(&mut self, limit: Duration) -> Result<Successor, String> {
        let command = self.command.clone()?;
        if !*self.ready.borrow() {
            return Err("this server is still starting".into());
        }
        let sockets = self.sockets.iter().map(|(name, socket)| Ok((*name, socket.try_clone()?)));
        let sockets: std::io::Result<Vec<_>> = sockets.collect();
        let sockets = sockets.map_err(|error| format!("no descriptor is left: {error}"))?;
        let plan = Plan {
            command: &command,
            sockets,
            predecessor: self.directory.join(SUCCESSOR),
            keeper: &self.keeper,
        };
        let starting = plan.start().map_err(|error| {
            format!("`{}` cannot be started: {error}", command.program().display())
        })?;
        tracing::info!(
            "upgrade: process {} starts, as `{command}`; it has {} s to become ready",
            starting.pid(),
            limit.as_secs_f64()
        );
        self.note(UpgradeState::Starting, Some(starting.pid()), None);
        let ready = starting.ready(limit);
        tokio::pin!(ready);
        loop {
            tokio::select! {
                ready = &mut ready => return ready,
                Some(Command { done, .. }) = self.commands.recv() => {
                    let _ = done.send(Err(in_progress()));
                }
            }
        }
    }

    /// Records the state of an upgrade, in the log and the events.
    fn note(&self, state: UpgradeState, pid: Option<u32>, reason: Option<&str>) {
        match (state, pid, reason) {
            (UpgradeState::Serving, Some(pid), _) => {
                tracing::info!("upgrade: process {pid} serves; this one finishes its requests");
            }
            (UpgradeState::Failed, _, Some(reason)) => {
                tracing::error!("upgrade failed; this server goes on: {reason}");
            }
            _ => {}
        }
        self.events.record(EventKind::Upgrade { state, pid, reason: reason.map(str::to_owned) });
    }
}

/// Returns the refusal of an upgrade while another one is in progress.
fn in_progress() -> Refusal {
    Refusal::conflict("the server is being upgraded; wait for its end")
}
