//! The ids and the times in responses of the OpenAI API.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time at which the server was asked for its models first, in seconds since 1970.
pub(super) fn server_start() -> u64 {
    static SINCE: LazyLock<u64> = LazyLock::new(now);
    *SINCE
}

/// Returns the seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns an id that no other response has.
pub(super) fn unique_id(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let random = RandomState::new().build_hasher().finish();
    format!("{prefix}-{random:016x}{:08x}", COUNT.fetch_add(1, Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        assert_ne!(unique_id("chatcmpl"), unique_id("chatcmpl"));
    }
}
