//! The configuration of the app host, as the SDK writes it.

use std::path::PathBuf;

use serde_json::{Map, Value};

/// The app host: the process that runs the program's middlewares, `authorize` and routes.
#[derive(Debug, Clone, PartialEq)]
pub enum AppHost {
    /// A process beside the workers.
    Process {
        /// The interpreter.
        python: PathBuf,
        /// The program to load, in the form that `_apphost/_process.py` describes.
        load: Value,
        /// The paths of endpoints and built-in routes that do not pass the app host.
        direct: Vec<String>,
        /// The origins that its `CORSMiddleware` allows.
        origins: Vec<String>,
        /// Whether each of its apps answers the preflight requests of browsers.
        answers_preflights: bool,
        /// Whether it has routes of the program's own, which have no time limit.
        has_routes: bool,
    },
    /// The process that started the server, used by test clients.
    Parent {
        /// The socket on which it sends requests to litplex.
        inner: PathBuf,
        /// The file that receives the built-in routes.
        routes: PathBuf,
    },
}

impl AppHost {
    /// Takes the app host out of the SDK's configuration; `None` if the program has none.
    pub(crate) fn take(raw: &mut Map<String, Value>) -> Option<Self> {
        let load = raw.remove("app_host").filter(|load| !load.is_null())?;
        let path = |name: &str| load[name].as_str().map(PathBuf::from);
        Some(match path("inner") {
            Some(inner) => Self::Parent { inner, routes: path("routes").unwrap_or_default() },
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
