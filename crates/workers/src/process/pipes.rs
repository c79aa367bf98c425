//! The standard streams of a process that is not started by `std::process`.

use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::fd::OwnedFd;

/// This program's ends of the standard streams of another process.
#[derive(Debug)]
pub(crate) struct StandardStreams {
    pub(crate) stdin: PipeWriter,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

impl StandardStreams {
    /// Creates the pipes; returns the ends of the other process in the order of their numbers, too.
    pub(crate) fn new() -> io::Result<(Self, [OwnedFd; 3])> {
        let ((their_stdin, stdin), (stdout, their_stdout), (stderr, their_stderr)) =
            (pipe()?, pipe()?, pipe()?);
        let theirs = [their_stdin.into(), their_stdout.into(), their_stderr.into()];
        Ok((Self { stdin, stdout, stderr }, theirs))
    }
}
