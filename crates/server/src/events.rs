//! The events of a server, which operators read.

use litplex_admin::{Event, EventKind, Feed, FeedLimits};
use litplex_supervisor::SlotState;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

/// The limits of the events that are kept.
const KEPT: FeedLimits = FeedLimits { items: 1_000, bytes: 1 << 20 };

/// The events of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Events(Feed<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(Feed::new(KEPT))
    }
}

impl Events {
    /// Records an event that happens now.
    pub(crate) fn record(&self, kind: EventKind) {
        let event = Event { timestamp: timestamp(), kind };
        let bytes = size_of::<Event>() + event.kind.text_bytes();
        self.0.push(event, bytes);
    }

    /// Records the state of the worker in a slot.
    pub(crate) fn worker(&self, endpoint: &str, slot: usize, state: &SlotState) {
        self.record(EventKind::Worker {
            endpoint: endpoint.to_owned(),
            slot,
            state: state.label().replace('_', " "),
            reason: reason(state).map(str::to_owned),
        });
    }

    pub(crate) fn feed(&self) -> &Feed<Event> {
        &self.0
    }
}

/// Returns why a worker is not ready, or why the one before it ended.
pub(crate) fn reason(state: &SlotState) -> Option<&str> {
    match state {
        SlotState::Starting { after, .. } => after.as_ref().map(|gone| &*gone.reason),
        SlotState::BackingOff { gone, .. } => Some(&gone.reason),
        SlotState::Failed(error) => Some(&error.reason),
        SlotState::Ready(_) | SlotState::Draining | SlotState::Stopped => None,
    }
}

/// Returns the current time as the log writes it.
pub(crate) fn timestamp() -> String {
    let mut text = String::new();
    // Only a full string would fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}
