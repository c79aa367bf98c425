//! Log messages that any client may cause, limited to one a minute.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);

/// The time of the last message, and the number of events since.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// Counts an event. Returns the number of events since the last message, if it is time for
    /// another.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        if self.said.is_some_and(|said| now.duration_since(said) < PAUSE) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_once_a_minute_with_the_number_of_events() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(seldom.note(at(0)), Some(1));
        assert_eq!(seldom.note(at(1)), None);
        assert_eq!(seldom.note(at(59)), None);
        assert_eq!(seldom.note(at(60)), Some(3));
        assert_eq!(seldom.note(at(61)), None);
        assert_eq!(seldom.note(at(600)), Some(2));
    }
}
