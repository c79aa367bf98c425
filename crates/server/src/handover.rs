//! The pickles in which the Python SDK hands over models. Each is a file in memory, so that a large
//! model is held once, whatever the number of its workers.

use std::fs::File;
use std::os::fd::IntoRawFd;

use litplex_config::ConfigError;
use serde_json::{Map, Value};

/// Opens the pickles of all endpoints until this process ends, and replaces their names in `program`
/// by those of the open files.
///
/// # Errors
/// A pickle cannot be opened.
pub fn hold_pickles(program: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let endpoints = program.get_mut("endpoint").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten() {
        let Some(source) = endpoint.get_mut("source") else { continue };
        if source["kind"] != "pickle" {
            continue;
        }
        if let Some(path) = source["file"].as_str() {
            let held = File::open(path).map_err(|error| {
                ConfigError(vec![format!("cannot open the model that is handed over: {error}")])
            })?;
            source["file"] = format!("/proc/self/fd/{}", held.into_raw_fd()).into();
        }
    }
    Ok(())
}
