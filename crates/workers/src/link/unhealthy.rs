use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many workers of an endpoint say of themselves, by their model's `health`, that they are not
/// well.
#[derive(Debug, Clone, Default)]
pub struct Unwell(Arc<AtomicUsize>);

impl Unwell {
    /// Returns their number.
    pub fn count(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Returns where one worker's word is noted.
    pub(crate) fn of_one(&self) -> Condition {
        Condition { all: self.clone(), is_unwell: false }
    }
}

/// What one worker says of itself. Once it is gone it says nothing.
#[derive(Debug)]
pub(crate) struct Condition {
    all: Unwell,
    is_unwell: bool,
}

impl Condition {
    /// Notes its last word.
    pub(crate) fn set(&mut self, is_unwell: bool) {
        match (self.is_unwell, is_unwell) {
            (false, true) => _ = self.all.0.fetch_add(1, Relaxed),
            (true, false) => _ = self.all.0.fetch_sub(1, Relaxed),
            _ => {}
        }
        self.is_unwell = is_unwell;
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_unwell_counts_once_and_until_it_is_gone() {
        let all = Unwell::default();
        let (mut one, mut other) = (all.of_one(), all.of_one());
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
