//! The settings of an endpoint's residency, and of the whole.

use std::time::Duration;

use crate::Memory;

/// The settings of an endpoint's residency.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResidencySettings {
    /// The memory of a worker as declared; it is used until a start was measured.
    pub declared: Option<Memory>,
    /// Whether workers leave only for an ask that can wait no longer. Default: no, a worker leaves once those that wait for
    /// its memory have paid for its reload. This is ski rental, see `price.rs`. Memory for which no ask waits
    /// costs nothing to hold.
    pub is_kept: bool,
    /// Whether no worker is ever evicted. Default: no.
    pub is_pinned: bool,
    /// Whether workers hibernate when they leave, so that what an eviction costs is the time to wake them. Default: no.
    pub hibernates: bool,
    /// The workers that are never evicted. Default: 0.
    pub min_workers: usize,
}

/// The settings of the whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Patience {
    /// The longest time that an ask waits for workers that are busy, or worth more than itself. Default: 10 s.
    pub longest_wait: Duration,
    /// The least time for which a worker stays that has served nothing; its reload time if that is longer.
    /// Default: 1 s.
    pub least_residence: Duration,
    /// Whether a required worker is refused that does not fit beside what must stay. Otherwise it starts, above the
    /// budget. Default: yes.
    pub is_strict: bool,
    /// The memory of a worker of which nothing is known. Default: 1 GB on the host.
    pub assumed: Memory,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            longest_wait: Duration::from_secs(10),
            least_residence: Duration::from_secs(1),
            is_strict: true,
            assumed: Memory::on_host(1_000_000_000),
        }
    }
}
