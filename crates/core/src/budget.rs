//! The memory that requests and responses take, counted in bytes over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use crate::{Outcome, ServeError};

/// The bytes that all requests and responses together may take.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: usize,
    taken: AtomicUsize,
}

impl MemoryBudget {
    /// Returns a budget of this many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0) })
    }

    /// Returns the size of the budget in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the number of reserved bytes.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Returns an empty reservation, which can grow.
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation(Some(Arc::new(Reserved { budget: self.clone(), bytes: AtomicUsize::new(0) })))
    }

    fn take(&self, bytes: usize) -> Outcome<()> {
        let before = self.taken.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        self.taken.fetch_sub(bytes, Relaxed);
        Err(ServeError::overloaded(
            "the server is at its memory limit for requests and responses; retry later",
            1,
        ))
    }
}

/// The bytes of the [`MemoryBudget`] that one request takes. Clones share the same reservation; it is
/// released when the last clone is dropped.
///
/// The default is part of no budget, and grows without a limit.
#[derive(Debug, Clone, Default)]
pub struct Reservation(Option<Arc<Reserved>>);

#[derive(Debug)]
struct Reserved {
    budget: Arc<MemoryBudget>,
    bytes: AtomicUsize,
}

impl Reservation {
    /// Reserves this many bytes more.
    ///
    /// # Errors
    /// 503 if the budget has too few bytes left; the reservation is unchanged. Requests do not wait
    /// for room: requests that each hold half of what they need would wait for one another.
    pub fn grow(&self, bytes: usize) -> Outcome<()> {
        let Some(reserved) = &self.0 else { return Ok(()) };
        reserved.budget.take(bytes)?;
        reserved.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Releases this many bytes, at most all that are reserved.
    pub fn shrink(&self, bytes: usize) {
        let Some(reserved) = &self.0 else { return };
        let less = |reserved: usize| Some(reserved.saturating_sub(bytes));
        let before = reserved.bytes.fetch_update(Relaxed, Relaxed, less).unwrap_or_default();
        reserved.budget.taken.fetch_sub(before.min(bytes), Relaxed);
    }

    /// Returns the number of bytes of this reservation.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |reserved| reserved.bytes.load(Relaxed))
    }

    /// Returns an empty reservation of the same budget.
    #[must_use]
    pub fn another(&self) -> Self {
        self.0.as_ref().map(|reserved| reserved.budget.reserve()).unwrap_or_default()
    }

    /// Returns these bytes, which keep a reservation of their own for as long as any part of them
    /// is held.
    ///
    /// # Errors
    /// 503 if the budget has too few bytes left.
    pub fn hold(&self, bytes: Bytes) -> Outcome<Bytes> {
        if self.0.is_none() || bytes.is_empty() {
            return Ok(bytes);
        }
        let reservation = self.another();
        reservation.grow(bytes.len())?;
        Ok(Bytes::from_owner(Held { bytes, _reservation: reservation }))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(*self.bytes.get_mut(), Relaxed);
    }
}

struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_share_a_budget_and_give_it_back() {
        let budget = MemoryBudget::new(300);
        let (first, second) = (budget.reserve(), budget.reserve());
        first.grow(200).unwrap();
        assert_eq!(second.grow(101).unwrap_err().status(), 503);
        assert_eq!(budget.taken(), 200, "what is refused takes nothing");
        second.grow(100).unwrap();
        let again = second.clone();
        drop(second);
        assert_eq!(budget.taken(), 300, "a clone holds it");
        again.shrink(40);
        assert_eq!((budget.taken(), again.bytes()), (260, 60));
        again.shrink(100);
        drop(again);
        assert_eq!(budget.taken(), 200);
        first.grow(100).unwrap();
    }

    #[test]
    fn bytes_keep_what_they_take() {
        let budget = MemoryBudget::new(10);
        let request = budget.reserve();
        let held = request.hold(Bytes::from_static(b"12345678")).unwrap();
        let part = held.slice(2..3);
        assert!(request.hold(Bytes::from_static(b"123")).is_err());
        drop((held, request));
        assert_eq!(budget.taken(), 8);
        drop(part);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn without_a_budget_nothing_is_refused() {
        let alone = Reservation::default();
        alone.grow(usize::MAX).unwrap();
        assert_eq!(alone.another().bytes(), 0);
    }
}
