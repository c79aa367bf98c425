//! The configuration of the number of workers.

use serde_json::{Map, Value};

use crate::read::integer;

/// The number of workers of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// A fixed number on each device.
    PerDevice(usize),
    /// A number that follows the load.
    Between {
        /// The minimum, which may be 0.
        min: usize,
        /// The maximum over all devices.
        max: usize,
    },
}

impl Workers {
    /// Reads the options of a checked endpoint.
    pub(crate) fn of(options: &Map<String, Value>) -> Self {
        match (integer(options, "min_workers"), integer(options, "max_workers")) {
            (Some(min), Some(max)) => Self::Between { min, max },
            _ => Self::PerDevice(integer(options, "workers_per_device").unwrap_or(1)),
        }
    }

    /// Returns whether workers are added while the endpoint serves.
    pub fn may_grow(self) -> bool {
        matches!(self, Self::Between { min, max } if min < max)
    }
}

/// Returns an error for each contradiction between the options of the number of workers.
pub(crate) fn contradictions(options: &Map<String, Value>) -> Vec<String> {
    let has = |name: &str| options.contains_key(name);
    let mut found = Vec::new();
    for (given, missing) in [("min_workers", "max_workers"), ("max_workers", "min_workers")] {
        if has(given) && !has(missing) {
            found.push(format!(
                "`{given}` needs `{missing}`; give both, or `workers_per_device` for a fixed number"
            ));
        }
    }
    if let (Some(min), Some(max)) =
        (integer(options, "min_workers"), integer(options, "max_workers"))
        && min > max
    {
        found
            .push(format!("`min_workers` must be at most `max_workers`, and {min} is above {max}"));
    }
    if has("workers_per_device") && (has("min_workers") || has("max_workers")) {
        found.push(
            "`workers_per_device` is a fixed number of workers, `min_workers` and `max_workers` \
             let it move; leave out one or the other"
                .into(),
        );
    }
    found
}
