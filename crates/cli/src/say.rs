//! What the command prints.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// The reader of standard output has gone, as in `litplex ps | head -1`: the command ends as one
/// that SIGPIPE ended, and says nothing.
#[derive(Debug)]
pub(crate) struct ReaderGone;

impl ReaderGone {
    /// What a shell says of a process that SIGPIPE ended.
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

/// Tells a reader that has gone from other reasons why standard output was not written.
pub(crate) fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => result.context("cannot write to standard output"),
    }
}
