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
        /// The origins whose pages its middlewares let call.
        origins: Vec<String>,
        /// Whether each app in it answers what browsers ask before they send a request.
        answers_preflights: bool,
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
                let texts = |name: &str| {
                    let list = load[name].as_array().into_iter().flatten();
                    list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
                };
                let (direct, origins) = (texts("direct"), texts("origins"));
                let is_set = |name: &str, default| load[name].as_bool().unwrap_or(default);
                Self::Process {
                    python: path("python").unwrap_or_default(),
                    direct,
                    origins,
                    answers_preflights: is_set("answers_preflights", false),
                    has_routes: is_set("has_routes", true),
                    load,
                }
            }
        })
    }
}
