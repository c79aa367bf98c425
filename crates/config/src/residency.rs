//! Which workers stay in memory: the memory of each worker, and when it may be given to others.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::read::{boolean, bytes, seconds};

/// The words of `keep_alive`, besides a number of seconds.
pub(crate) const KEEP_ALIVE_WORDS: [&str; 2] = ["auto", "forever"];

/// The default of `keep_alive`.
const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The options of an endpoint that say which of its workers stay in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Residency {
    /// The time until idle workers stop.
    pub keep_alive: KeepAlive,
    /// Whether no worker leaves so that another endpoint gets its memory.
    pub is_pinned: bool,
    /// Whether workers that leave memory hibernate.
    pub hibernates: bool,
    /// The bytes of memory of a worker, as declared.
    pub memory: Option<u64>,
    /// The bytes of memory of its GPU, as declared.
    pub gpu_memory: Option<u64>,
}

/// The time without requests after which the workers above the minimum stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// No time: they stop when others need the memory more.
    Auto,
    /// This time. Under pressure they stop as with `Auto`.
    For(Duration),
    /// No time: they stop only when others can wait no longer for the memory.
    Forever,
}

impl KeepAlive {
    /// Returns the time, if there is one.
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::For(time) => Some(time),
            Self::Auto | Self::Forever => None,
        }
    }
}

impl std::fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::For(time) => write!(f, "{time:?}"),
            Self::Forever => f.write_str("forever"),
        }
    }
}

impl Residency {
    /// Reads the options of a checked endpoint.
    pub(crate) fn of(options: &Map<String, Value>) -> Self {
        let keep_alive = match options.get("keep_alive").and_then(Value::as_str) {
            Some("auto") => KeepAlive::Auto,
            Some(_) => KeepAlive::Forever,
            None => KeepAlive::For(seconds(options, "keep_alive").unwrap_or(DEFAULT_KEEP_ALIVE)),
        };
        Self {
            keep_alive,
            is_pinned: boolean(options, "pinned").unwrap_or(false),
            hibernates: boolean(options, "hibernate").unwrap_or(false),
            memory: options.get("memory").and_then(bytes),
            gpu_memory: options.get("gpu_memory").and_then(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_until_sleep_is_a_number_or_a_word() {
        let read = |value: Value| {
            let options = json!({ "keep_alive": value });
            Residency::of(options.as_object().unwrap()).keep_alive.to_string()
        };
        assert_eq!(read(json!(1.5)), "1.5s");
        assert_eq!(read(json!("auto")), "auto");
        assert_eq!(read(json!("forever")), "forever");
        assert_eq!(Residency::of(&Map::new()).keep_alive.time(), Some(DEFAULT_KEEP_ALIVE));
    }
}
