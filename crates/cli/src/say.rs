//! Output of the command on standard output.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;
use serde::Serialize;

/// The error that the reader of standard output has closed it, as in `litplex ps | head -1`: the
/// command ends silently, with the status of a process that SIGPIPE killed.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl ReaderGone {
    /// The exit status of a process that SIGPIPE killed.
    pub(crate) const STATUS: u8 = 128 + 13;
}

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of standard output has gone")
    }
}

impl Error for ReaderGone {}

/// Prints a text on standard output.
///
/// # Errors
/// [`ReaderGone`], or why the text cannot be written.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    let mut to = io::stdout().lock();
    written(to.write_all(text.as_bytes()).and_then(|()| to.flush()))
}

/// Prints a value as a line of JSON.
///
/// # Errors
/// As [`say`].
pub(crate) fn say_json(value: &impl Serialize) -> anyhow::Result<()> {
    say(&format!("{}\n", serde_json::to_string(value)?))
}

/// Returns a text whose control characters are escaped, except line breaks and tabs: models and clients
/// choose parts of what is shown, and must not send commands to the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Maps a broken pipe to [`ReaderGone`], and adds the context to other errors of standard output.
pub(crate) fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => result.context("cannot write to standard output"),
    }
}
