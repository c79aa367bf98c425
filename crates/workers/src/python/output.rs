//! What a worker prints, line by line, marked with the endpoint and the worker.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// A longer line is printed in pieces.
const LINE_BYTES: u64 = 16 * 1024;

/// What is there already is printed in one go, up to about so much. Then there is a pause: a worker
/// that prints without end must not take the cores that others compute on. Nothing is lost, it
/// waits for its pipe.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCK_PAUSE: Duration = Duration::from_millis(8);

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
        let from = BufReader::with_capacity(BLOCK_BYTES, from);
        if env::var("LITMUX_LOG_FORMAT").as_deref() == Ok("json") {
            log_lines(&mark, from);
        } else {
            copy_lines(&mark, from, to);
        }
        let _ = done.send(());
    };
    if let Err(error) = thread::Builder::new().name("output".into()).spawn(copy) {
        tracing::warn!(%error, "a worker's output cannot be copied");
    }
    copied
}

fn copy_lines<W: Write, R: Read>(mark: &str, mut from: BufReader<R>, to: fn() -> W) {
    let mark = format!("{mark} | ").into_bytes();
    let mut block = Vec::new();
    let mut printed = 0;
    loop {
        block.extend_from_slice(&mark);
        let Ok(1..) = from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut block) else { return };
        if block.last() != Some(&b'\n') {
            block.push(b'\n');
        }
        // A line that has begun to come is waited for with what is before it already printed.
        if from.buffer().contains(&b'\n') && block.len() < BLOCK_BYTES {
            continue;
        }
        // Nobody reads our output: the worker's lines are of no use either.
        let _ = to().write_all(&block);
        printed += block.len();
        block.clear();
        pause(&mut printed);
    }
}

/// Logs what is printed, so that it is an object like all else.
fn log_lines<R: Read>(mark: &str, mut from: BufReader<R>) {
    let (mut line, mut printed) = (Vec::new(), 0);
    while let Ok(1..) = from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        tracing::info!(worker = mark, "{}", text.trim_end_matches(['\r', '\n']));
        printed += line.len();
        line.clear();
        pause(&mut printed);
    }
}

fn pause(printed: &mut usize) {
    if *printed >= BLOCK_BYTES {
        thread::sleep(BLOCK_PAUSE);
        *printed = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static PRINTED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    struct Printed;

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            PRINTED.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_is_marked_and_a_long_one_is_cut() {
        let long = "x".repeat(LINE_BYTES as usize + 1);
        let text = format!("one\n\n{long}\nlast");
        copy_lines("/a#0", BufReader::new(text.as_bytes()), || Printed);
        let printed = String::from_utf8(PRINTED.lock().unwrap().clone()).unwrap();
        let (head, rest) = long.split_at(LINE_BYTES as usize);
        let lines = ["one", "", head, rest, "last"].map(|line| format!("/a#0 | {line}\n"));
        assert_eq!(printed, lines.concat());
    }
}
