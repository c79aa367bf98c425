//! The presentation of a server to clients and scripts that were written for another server.
//!
//! Only the SDK sets these: an operator has no use for them, so they are not in the options table.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The presentation of a server: its pages, its first requests and its startup lines.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Presentation {
    /// Whether requests wait for the first worker of their endpoint, within their time, instead of
    /// being refused.
    pub wait_for_first_worker: bool,
    /// Whether `healthcheck_path` gives the reasons why the server is not ready.
    pub status_reasons: bool,
    /// The body of `/`. None: a list of the routes.
    pub index: Option<String>,
    /// The value of `server` in the description of the server, in place of its state. `None`: the
    /// description has the version and the endpoints, too.
    pub info_server: Option<Map<String, Value>>,
    /// Whether streamed responses are compressed.
    pub compress_streams: bool,
    /// Lines that are printed on standard error once all endpoints serve. `{url}` in them stands
    /// for the address of the server.
    pub startup_lines: Vec<String>,
}

impl Default for Presentation {
    fn default() -> Self {
        Self {
            wait_for_first_worker: false,
            status_reasons: true,
            index: None,
            info_server: None,
            compress_streams: true,
            startup_lines: Vec::new(),
        }
    }
}

impl Presentation {
    /// Takes the presentation from the program that the SDK wrote; the default where it has none.
    ///
    /// # Errors
    /// The SDK is of another version: a sentence for people.
    pub(crate) fn take(raw: &mut Map<String, Value>) -> Result<Self, String> {
        match raw.remove("presentation").filter(|value| !value.is_null()) {
            None => Ok(Self::default()),
            Some(value) => serde_json::from_value(value).map_err(|error| {
                format!("invalid `presentation`: {error}; install the SDK of this version")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(value: Value) -> Result<Presentation, String> {
        let mut raw = Map::from_iter([("presentation".to_owned(), value)]);
        let taken = Presentation::take(&mut raw);
        assert!(raw.is_empty());
        taken
    }

    #[test]
    fn the_sdk_may_set_some_of_it_or_nothing() {
        assert_eq!(take(Value::Null), Ok(Presentation::default()));
        let lines = Presentation { startup_lines: vec!["at {url}".into()], ..Default::default() };
        assert_eq!(take(json!({"startup_lines": ["at {url}"]})), Ok(lines));
        let quiet = Presentation { status_reasons: false, ..Default::default() };
        assert_eq!(take(json!({"status_reasons": false})), Ok(quiet));
    }

    #[test]
    fn what_another_version_sets_is_refused() {
        let error = take(json!({"banner": "hello"})).unwrap_err();
        assert!(error.starts_with("invalid `presentation`: unknown field `banner`"), "{error}");
    }
}
