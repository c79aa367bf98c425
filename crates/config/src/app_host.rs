use std::path::PathBuf;

use serde_json::{Map, Value};

/// What a program supplies of the HTTP layer in Python, and where it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum AppHost {
    /// In a process beside the workers.
    Process {
        /// The interpreter.
        python: PathBuf,
        /// What is loaded; `_apphost/_process.py` describes it.
        load: Value,
    },
    /// In the process that started the server, which a test client asks.
    Parent {
        /// The socket on which it asks for what litmux answers.
        inner: PathBuf,
    },
}

impl AppHost {
    /// Takes it from what the SDK wrote, where the program has one.
    pub(crate) fn take(raw: &mut Map<String, Value>) -> Option<Self> {
        let load = raw.remove("app_host").filter(|load| !load.is_null())?;
        let path = |name: &str| load[name].as_str().map(PathBuf::from);
        Some(match path("inner") {
            Some(inner) => Self::Parent { inner },
            None => Self::Process { python: path("python").unwrap_or_default(), load },
        })
    }
}
