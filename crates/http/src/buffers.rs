use std::sync::Arc;

use litplex_core::{Outcome, ServeError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies up to this size are bounded by the number of connections, and not counted.
const COUNTED_BYTES: usize = 64 * 1024;

/// What is counted: a semaphore has no more than 2³² permits to give in one go.
const UNIT: usize = 1024;

/// Room for the bodies of requests, over all connections.
#[derive(Debug)]
pub(crate) struct Buffers {
    room: Arc<Semaphore>,
    units: usize,
}

/// Room that one request takes until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Buffers {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(units)), units }
    }

    /// Returns how many bytes there is room for.
    pub(crate) fn limit(&self) -> usize {
        self.units * UNIT
    }

    /// Returns how many of them are taken.
    pub(crate) fn taken(&self) -> usize {
        (self.units - self.room.available_permits()) * UNIT
    }

    /// Makes room for a request to grow to this many bytes. It is refused at once where there is
    /// none: bodies that waited for one another with half of their room taken might wait for ever.
    pub(crate) fn grow(&self, buffer: &mut Buffer, bytes: usize) -> Outcome<()> {
        if bytes <= buffer.bytes.max(COUNTED_BYTES) {
            return Ok(());
        }
        let units = (bytes - buffer.bytes).div_ceil(UNIT) as u32;
        let more = self.room.clone().try_acquire_many_owned(units).map_err(|_| full())?;
        match &mut buffer.permit {
            Some(permit) => permit.merge(more),
            None => buffer.permit = Some(more),
        }
        buffer.bytes += units as usize * UNIT;
        Ok(())
    }
}

fn full() -> ServeError {
    ServeError::unavailable("the server holds as many large request bodies as it may", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn large_bodies_share_their_room_and_give_it_back() {
        let buffers = Buffers::new(300 * KIB);
        let (mut first, mut second) = (Buffer::default(), Buffer::default());
        buffers.grow(&mut first, 200 * KIB).unwrap();
        buffers.grow(&mut second, 64 * KIB).unwrap();
        assert_eq!(buffers.grow(&mut second, 101 * KIB).unwrap_err().status, 503);
        buffers.grow(&mut second, 100 * KIB).unwrap();
        buffers.grow(&mut first, 150 * KIB).unwrap();
        assert!(buffers.grow(&mut first, 201 * KIB).is_err());
        assert_eq!((buffers.taken(), buffers.limit()), (300 * KIB, 300 * KIB));
        drop(second);
        assert_eq!(buffers.taken(), 200 * KIB);
        buffers.grow(&mut first, 300 * KIB).unwrap();
    }
}
