//! The priority class of a request.

use std::fmt;

/// The priority class of a request. The first one is the higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// A user waits for the response.
    #[default]
    Interactive,
    /// The request may wait behind interactive ones.
    Batch,
}

impl Priority {
    /// Returns the class of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Interactive, Self::Batch].into_iter().find(|class| class.as_str() == name)
    }

    /// Returns the name of the class.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
