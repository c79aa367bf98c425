//! The history of an endpoint's starts, from which the next start is predicted.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Memory;

/// The number of starts that are kept.
const STARTS: usize = 16;

/// The share of the starts that take no longer than the predicted time.
const QUANTILE: f64 = 0.9;

/// The time to load that is assumed before any start.
const ASSUMED_RELOAD: Duration = Duration::from_secs(1);

/// The last starts of an endpoint's workers: their memory and their times. It is serialisable, so that it can be
/// kept across restarts of the server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StartHistory {
    starts: VecDeque<Start>,
    /// The times in which workers that hibernated were woken, in seconds.
    wakes: VecDeque<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Start {
    /// The time to load, in seconds.
    seconds: f64,
    /// The most memory that the worker was seen with.
    memory: Memory,
}

impl StartHistory {
    /// Adds a start: its time to load, and its memory after that.
    pub fn add(&mut self, time: Duration, memory: Memory) {
        if self.starts.len() == STARTS {
            self.starts.pop_front();
        }
        self.starts.push_back(Start { seconds: time.as_secs_f64(), memory });
    }

    /// Adds the time in which a worker that hibernated was ready again.
    pub fn add_wake(&mut self, time: Duration) {
        if self.wakes.len() == STARTS {
            self.wakes.pop_front();
        }
        self.wakes.push_back(time.as_secs_f64());
    }

    /// Raises the memory of the last start to what a worker has now.
    pub fn grow(&mut self, memory: &Memory) {
        if let Some(last) = self.starts.back_mut() {
            last.memory = last.memory.max(memory);
        }
    }

    /// Returns the time that the last start took.
    pub fn last_time(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.starts.back()?.seconds).ok()
    }

    /// Returns the memory of the next start: the most of the last ones. `None` before the first start.
    pub fn memory(&self) -> Option<Memory> {
        let peaks = self.starts.iter().map(|start| start.memory.clone());
        peaks.reduce(|most, memory| most.max(&memory))
    }

    /// Returns the time to load of the next start: the 0.9 quantile of the last ones. Default: 1 s.
    pub fn reload(&self) -> Duration {
        quantile(self.starts.iter().map(|start| start.seconds)).unwrap_or(ASSUMED_RELOAD)
    }

    /// Returns the time of the next wake: the 0.9 quantile of the last ones. `None` before the first one.
    pub fn wake(&self) -> Option<Duration> {
        quantile(self.wakes.iter().copied())
    }
}

fn quantile(seconds: impl Iterator<Item = f64>) -> Option<Duration> {
    let mut seconds: Vec<_> = seconds.collect();
    seconds.sort_by(f64::total_cmp);
    let rank = (QUANTILE * seconds.len() as f64).ceil() as usize;
    // A file from elsewhere may hold any number.
    seconds.get(rank.saturating_sub(1)).and_then(|it| Duration::try_from_secs_f64(*it).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(seconds: impl IntoIterator<Item = u64>) -> StartHistory {
        let mut history = StartHistory::default();
        for (bytes, seconds) in (0..).zip(seconds) {
            history.add(Duration::from_secs(seconds), Memory::on_host(bytes));
        }
        history
    }

    #[test]
    fn one_slow_start_of_many_is_not_the_prediction_and_the_largest_memory_is() {
        let history = history([2, 1, 3, 1, 60, 2, 1, 3, 2, 1]);
        assert_eq!(history.reload(), Duration::from_secs(3));
        assert_eq!(history.memory(), Some(Memory::on_host(9)));
    }

    #[test]
    fn old_starts_are_forgotten() {
        assert_eq!(history([9; 4].into_iter().chain([1; STARTS])).reload(), Duration::from_secs(1));
    }

    #[test]
    fn a_worker_that_grows_raises_the_prediction() {
        let mut history = history([1, 1]);
        history.grow(&Memory::on_host(70));
        history.grow(&Memory::on_host(30));
        assert_eq!(history.memory(), Some(Memory::on_host(70)));
    }

    #[test]
    fn wakes_are_no_starts() {
        let mut history = history([9]);
        assert_eq!(history.wake(), None);
        history.add_wake(Duration::from_secs(1));
        assert_eq!(history.wake(), Some(Duration::from_secs(1)));
        assert_eq!(history.reload(), Duration::from_secs(9));
    }

    #[test]
    fn a_history_survives_as_json_and_a_broken_number_does_no_harm() {
        let before = history([1, 4]);
        let text = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<StartHistory>(&text).unwrap(), before);
        let broken = r#"{"starts": [{"seconds": -1.0, "memory": {"host": 3}}]}"#;
        let broken: StartHistory = serde_json::from_str(broken).unwrap();
        assert_eq!(broken.reload(), ASSUMED_RELOAD);
    }
}
