use std::path::PathBuf;

use serde_json::{Map, Value};

/// What a program supplies of the HTTP layer in Python, and how it is run.
#[derive(Debug, Clone, PartialEq)]
pub struct AppHost {
    /// The interpreter.
    pub python: PathBuf,
    /// What is loaded; `_apphost/_process.py` describes it.
    pub load: Value,
}

impl AppHost {
    /// Takes it from what the SDK wrote, where the program has one.
    pub(crate) fn take(raw: &mut Map<String, Value>) -> Option<Self> {
        let load = raw.remove("app_host").filter(|load| !load.is_null())?;
        let python = load["python"].as_str().unwrap_or_default().into();
        Some(Self { python, load })
    }
}
