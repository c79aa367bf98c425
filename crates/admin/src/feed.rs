//! Feeds: the last items of something that goes on, and the next ones as they come.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The last items of something that goes on, bounded by their number and their size. Cheap to clone.
#[derive(Debug)]
pub struct Feed<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    kept: Mutex<Kept<T>>,
    /// The id of the next item. Readers wait for its changes.
    next: watch::Sender<u64>,
    limits: FeedLimits,
}

/// The limits of a feed; the oldest items are dropped.
#[derive(Debug, Clone, Copy)]
pub struct FeedLimits {
    /// The most items.
    pub items: usize,
    /// The most bytes of all items together.
    pub bytes: usize,
}

#[derive(Debug)]
struct Kept<T> {
    /// The id of the first item in the queue.
    first: u64,
    items: VecDeque<Item<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct Item<T> {
    value: Arc<T>,
    bytes: usize,
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Feed<T> {
    /// Returns a feed without items.
    pub fn new(limits: FeedLimits) -> Self {
        let kept = Mutex::new(Kept { first: 0, items: VecDeque::new(), bytes: 0 });
        Self(Arc::new(Inner { kept, next: watch::Sender::new(0), limits }))
    }

    /// Adds an item of this size in bytes.
    pub fn push(&self, value: T, bytes: usize) {
        let mut kept = self.kept();
        kept.items.push_back(Item { value: Arc::new(value), bytes });
        kept.bytes += bytes;
        kept.drop_oldest(self.0.limits);
        let next = kept.first + kept.items.len() as u64;
        drop(kept);
        // Another thread may have announced a later item.
        self.0.next.send_if_modified(|known| {
            let is_later = next > *known;
            *known = next.max(*known);
            is_later
        });
    }

    /// Returns a reader that begins with the last `count` items.
    pub fn last(&self, count: usize) -> FeedReader<T> {
        let kept = self.kept();
        let skipped = kept.items.len().saturating_sub(count) as u64;
        let next = kept.first + skipped;
        FeedReader { feed: self.clone(), news: self.0.next.subscribe(), next }
    }

    /// Returns a reader that begins after the item with this id.
    pub fn after(&self, id: u64) -> FeedReader<T> {
        FeedReader { feed: self.clone(), news: self.0.next.subscribe(), next: id.saturating_add(1) }
    }

    /// Returns the items that are kept, the newest first.
    pub fn newest_first(&self) -> Vec<Arc<T>> {
        self.kept().items.iter().rev().map(|item| item.value.clone()).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept<T>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Kept<T> {
    fn drop_oldest(&mut self, limits: FeedLimits) {
        while self.items.len() > limits.items || self.bytes > limits.bytes {
            let Some(oldest) = self.items.pop_front() else { break };
            self.bytes -= oldest.bytes;
            self.first += 1;
        }
    }
}

/// A reader of a feed. One that is slower than the feed misses the items that were dropped meanwhile.
pub struct FeedReader<T> {
    feed: Feed<T>,
    news: watch::Receiver<u64>,
    next: u64,
}

impl<T> fmt::Debug for FeedReader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedReader").field("next", &self.next).finish_non_exhaustive()
    }
}

impl<T> FeedReader<T> {
    /// Returns the next item that is there already, and its id.
    pub fn next_kept(&mut self) -> Option<(u64, Arc<T>)> {
        let kept = self.feed.kept();
        let end = kept.first + kept.items.len() as u64;
        // An id from before a restart of the server may be after the last one.
        let id = if self.next > end { kept.first } else { self.next.max(kept.first) };
        let item = kept.items.get(usize::try_from(id - kept.first).ok()?)?.value.clone();
        self.next = id + 1;
        Some((id, item))
    }

    /// Returns the next item and its id, after the wait for it.
    pub async fn next(&mut self) -> (u64, Arc<T>) {
        loop {
            // Marked as seen before the look: an item that comes after it wakes the wait.
            self.news.borrow_and_update();
            if let Some(next) = self.next_kept() {
                return next;
            }
            // The sender lives as long as the feed, which this reader holds.
            let _ = self.news.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FeedLimits = FeedLimits { items: 3, bytes: 100 };

    fn kept(mut reader: FeedReader<u32>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| reader.next_kept()).map(|(id, item)| (id, *item)).collect()
    }

    #[test]
    fn the_oldest_items_are_dropped_above_either_limit() {
        let feed = Feed::new(LIMITS);
        (0..5).for_each(|item| feed.push(item, 10));
        assert_eq!(kept(feed.last(9)), [(2, 2), (3, 3), (4, 4)]);
        assert_eq!(kept(feed.last(1)), [(4, 4)]);
        feed.push(5, 85);
        assert_eq!(kept(feed.last(9)), [(4, 4), (5, 5)]);
        feed.push(6, 101);
        assert_eq!(kept(feed.last(9)), []);
    }

    #[test]
    fn a_reader_goes_on_after_an_id() {
        let feed = Feed::new(LIMITS);
        (0..5).for_each(|item| feed.push(item, 1));
        assert_eq!(kept(feed.after(3)), [(4, 4)]);
        assert_eq!(kept(feed.after(0)), [(2, 2), (3, 3), (4, 4)], "what was dropped is missed");
        assert_eq!(kept(feed.after(4)), []);
        assert_eq!(kept(feed.after(77)), [(2, 2), (3, 3), (4, 4)], "an id of another run");
    }

    #[tokio::test]
    async fn a_reader_waits_for_the_next_item() {
        let feed = Feed::new(LIMITS);
        let mut reader = feed.last(0);
        let waiting = tokio::spawn(async move { [reader.next().await.0, reader.next().await.0] });
        tokio::task::yield_now().await;
        feed.push(7, 1);
        tokio::task::yield_now().await;
        feed.push(8, 1);
        assert_eq!(waiting.await.unwrap(), [0, 1]);
    }
}
