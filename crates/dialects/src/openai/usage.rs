//! The number of tokens that a request used.

use serde::Serialize;

/// The tokens that a request used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    #[serde(rename = "prompt_tokens")]
    pub(super) prompt: u64,
    #[serde(rename = "completion_tokens")]
    pub(super) completion: u64,
    #[serde(rename = "total_tokens")]
    pub(super) total: u64,
}

impl Usage {
    pub(super) fn add(&mut self, other: Self) {
        self.prompt = self.prompt.saturating_add(other.prompt);
        self.completion = self.completion.saturating_add(other.completion);
        self.total = self.total.saturating_add(other.total);
    }
}
