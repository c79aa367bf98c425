use std::time::Duration;

use litmux_core::LaunchError;

/// What a slot is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// Its worker was launched and loads the model.
    Starting,
    /// Its worker takes jobs; it became ready after this time.
    Ready(Duration),
    /// Its worker never became ready.
    Failed(LaunchError),
    /// Its worker was asked to finish.
    Draining,
    /// Its worker finished because it was asked to.
    Stopped,
    /// Its worker is gone without having been asked, with the reason in words.
    Gone(String),
}

/// What an endpoint's slots amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Some worker is still starting, and none has failed.
    Starting,
    /// Every slot has a worker that takes jobs.
    Ready,
    /// Some slot is empty, with the reason of the first such.
    Degraded(String),
}

/// Reads the health of an endpoint off its slots.
pub fn health(slots: &[SlotState]) -> Health {
    let reason = slots.iter().find_map(|slot| match slot {
        SlotState::Failed(error) => Some(error.reason.clone()),
        SlotState::Gone(reason) => Some(reason.clone()),
        SlotState::Draining | SlotState::Stopped => Some("the server is stopping".into()),
        SlotState::Starting | SlotState::Ready(_) => None,
    });
    match reason {
        Some(reason) => Health::Degraded(reason),
        None if slots.contains(&SlotState::Starting) => Health::Starting,
        None => Health::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_ready_when_all_its_slots_are() {
        let ready = SlotState::Ready(Duration::ZERO);
        let gone = SlotState::Gone("killed by signal 9".into());
        assert_eq!(health(&[ready.clone(), ready.clone()]), Health::Ready);
        assert_eq!(health(&[ready.clone(), SlotState::Starting]), Health::Starting);
        assert_eq!(
            health(&[SlotState::Starting, gone, ready]),
            Health::Degraded("killed by signal 9".into())
        );
    }
}
