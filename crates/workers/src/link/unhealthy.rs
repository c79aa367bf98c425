//! The number of an endpoint's workers whose model reports that it is unhealthy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The number of an endpoint's workers whose `health` hook reports that they are unhealthy.
#[derive(Debug, Clone, Default)]
pub struct UnhealthyCount(Arc<AtomicUsize>);

impl UnhealthyCount {
    /// Returns the number.
    pub fn count(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Returns the guard of one worker.
    pub(crate) fn guard(&self) -> HealthGuard {
        HealthGuard { all: self.clone(), is_unhealthy: false }
    }
}

/// The health of one worker. On drop the worker no longer counts.
#[derive(Debug)]
pub(crate) struct HealthGuard {
    all: UnhealthyCount,
    is_unhealthy: bool,
}

impl HealthGuard {
    /// Sets whether the worker is unhealthy.
    pub(crate) fn set(&mut self, is_unhealthy: bool) {
        match (self.is_unhealthy, is_unhealthy) {
            (false, true) => _ = self.all.0.fetch_add(1, Relaxed),
            (true, false) => _ = self.all.0.fetch_sub(1, Relaxed),
            _ => {}
        }
        self.is_unhealthy = is_unhealthy;
    }
}

impl Drop for HealthGuard {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_unhealthy_counts_once_and_until_it_is_gone() {
        let all = UnhealthyCount::default();
        let (mut one, mut other) = (all.guard(), all.guard());
        for _ in 0..2 {
            one.set(true);
        }
        other.set(true);
        assert_eq!(all.count(), 2);
        other.set(false);
        assert_eq!(all.count(), 1);
        drop(one);
        assert_eq!(all.count(), 0);
    }
}
