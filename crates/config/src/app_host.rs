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
        /// The paths that it has no part in, of endpoints and of what litplex answers itself.
        direct: Vec<String>,
        /// Whether it has routes of the program's own, which may take as long as they like.
        has_routes: bool,
    },
    /// In the process that started the server, which a test client asks.
    Parent {
        /// The socket on which it asks for what litplex answers.
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
            None => {
                let direct = load["direct"].as_array().into_iter().flatten();
                let direct = direct.filter_map(|path| path.as_str().map(str::to_owned)).collect();
                let has_routes = load["has_routes"].as_bool().unwrap_or(true);
                Self::Process {
                    python: path("python").unwrap_or_default(),
                    load,
                    direct,
                    has_routes,
                }
            }
        })
    }
}
