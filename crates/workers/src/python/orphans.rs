//! Processes whose parents are gone: in a container nobody else may be there to wait for them.

use std::io;

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Duration, sleep};

use super::memory::children;
use super::process::with_known_children;

/// Processes that end together are waited for together.
const PAUSE: Duration = Duration::from_millis(100);

/// Has the system hand over the orphans of models to this process, and waits for them, so that they
/// do not stay as zombies. Only for a program that starts no process but by this crate: another's
/// child would be taken for an orphan. Never resolves, unless the system refuses.
///
/// # Errors
/// What the system says.
pub async fn adopt_orphans() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let mut ended = signal(SignalKind::child())?;
    while ended.recv().await.is_some() {
        sleep(PAUSE).await;
        let _ = spawn_blocking(reap).await;
    }
    Ok(())
}

/// Waits for the children that have ended and that this process did not start.
fn reap() {
    with_known_children(|known| {
        for child in children(std::process::id()).into_iter().filter(|child| !known.contains(child))
        {
            let _ = waitpid(Pid::from_raw(child as i32), WaitOptions::NOHANG);
        }
    });
}
