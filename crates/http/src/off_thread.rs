//! Work that depends on the length of what clients send.

use tokio::task::spawn_blocking;

/// What has more bytes is read on a thread of its own: reading it takes milliseconds, in which no
/// other request on this thread would go on.
const SMALL_BYTES: usize = 100 * 1024;

/// Does work on so many bytes where it holds nobody up.
///
/// # Panics
/// The work panics.
pub(crate) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= SMALL_BYTES {
        return work();
    }
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
