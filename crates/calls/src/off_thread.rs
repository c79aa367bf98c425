//! Work that depends on the length of what clients send.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

/// What has more bytes is read on a thread of its own: reading it takes milliseconds, in which no
/// other request on this thread would go on.
const SMALL_BYTES: usize = 100 * 1024;

/// How much such work is done at a time: it takes whole cores, and some are to be left for HTTP.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = available_parallelism().map_or(1, usize::from);
    Semaphore::new((cores / 2).max(1))
});

/// Waits for a turn to do work that takes a core. What holds one must not wait for another.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("nobody closes it. This is a bug.")
}

/// Does work on so many bytes where it holds nobody up.
///
/// # Panics
/// The work panics.
pub async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= SMALL_BYTES {
        return work();
    }
    let turn = turn().await;
    // A caller that leaves does not end the work, which keeps its turn.
    let work = move || {
        let done = work();
        drop(turn);
        done
    };
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
