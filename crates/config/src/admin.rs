//! The configuration of the admin API's own port.

use std::path::Path;

use serde_json::{Map, Value};

use crate::ApiKeys;
use crate::read::{integer, text};

/// The host of the admin API, unless it is set.
const DEFAULT_HOST: &str = "127.0.0.1";

/// The port of the server, unless it is set.
pub(crate) const DEFAULT_PORT: u16 = 8000;

/// The options that say who may use the port.
const KEYS: [&str; 4] =
    ["admin_keys", "admin_keys_file", "admin_read_keys", "admin_read_keys_file"];

/// The port of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminPort {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 for a free one.
    pub port: u16,
    /// The keys that may use every operation.
    pub keys: Option<ApiKeys>,
    /// The keys that may only read.
    pub read_keys: Option<ApiKeys>,
}

impl AdminPort {
    /// Reads the options of a checked server; `None` without a port.
    pub(crate) fn of(options: &Map<String, Value>, directory: &Path) -> Option<Self> {
        Some(Self {
            port: integer(options, "admin_port")? as u16,
            host: text(options, "admin_host").unwrap_or(DEFAULT_HOST).to_owned(),
            keys: ApiKeys::of(options, "admin_keys", directory),
            read_keys: ApiKeys::of(options, "admin_read_keys", directory),
        })
    }
}

/// Returns a sentence for each error in the combination of these options.
pub(crate) fn contradictions(options: &Map<String, Value>) -> Vec<String> {
    let Some(admin_port) = options.get("admin_port") else {
        let alone = ["admin_host"].into_iter().chain(KEYS);
        let alone = alone.filter(|name| options.contains_key(*name));
        return alone.map(|name| format!("`{name}` needs `admin_port`, such as 9000")).collect();
    };
    let mut found = Vec::new();
    if !KEYS.iter().any(|name| options.contains_key(*name)) {
        found.push(
            "`admin_port` needs keys: give `admin_keys` or `admin_keys_file`; `litplex key` creates them"
                .to_owned(),
        );
    }
    let port = options.get("port").and_then(Value::as_u64).unwrap_or(DEFAULT_PORT.into());
    if port > 0 && admin_port.as_u64() == Some(port) {
        found.push(format!(
            "`admin_port` and `port` are both {port}; give the admin API a port of its own"
        ));
    }
    found
}
