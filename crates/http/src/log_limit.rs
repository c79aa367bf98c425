//! Log messages that any client may cause, limited to one a minute.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);

/// The time of the last message, and the number of events since.
#[derive(Debug, Default)]
pub struct LogLimit {
    last: Option<Instant>,
    events: u64,
}

impl LogLimit {
    /// Counts an event. Returns the number of events since the last message, if it is time for
    /// another.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        self.events += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_once_a_minute_with_the_number_of_events() {
        let (mut limit, start) = (LogLimit::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limit.note(at(0)), Some(1));
        assert_eq!(limit.note(at(1)), None);
        assert_eq!(limit.note(at(59)), None);
        assert_eq!(limit.note(at(60)), Some(3));
        assert_eq!(limit.note(at(61)), None);
        assert_eq!(limit.note(at(600)), Some(2));
    }
}
