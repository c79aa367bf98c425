//! The CPU, memory and GPU limits of an endpoint's workers.

use serde_json::{Map, Value};

use crate::read::{boolean, bytes, integer, integers, number};

/// Options of Python workers alone: a Rust model is a thread of the server.
const PROCESS_OPTIONS: [&str; 11] = [
    "cpu_affinity",
    "cwd",
    "gpu_memory",
    "gpu_memory_fraction",
    "hibernate",
    "isolate_devices",
    "memory_limit",
    "preload",
    "pythonpath",
    "requirements",
    "threads",
];

/// The resources of each worker of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Resources {
    /// The number of CPU threads; `None`: an even share of the cores.
    pub threads: Option<usize>,
    /// The cores that the worker runs on; `None` for all.
    pub cpu_affinity: Option<Vec<usize>>,
    /// The weight of its share of a device that others want, too.
    pub device_weight: f64,
    /// The limit of resident memory in bytes, child processes included; above it the worker is
    /// killed.
    pub memory_limit: Option<u64>,
    /// The share of the memory of its GPU, if it is limited.
    pub gpu_memory_fraction: Option<f64>,
    /// Whether the worker sees only its own GPU.
    pub isolate_devices: bool,
}

impl Resources {
    /// Reads the options of a checked endpoint.
    pub(crate) fn of(options: &Map<String, Value>) -> Self {
        Self {
            threads: integer(options, "threads"),
            cpu_affinity: integers(options, "cpu_affinity"),
            device_weight: number(options, "device_weight").unwrap_or(1.0),
            memory_limit: options.get("memory_limit").and_then(bytes),
            gpu_memory_fraction: number(options, "gpu_memory_fraction"),
            isolate_devices: boolean(options, "isolate_devices").unwrap_or(false),
        }
    }
}

/// Returns an error for each option that a model in Rust cannot have.
pub(crate) fn process_only_options(options: &Map<String, Value>) -> Vec<String> {
    let given = PROCESS_OPTIONS.into_iter().filter(|name| options.contains_key(*name));
    let problem = |name| {
        format!(
            "`{name}` applies to Python models; a model in Rust is a thread of the server: leave \
             it out"
        )
    };
    given.map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Origin, resolve};

    #[test]
    fn a_rust_model_has_no_process_to_limit() {
        let endpoint = serde_json::json!({"path": "/a", "threads": 2, "timeout": 1});
        let raw = serde_json::json!({"endpoint": [endpoint]});
        let Value::Object(raw) = raw else { unreachable!() };
        let error = resolve(raw, &Origin::Builder).unwrap_err();
        assert!(
            error.0[0].starts_with("endpoint `/a`: `threads` applies to Python models"),
            "{error}"
        );
        assert_eq!(error.0.len(), 1, "{error}");
    }
}
