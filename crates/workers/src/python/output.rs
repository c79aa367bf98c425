//! What a worker prints, line by line, marked with the endpoint and the worker.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// A longer line is printed in pieces.
const LINE_BYTES: u64 = 16 * 1024;

/// How long to wait for the last lines of a process that is gone: something that it started may
/// still hold the pipe.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The threads that copy a worker's output.
#[derive(Debug)]
pub(crate) struct Output(Vec<oneshot::Receiver<()>>);

impl Output {
    /// Copies what comes out of the pipes to this process's own, each line after `mark`.
    ///
    /// Threads do it, not tasks: when nobody reads our output, this worker's printing blocks and
    /// nothing else.
    pub(crate) fn copy(
        mark: &str,
        stdout: impl Read + Send + 'static,
        stderr: impl Read + Send + 'static,
    ) -> Self {
        Self(vec![spawn_copy(mark, stdout, io::stdout), spawn_copy(mark, stderr, io::stderr)])
    }

    /// Waits until the last lines are printed.
    pub(crate) async fn finished(self) {
        for copied in self.0 {
            let _ = timeout(LAST_LINES, copied).await;
        }
    }
}

fn spawn_copy<W: Write + 'static>(
    mark: &str,
    from: impl Read + Send + 'static,
    to: fn() -> W,
) -> oneshot::Receiver<()> {
    let (done, copied) = oneshot::channel();
    let mark = mark.to_owned();
    let copy = move || {
        copy_lines(&mark, BufReader::new(from), to);
        let _ = done.send(());
    };
    if let Err(error) = thread::Builder::new().name("output".into()).spawn(copy) {
        tracing::warn!(%error, "a worker's output cannot be copied");
    }
    copied
}

fn copy_lines<W: Write>(mark: &str, mut from: impl BufRead, to: fn() -> W) {
    let mut line = format!("{mark} | ").into_bytes();
    let mark_bytes = line.len();
    while let Ok(1..) = from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // Nobody reads our output: the worker's lines are of no use either.
        let _ = to().write_all(&line);
        line.truncate(mark_bytes);
    }
}
