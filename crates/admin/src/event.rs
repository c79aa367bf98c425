//! The events of a server, for operators.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::status::{ComparedAnswers, GenerationState, Mode, PlannedChange, UpgradeState};

/// An event of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The time, in RFC 3339.
    pub timestamp: String,
    /// The kind of the event.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kind of an event, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// All endpoints serve, for the first time.
    Ready {},
    /// The server takes no new request, and will end.
    Stopping {},
    /// The state of a worker changed.
    Worker {
        /// The path of the endpoint, or its name where endpoints share the path; `app` for the app host.
        endpoint: String,
        /// The number of the worker's slot.
        slot: usize,
        /// The state of the slot, in a word: `starting`, `ready`, …
        state: String,
        /// The reason why the worker is not ready, or why the one before it ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The number of workers was set by hand.
    Scaled {
        /// The path of the endpoint, or its name where endpoints share the path.
        endpoint: String,
        /// The number of wanted workers before.
        before: usize,
        /// The number of wanted workers from now on.
        wanted: usize,
    },
    /// An endpoint was paused, drained or resumed.
    Mode {
        /// The path of the endpoint, or its name where endpoints share the path.
        endpoint: String,
        /// The mode from now on.
        mode: Mode,
    },
    /// The state of a generation changed.
    Generation {
        /// The path of the endpoint, or its name where endpoints share the path.
        endpoint: String,
        /// The number of the generation; the first is 1.
        generation: u64,
        /// The state of the generation.
        state: GenerationState,
        /// The reason why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The comparison of its answers with those of the live generation, if it was a shadow.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answers: Option<ComparedAnswers>,
    },
    /// The code of hooks was changed in the running workers, because source files were saved.
    Patched {
        /// The path of the endpoint, or its name where endpoints share the path.
        endpoint: String,
        /// The number of the generation, which goes on.
        generation: u64,
        /// The names of the files.
        files: String,
    },
    /// Source files were saved that cannot be loaded; the code before goes on.
    PatchFailed {
        /// The path of the endpoint, or its name where endpoints share the path.
        endpoint: String,
        /// The reason.
        reason: String,
    },
    /// The state of an upgrade of the server changed.
    Upgrade {
        /// The state.
        state: UpgradeState,
        /// The process id of the new server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        /// The reason why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An endpoint changed in a reload of the whole program.
    Reload {
        /// The path of the endpoint, or its name where endpoints share the path.
        endpoint: String,
        /// The change.
        change: PlannedChange,
        /// The reason why the endpoint stays as it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The level of the log was set.
    LogLevel {
        /// The level, in the syntax of `LITPLEX_LOG`.
        level: String,
    },
}

impl EventKind {
    /// Returns the length of its texts in bytes.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Ready {} | Self::Stopping {} => 0,
            Self::Worker { endpoint, state, reason, .. } => {
                endpoint.len() + state.len() + reason.as_ref().map_or(0, String::len)
            }
            Self::Scaled { endpoint, .. } | Self::Mode { endpoint, .. } => endpoint.len(),
            Self::Generation { endpoint, reason, .. } => {
                endpoint.len() + reason.as_ref().map_or(0, String::len)
            }
            Self::Patched { endpoint, files, .. } => endpoint.len() + files.len(),
            Self::PatchFailed { endpoint, reason } => endpoint.len() + reason.len(),
            Self::Upgrade { reason, .. } => reason.as_ref().map_or(0, String::len),
            Self::Reload { endpoint, error, .. } => {
                endpoint.len() + error.as_ref().map_or(0, String::len)
            }
            Self::LogLevel { level } => level.len(),
        }
    }

    /// Returns the word for the kind, which is the type of the event in an event stream.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ready {} => "ready",
            Self::Stopping {} => "stopping",
            Self::Worker { .. } => "worker",
            Self::Scaled { .. } => "scaled",
            Self::Mode { .. } => "mode",
            Self::Generation { .. } => "generation",
            Self::Patched { .. } => "patched",
            Self::PatchFailed { .. } => "patch_failed",
            Self::Upgrade { .. } => "upgrade",
            Self::Reload { .. } => "reload",
            Self::LogLevel { .. } => "log_level",
        }
    }
}
