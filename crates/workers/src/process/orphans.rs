//! Processes whose parents are gone. In a container no other process may wait for them.

use std::io;

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant, sleep};

use super::child::{CLEAN_UP, LOOK_EVERY, with_known_children};
use super::memory::children;

/// Processes that end together are waited for together.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes this process the one that adopts the orphans among its descendants.
///
/// # Errors
/// The system refuses.
pub fn become_reaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Adopts the orphans of models and waits for them, so that they do not stay as zombies. Only for a
/// program that starts every process through this crate: another child would be taken for an orphan.
/// Never resolves, unless the system refuses.
///
/// # Errors
/// The system refuses.
pub async fn adopt_orphans() -> io::Result<()> {
    become_reaper()?;
    let mut ended = signal(SignalKind::child())?;
    while ended.recv().await.is_some() {
        sleep(PAUSE).await;
        let _ = spawn_blocking(reap).await;
    }
    Ok(())
}

/// Ends the adopted orphans: terminates them, and kills those that stay. For the end of a program
/// that has adopted orphans.
pub async fn end_orphans() {
    signal_orphans(Signal::TERM);
    let begin = Instant::now();
    while orphans_left() && begin.elapsed() < CLEAN_UP {
        sleep(LOOK_EVERY).await;
    }
    // Their own children are adopted as they end.
    let begin = Instant::now();
    while orphans_left() && begin.elapsed() < CLEAN_UP {
        signal_orphans(Signal::KILL);
        sleep(LOOK_EVERY).await;
    }
}

fn signal_orphans(signal: Signal) {
    for_each_orphan(|orphan| _ = kill_process(orphan, signal));
}

/// Waits for the orphans that have ended; returns whether others are left.
fn orphans_left() -> bool {
    reap();
    let mut left = false;
    for_each_orphan(|_| left = true);
    left
}

/// Waits for the children that have ended and that this process did not start.
fn reap() {
    for_each_orphan(|orphan| _ = waitpid(Some(orphan), WaitOptions::NOHANG));
}

/// Calls a function with each child that this process did not start, while none is started.
fn for_each_orphan(mut act: impl FnMut(Pid)) {
    with_known_children(|known| {
        let children = children(std::process::id()).into_iter();
        let orphans = children.filter(|child| !known.contains(child));
        orphans.filter_map(|orphan| Pid::from_raw(orphan as i32)).for_each(&mut act);
    });
}
