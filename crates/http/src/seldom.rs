//! What is said at most once a minute, however often it happens: anybody may cause it.

use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);

/// When something was last said, and how often it happened since.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// Notes that it happened. Returns how often since it was last said, if it is to be said now.
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
    fn it_is_said_once_a_minute_with_how_often_it_was() {
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
