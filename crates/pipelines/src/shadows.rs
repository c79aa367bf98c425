//! The shadows of a request: copies of it that run beside it, and whose responses are dropped.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

/// The most copies of one shadow that run at the same time.
pub(crate) const MOST_SHADOWS: usize = 256;

/// The shadows of a request. They end with it if it fails or is cancelled, and otherwise outlive its
/// response.
pub(crate) struct Shadows(watch::Sender<bool>);

impl Shadows {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Runs a shadow as a task of its own. Returns whether there was room for it.
    pub(crate) fn spawn(
        &self,
        room: &Arc<Semaphore>,
        shadow: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let Ok(permit) = room.clone().try_acquire_owned() else { return false };
        let outlives = self.0.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = shadow => {}
                () = cancelled(outlives) => {}
            }
            drop(permit);
        });
        true
    }

    /// Lets the shadows go on after the request.
    pub(crate) fn outlive(&self) {
        self.0.send_replace(true);
    }
}

/// Resolves when the request is dropped before its response.
async fn cancelled(mut outlives: watch::Receiver<bool>) {
    if outlives.wait_for(|outlives| *outlives).await.is_ok() {
        std::future::pending::<()>().await;
    }
}
