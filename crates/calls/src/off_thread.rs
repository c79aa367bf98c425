//! Work whose duration depends on the length of requests.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

/// The longest body, in bytes, that is parsed on an HTTP thread. Longer ones take milliseconds, in
/// which the other requests of the thread would wait.
const SMALL_BYTES: usize = 100 * 1024;

/// The turns for such work. Each takes a core, and some cores are left for HTTP.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = available_parallelism().map_or(1, usize::from);
    Semaphore::new((cores / 2).max(1))
});

/// Waits for a turn for work that takes a core. The holder of a turn must not wait for another.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("the semaphore is closed. This is a bug.")
}

/// Runs work on this many bytes where it blocks no other request.
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
    // The work keeps its turn and goes on if its caller leaves.
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
