//! Lines that are JSON objects: records of a logger that writes for programs.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tracing::Level;

/// Names under which loggers give the level and the message, the most usual first.
const LEVELS: [&str; 3] = ["level", "severity", "levelname"];
const MESSAGES: [&str; 3] = ["message", "msg", "event"];

/// A line of a worker, parsed if it is an object.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    line: &'a str,
    /// The values as they were written, with all digits.
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Record<'a> {
    pub(crate) fn of(line: &'a str) -> Self {
        let is_object = line.trim_start().starts_with('{');
        let fields = is_object.then(|| serde_json::from_str(line).ok()).flatten();
        Self { line, fields: fields.unwrap_or_default() }
    }

    /// Returns the level, if the record names one.
    pub(crate) fn level(&self) -> Option<Level> {
        LEVELS.iter().find_map(|name| level(&self.text(name)?))
    }

    /// Returns the message, or the whole line if the record has none.
    pub(crate) fn message(&self) -> Cow<'a, str> {
        let found = MESSAGES.iter().find_map(|name| self.text(name));
        found.map_or(Cow::Borrowed(self.line), Cow::Owned)
    }

    /// Returns the fields as an object, if the record has any.
    pub(crate) fn fields(&self) -> Option<String> {
        let fields = (!self.fields.is_empty()).then_some(&self.fields)?;
        serde_json::to_string(fields).ok()
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.fields.get(name)?.get()).ok()
    }
}

/// Returns the level with this name in Python's logging, in the cloud's or in syslog.
fn level(name: &str) -> Option<Level> {
    Some(match name.to_ascii_lowercase().as_str() {
        "trace" => Level::TRACE,
        "debug" => Level::DEBUG,
        "info" | "notice" | "default" | "success" => Level::INFO,
        "warn" | "warning" => Level::WARN,
        "error" | "err" | "critical" | "fatal" | "alert" | "emergency" => Level::ERROR,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_taken_apart() {
        let line = r#"{"severity":"WARNING","message":"two\nlines","n":12345678901234567890123}"#;
        let record = Record::of(line);
        assert_eq!((record.level(), &*record.message()), (Some(Level::WARN), "two\nlines"));
        let fields = r#"{"message":"two\nlines","n":12345678901234567890123,"severity":"WARNING"}"#;
        assert_eq!(record.fields().as_deref(), Some(fields));
    }

    #[test]
    fn what_is_no_record_is_a_message() {
        for line in ["", "text", "{", "[1]", "1", r#""text""#, "{}", r#"{"level":7,"message":[]}"#]
        {
            let record = Record::of(line);
            assert_eq!((record.level(), &*record.message()), (None, line));
        }
        assert_eq!(Record::of(r#"{"level":"loud","msg":"m"}"#).message(), "m");
    }
}
