//! Reading values out of raw options.

use std::time::Duration;

use serde_json::{Map, Value};

pub(crate) fn text<'a>(options: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    options.get(name).and_then(Value::as_str)
}

pub(crate) fn texts<'a>(
    options: &'a Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a str> {
    options.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

pub(crate) fn integer(options: &Map<String, Value>, name: &str) -> Option<usize> {
    options.get(name).and_then(Value::as_u64).map(|number| number as usize)
}

pub(crate) fn integers(options: &Map<String, Value>, name: &str) -> Option<Vec<usize>> {
    let list = options.get(name)?.as_array()?;
    Some(list.iter().filter_map(Value::as_u64).map(|number| number as usize).collect())
}

pub(crate) fn number(options: &Map<String, Value>, name: &str) -> Option<f64> {
    options.get(name).and_then(Value::as_f64)
}

pub(crate) fn boolean(options: &Map<String, Value>, name: &str) -> Option<bool> {
    options.get(name).and_then(Value::as_bool)
}

pub(crate) fn seconds(options: &Map<String, Value>, name: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(number(options, name)?).ok()
}
