//! What the command prints.

use std::io::{self, Write};

/// Prints a text. Where nobody reads it any more, as in `litplex ps | head -1`, nothing is wrong.
pub(crate) fn say(text: &str) {
    let mut to = io::stdout().lock();
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}
