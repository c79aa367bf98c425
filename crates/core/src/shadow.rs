//! Shadows: copies of requests that run beside them, and whose responses are dropped.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The most shadows that run at the same time in one room.
pub const MOST_SHADOWS: usize = 256;

/// The most bytes that the requests of these shadows take together: 16 MiB.
const MOST_BYTES: usize = 16 << 20;

/// The room for shadows of one kind: their number and their bytes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShadowRoom {
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Default for ShadowRoom {
    fn default() -> Self {
        let (places, bytes) = (Semaphore::new(MOST_SHADOWS), Semaphore::new(MOST_BYTES));
        Self { places: Arc::new(places), bytes: Arc::new(bytes) }
    }
}

impl ShadowRoom {
    fn take(&self, bytes: usize) -> Option<[OwnedSemaphorePermit; 2]> {
        let bytes = u32::try_from(bytes).ok()?;
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some([place, self.bytes.clone().try_acquire_many_owned(bytes).ok()?])
    }
}

/// Whether shadows go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// As long as their owner.
    Bound,
    /// To their end.
    Outliving,
    /// No longer.
    Ended,
}

/// The shadows of one owner: a request, or the trial of a generation. They end with the owner, unless it lets
/// them outlive it.
#[derive(Debug)]
pub struct Shadows(watch::Sender<Scope>);

impl Default for Shadows {
    fn default() -> Self {
        Self(watch::Sender::new(Scope::Bound))
    }
}

impl Shadows {
    /// Runs a shadow as a task of its own, which takes this many bytes that nothing else counts. Returns
    /// whether there was room for it.
    pub fn spawn(
        &self,
        room: &ShadowRoom,
        bytes: usize,
        shadow: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let Some(permits) = room.take(bytes) else { return false };
        let scope = self.0.subscribe();
        tokio::spawn(async move {
            // The end comes first: what has not begun does not begin.
            tokio::select! {
                biased;
                () = ended(scope) => {}
                () = shadow => {}
            }
            drop(permits);
        });
        true
    }

    /// Lets the shadows go on after their owner.
    pub fn outlive(&self) {
        self.0.send_replace(Scope::Outliving);
    }

    /// Ends the shadows.
    pub fn end(&self) {
        self.0.send_replace(Scope::Ended);
    }
}

/// Resolves when the shadows end, or their owner is dropped before it lets them outlive it.
async fn ended(mut scope: watch::Receiver<Scope>) {
    let changed = scope.wait_for(|scope| *scope != Scope::Bound).await;
    if changed.is_ok_and(|scope| *scope == Scope::Outliving) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::yield_now;

    use super::*;

    /// A shadow that never ends, and the receiver that learns when it is dropped.
    fn endless() -> (impl Future<Output = ()>, oneshot::Receiver<()>) {
        let (sender, dropped) = oneshot::channel::<()>();
        let shadow = async move {
            let _sender = sender;
            std::future::pending::<()>().await;
        };
        (shadow, dropped)
    }

    #[tokio::test]
    async fn shadows_end_with_their_owner_unless_they_outlive_it() {
        let room = ShadowRoom::default();
        for ends in ["dropped", "ended"] {
            let (shadows, (shadow, dropped)) = (Shadows::default(), endless());
            assert!(shadows.spawn(&room, 1, shadow));
            match ends {
                "dropped" => drop(shadows),
                _ => shadows.end(),
            }
            assert!(dropped.await.is_err(), "{ends}");
        }
        let (shadows, (shadow, mut dropped)) = (Shadows::default(), endless());
        assert!(shadows.spawn(&room, 1, shadow));
        shadows.outlive();
        drop(shadows);
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    #[tokio::test]
    async fn a_shadow_does_not_begin_after_the_end() {
        for _ in 0..100 {
            let (shadows, (began, begun)) = (Shadows::default(), oneshot::channel());
            let shadow = async {
                let _ = began.send(());
            };
            assert!(shadows.spawn(&ShadowRoom::default(), 1, shadow));
            shadows.end();
            assert!(begun.await.is_err());
        }
    }

    #[tokio::test]
    async fn a_room_bounds_the_number_and_the_bytes() {
        let (room, shadows) = (ShadowRoom::default(), Shadows::default());
        assert!(!shadows.spawn(&room, MOST_BYTES + 1, async {}), "too large for any room");
        let (shadow, dropped) = endless();
        assert!(shadows.spawn(&room, MOST_BYTES, shadow));
        assert!(!shadows.spawn(&room, 1, async {}), "the bytes are taken");
        shadows.end();
        assert!(dropped.await.is_err());
        yield_now().await;
        let shadows = Shadows::default();
        for _ in 0..MOST_SHADOWS {
            assert!(shadows.spawn(&room, 1, endless().0));
        }
        assert!(!shadows.spawn(&room, 0, async {}), "the places are taken");
    }
}
