//! The configuration of the admin API: its own port, the dashboard on the server's port, and the keys of both.

use std::path::Path;

use serde_json::{Map, Value};

use crate::ApiKeys;
use crate::read::{boolean, integer, text};

/// The host of the admin API, unless it is set.
const DEFAULT_HOST: &str = "127.0.0.1";

/// The port of the server, unless it is set.
pub(crate) const DEFAULT_PORT: u16 = 8000;

/// The options that say who may use the port and the dashboard.
const KEYS: [&str; 4] =
    ["admin_keys", "admin_keys_file", "admin_read_keys", "admin_read_keys_file"];

/// The path of the dashboard. What is below it belongs to the dashboard, too.
pub(crate) const DASHBOARD: &str = "/dashboard";

/// The ways to the admin API beside the private socket, and the keys that open them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAccess {
    /// The address of a port of its own, if it has one.
    pub port: Option<AdminAddress>,
    /// The keys that may use every operation.
    pub keys: Option<ApiKeys>,
    /// The keys that may only read.
    pub read_keys: Option<ApiKeys>,
}

/// The address of the admin API's own port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAddress {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 for a free one.
    pub port: u16,
}

impl AdminAccess {
    /// Reads the options of a checked server; `None` if there is only the private socket.
    pub(crate) fn of(options: &Map<String, Value>, directory: &Path) -> Option<Self> {
        let port = integer(options, "admin_port").map(|port| AdminAddress {
            port: port as u16,
            host: text(options, "admin_host").unwrap_or(DEFAULT_HOST).to_owned(),
        });
        (port.is_some() || has_dashboard(options)).then(|| Self {
            port,
            keys: ApiKeys::of(options, "admin_keys", directory),
            read_keys: ApiKeys::of(options, "admin_read_keys", directory),
        })
    }
}

/// Returns whether the server's own port has the dashboard.
pub(crate) fn has_dashboard(options: &Map<String, Value>) -> bool {
    boolean(options, "admin_dashboard").unwrap_or(false)
}

/// Returns a sentence for each error in the combination of these options.
pub(crate) fn contradictions(options: &Map<String, Value>) -> Vec<String> {
    let admin_port = options.get("admin_port");
    let mut found = Vec::new();
    if admin_port.is_none() && options.contains_key("admin_host") {
        found.push("`admin_host` needs `admin_port`, such as 9000".to_owned());
    }
    let mut given = KEYS.into_iter().filter(|name| options.contains_key(*name)).peekable();
    let opened = match (admin_port, has_dashboard(options)) {
        (Some(_), _) => "admin_port",
        (None, true) => "admin_dashboard",
        (None, false) => {
            found.extend(given.map(|name| {
                format!("`{name}` needs `admin_port`, such as 9000, or `admin_dashboard`")
            }));
            return found;
        }
    };
    if given.peek().is_none() {
        found.push(format!(
            "`{opened}` needs keys: give `admin_keys` or `admin_keys_file`; `litplex key` creates them"
        ));
    }
    let port = options.get("port").and_then(Value::as_u64).unwrap_or(DEFAULT_PORT.into());
    if port > 0 && admin_port.and_then(Value::as_u64) == Some(port) {
        found.push(format!(
            "`admin_port` and `port` are both {port}; give the admin API a port of its own"
        ));
    }
    found
}
