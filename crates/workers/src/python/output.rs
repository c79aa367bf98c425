//! What a worker prints, line by line, with the worker and the request that it was printed for.

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::LogFile;

use super::marks::{Mark, Marks};

/// A longer line is printed in pieces.
const LINE_BYTES: usize = 16 * 1024;

/// What is there already is printed in one go, up to about so much. Then there is a pause: a worker
/// that prints without end must not take the cores that others compute on. Nothing is lost, it
/// waits for its pipe.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCK_PAUSE: Duration = Duration::from_millis(8);

/// How long to wait for the last lines of a process that is gone: something that it started may
/// still hold the pipe.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Whose output it is.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    /// Its name: `/ocr#0`.
    pub(crate) worker: String,
    endpoint: Option<String>,
    /// What a mark of a request begins with, where it marks what it prints.
    pub(crate) secret: Option<String>,
    file: Option<LogFile>,
}

/// What becomes of what the workers of an endpoint print.
#[derive(Debug, Clone, Default)]
pub struct OutputSpec {
    /// Whether each line is marked with the request that it was printed for.
    pub has_marks: bool,
    /// The level of Python's `logging`, where the program sets none.
    pub log_level: Option<String>,
    /// Where it goes, where that is not this process's own output. As objects it is logged, and
    /// whoever subscribes puts it there.
    pub file: Option<LogFile>,
}

/// The target of events that are lines of a worker.
pub const OUTPUT: &str = "litplex_output";

impl Label {
    /// The label of a process that serves no endpoint.
    pub(crate) fn of(name: &str) -> Self {
        Self { worker: name.to_owned(), endpoint: None, secret: None, file: None }
    }

    pub(crate) fn of_worker(endpoint: &str, slot: usize, spec: &OutputSpec) -> Self {
        let worker = format!("{endpoint}#{slot}");
        // Its keys are random: no client can guess it.
        let secret =
            spec.has_marks.then(|| format!("{:016x}", RandomState::new().hash_one(&worker)));
        let file = spec.file.clone();
        Self { worker, endpoint: Some(endpoint.to_owned()), secret, file }
    }
}

/// The threads that copy a worker's output.
#[derive(Debug)]
pub(crate) struct Output(Vec<oneshot::Receiver<()>>);

impl Output {
    /// Copies what comes out of the pipes to this process's own, each line with its label.
    ///
    /// Threads do it, not tasks: when nobody reads our output, this worker's printing blocks and
    /// nothing else.
    pub(crate) fn copy(
        label: &Label,
        stdout: impl Read + Send + 'static,
        stderr: impl Read + Send + 'static,
    ) -> Self {
        Self(vec![
            spawn_copy(label, stdout, || Box::new(io::stdout())),
            spawn_copy(label, stderr, || Box::new(io::stderr())),
        ])
    }

    /// Waits until the last lines are printed.
    pub(crate) async fn finished(self) {
        for copied in self.0 {
            let _ = timeout(LAST_LINES, copied).await;
        }
    }
}

fn spawn_copy(
    label: &Label,
    from: impl Read + Send + 'static,
    own: fn() -> Box<dyn Write>,
) -> oneshot::Receiver<()> {
    let (done, copied) = oneshot::channel();
    let label = label.clone();
    let copy = move || {
        let (secret, worker) = (label.secret.clone(), label.worker.clone());
        let from = Lines::new(from, secret.as_deref());
        if env::var("LITPLEX_LOG_FORMAT").as_deref() == Ok("json") {
            copy_lines(from, Logged(label));
        } else {
            let to: Box<dyn Write> = match label.file {
                Some(file) => Box::new(file),
                None => own(),
            };
            copy_lines(from, Printed { worker, block: Vec::new(), to });
        }
        let _ = done.send(());
    };
    if let Err(error) = thread::Builder::new().name("output".into()).spawn(copy) {
        tracing::warn!(%error, "a worker's output cannot be copied");
    }
    copied
}

fn copy_lines<R: Read>(mut from: Lines<R>, mut to: impl Sink) {
    let (mut waiting, mut printed) = (0, 0);
    loop {
        let read = from.next_piece(|ids, line| to.put(ids, line));
        // A line that has begun to come is waited for with what is before it already printed.
        if read > 0 && from.has_line() && waiting + read < BLOCK_BYTES {
            waiting += read;
            continue;
        }
        to.flush();
        if read == 0 {
            return;
        }
        printed += waiting + read;
        waiting = 0;
        if printed >= BLOCK_BYTES {
            thread::sleep(BLOCK_PAUSE);
            printed = 0;
        }
    }
}

/// The lines that come out of a pipe.
struct Lines<R> {
    from: BufReader<R>,
    marks: Option<Marks>,
    /// What was read and not taken yet: the beginning of a mark.
    kept: Vec<u8>,
    /// Of which requests the line is that has begun.
    ids: String,
}

impl<R: Read> Lines<R> {
    fn new(from: R, secret: Option<&str>) -> Self {
        let from = BufReader::with_capacity(BLOCK_BYTES, from);
        Self { from, marks: secret.map(Marks::new), kept: Vec::new(), ids: String::new() }
    }

    fn has_line(&self) -> bool {
        self.from.buffer().contains(&b'\n')
    }

    /// Reads a line, or a piece of a long one, and puts it with the ids of its requests. Where one
    /// of a request breaks into that of another both are cut.
    ///
    /// Returns how many bytes it read; none at the end.
    fn next_piece(&mut self, mut put: impl FnMut(&str, &[u8])) -> usize {
        let mut piece = std::mem::take(&mut self.kept);
        let room = LINE_BYTES - piece.len();
        let read = self.from.by_ref().take(room as u64).read_until(b'\n', &mut piece).unwrap_or(0);
        let ends = piece.pop_if(|last| *last == b'\n').is_some();
        let Some(marks) = &self.marks else {
            if read > 0 {
                put("", &piece);
            }
            return read;
        };
        if !ends
            && read > 0
            && let Some(at) = marks.unfinished(&piece)
        {
            self.kept = piece.split_off(at);
        }
        let (mut line, mut text) = (Vec::new(), &piece[..]);
        while let Some(Mark { before, ids, after }) = marks.find(text) {
            line.extend_from_slice(before);
            if ids != self.ids && !line.is_empty() {
                put(&self.ids, &line);
                line.clear();
            }
            ids.clone_into(&mut self.ids);
            text = after;
        }
        line.extend_from_slice(text);
        if ends || !line.is_empty() {
            put(&self.ids, &line);
        }
        if ends {
            self.ids.clear();
        }
        read
    }
}

/// Where lines go.
trait Sink {
    /// Takes a line, with the ids of its requests or an empty text.
    fn put(&mut self, ids: &str, line: &[u8]);
    fn flush(&mut self) {}
}

/// For people.
struct Printed<W> {
    worker: String,
    block: Vec<u8>,
    to: W,
}

impl<W: Write> Sink for Printed<W> {
    fn put(&mut self, ids: &str, line: &[u8]) {
        let (space, open, close) = if ids.is_empty() { ("", "", "") } else { (" ", "[", "]") };
        let begin = [&self.worker, space, open, ids, close, " | "];
        begin.iter().for_each(|part| self.block.extend_from_slice(part.as_bytes()));
        self.block.extend_from_slice(line);
        self.block.push(b'\n');
    }

    fn flush(&mut self) {
        // Nobody reads our output: the worker's lines are of no use either.
        let _ = self.to.write_all(&self.block);
        self.block.clear();
    }
}

/// As an object, like all else.
struct Logged(Label);

impl Sink for Logged {
    fn put(&mut self, ids: &str, line: &[u8]) {
        let Label { worker, endpoint, .. } = &self.0;
        let request_id = (!ids.is_empty()).then_some(ids);
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches('\r');
        tracing::info!(target: OUTPUT, endpoint = endpoint.as_deref(), worker, request_id, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps lines, and what they are of.
    struct Kept<'a>(&'a mut Vec<(String, String)>);

    impl Sink for Kept<'_> {
        fn put(&mut self, ids: &str, line: &[u8]) {
            self.0.push((ids.to_owned(), String::from_utf8(line.to_owned()).unwrap()));
        }
    }

    fn lines(text: &str, secret: Option<&str>) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        copy_lines(Lines::new(text.as_bytes(), secret), Kept(&mut lines));
        lines
    }

    fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
        expected.map(|(ids, line)| (ids.to_owned(), line.to_owned())).into()
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = "x".repeat(LINE_BYTES + 1);
        let (head, rest) = long.split_at(LINE_BYTES);
        let expected = pairs([("", "one"), ("", ""), ("", head), ("", rest), ("", "last")]);
        let text = format!("one\n\n{long}\nlast");
        assert_eq!(lines(&text, None), expected);
        assert_eq!(lines(&text, Some("s")), expected);
    }

    #[test]
    fn each_line_is_of_the_request_in_its_mark() {
        let text = "\x1esa\x1fone\nnone\n\x1esa b\x1f\n\x1esa\x1fp\x1esa\x1fq\x1esb\x1fr\n\x1es";
        let expected =
            [("a", "one"), ("", "none"), ("a b", ""), ("a", "pq"), ("b", "r"), ("", "\x1es")];
        assert_eq!(lines(text, Some("s")), pairs(expected));
        assert_eq!(lines("\x1esa\x1fone", None), pairs([("", "\x1esa\x1fone")]));
    }

    #[test]
    fn a_mark_is_whole_wherever_a_long_line_is_cut() {
        let mark = "\x1esecretsome-id\x1f";
        for short in 0..=mark.len() {
            let before = "x".repeat(LINE_BYTES - short);
            let text = format!("{before}{mark}after\n");
            let expected = pairs([("", &before), ("some-id", "after")]);
            assert!(lines(&text, Some("secret")) == expected, "{short} bytes of it came first");
        }
    }

    #[test]
    fn people_see_the_worker_and_the_request() {
        let mut printed = Printed { worker: "/a#0".into(), block: Vec::new(), to: std::io::sink() };
        printed.put("", b"one");
        printed.put("7b e0", b"two");
        assert_eq!(printed.block, b"/a#0 | one\n/a#0 [7b e0] | two\n");
    }
}
