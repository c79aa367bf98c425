//! The last lines of the log, kept in memory as JSON objects, each with a line break.

use std::io;

use litplex_admin::Feed;
use litplex_workers::{OutputHistory, OutputLine};
use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;

use crate::events::timestamp;

/// The writer of the lines that are kept.
#[derive(Debug)]
pub(crate) struct LogHistory(pub(crate) Feed<String>);

impl LogHistory {
    fn push(&self, line: String) {
        let bytes = line.len();
        self.0.push(line, bytes);
    }
}

impl<'a> MakeWriter<'a> for LogHistory {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl io::Write for &LogHistory {
    /// Takes a line, which the subscriber writes at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line that a worker printed, with the names of a line that is logged as an object.
#[derive(Serialize)]
struct Printed<'a> {
    timestamp: String,
    level: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    worker: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continued: Option<bool>,
}

impl OutputHistory for LogHistory {
    fn keep(&self, line: &OutputLine<'_>) {
        let printed = Printed {
            timestamp: timestamp(),
            level: line.level.as_str(),
            message: line.text,
            endpoint: line.endpoint,
            worker: line.worker,
            request_id: line.request_id,
            continued: line.continues.then_some(true),
        };
        // Serialization cannot fail: all keys are strings.
        self.push(serde_json::to_string(&printed).unwrap_or_default() + "\n");
    }
}
