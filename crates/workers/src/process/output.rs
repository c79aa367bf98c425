//! The output of workers, copied line by line with the worker's name and the request's id.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::LogFile;
use crate::span::worker_name;

use super::marks::{Mark, Marks};
use super::record::Record;

/// The longest line, in bytes; longer ones are printed in pieces.
const LINE_BYTES: usize = 64 * 1024;

/// The time after which an unfinished line is shown.
const SHOWN_AFTER: Duration = Duration::from_millis(900);

/// The bytes, about, that are printed without a pause. A worker that prints without end must not take
/// the cores that others compute on. No output is lost: the worker waits for its pipe.
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCK_PAUSE: Duration = Duration::from_millis(8);

/// The time to wait for the last lines of a process that is gone: a child of it may still hold the
/// pipe.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The ids that a line shows. Those of a large batch are counted.
const SHOWN_IDS: usize = 8;

/// The source of an output.
#[derive(Debug, Clone)]
pub(crate) struct Label {
    /// The name of the worker, such as `/ocr#0`.
    pub(crate) worker: String,
    endpoint: Option<String>,
    /// The beginning of the marks of requests.
    pub(crate) secret: String,
    shows_ids: bool,
    file: Option<LogFile>,
    history: Option<Arc<dyn OutputHistory>>,
}

/// Keeps the lines that workers print, where they are not logged as JSON objects.
pub trait OutputHistory: fmt::Debug + Send + Sync {
    /// Keeps a line.
    fn keep(&self, line: &OutputLine<'_>);
}

/// A line that a worker printed.
#[derive(Debug, Clone, Copy)]
pub struct OutputLine<'a> {
    /// The endpoint, unless the process serves none.
    pub endpoint: Option<&'a str>,
    /// The name of the worker, such as `/ocr#0`.
    pub worker: &'a str,
    /// The names of all requests that it was printed for, with a space between, if they are known.
    pub request_id: Option<&'a str>,
    /// `INFO` for standard output, `WARN` for standard error.
    pub level: Level,
    /// The text, without a line break.
    pub text: &'a str,
    /// Whether it continues the line before.
    pub continues: bool,
}

/// The handling of the output of an endpoint's workers.
#[derive(Debug, Clone, Default)]
pub struct OutputSpec {
    /// Whether requests have ids, which lines show. The names of the others are for operators alone.
    pub shows_ids: bool,
    /// The level of Python's `logging`, if the program sets none.
    pub log_level: Option<String>,
    /// The file of the output; `None` for this process's own. JSON objects are logged instead, and the
    /// log's subscriber chooses the file.
    pub file: Option<LogFile>,
    /// The keeper of the lines, if there is one.
    pub history: Option<Arc<dyn OutputHistory>>,
}

/// The target of events that are lines of a worker.
pub const OUTPUT: &str = "litplex_output";

/// Returns whether each line of the log is to be a JSON object (`LITPLEX_LOG_FORMAT=json`).
pub fn logs_objects() -> bool {
    std::env::var("LITPLEX_LOG_FORMAT").as_deref() == Ok("json")
}

impl Label {
    /// The label of a process that serves no endpoint.
    pub(crate) fn for_process(name: &str, spec: &OutputSpec) -> Self {
        Self::new(name.to_owned(), None, spec)
    }

    pub(crate) fn for_worker(endpoint: &str, slot: usize, spec: &OutputSpec) -> Self {
        Self::new(worker_name(endpoint, slot), Some(endpoint.to_owned()), spec)
    }

    fn new(worker: String, endpoint: Option<String>, spec: &OutputSpec) -> Self {
        // The keys of the hash are random: no client can guess the secret.
        let secret = format!("{:016x}", RandomState::new().hash_one(&worker));
        let OutputSpec { shows_ids, file, history, .. } = spec.clone();
        Self { worker, endpoint, secret, shows_ids, file, history }
    }

    /// Returns the part of these names that the log shows.
    fn shown<'n>(&self, names: &'n str) -> Cow<'n, str> {
        if self.shows_ids { shortened(names) } else { Cow::Borrowed("") }
    }
}

/// Returns the first of these names, and the number of the others.
fn shortened(names: &str) -> Cow<'_, str> {
    match names.match_indices(' ').nth(SHOWN_IDS - 1) {
        None => Cow::Borrowed(names),
        Some((end, _)) => {
            let others = names[end..].split_whitespace().count();
            Cow::Owned(format!("{} +{others}", &names[..end]))
        }
    }
}

/// The threads that copy a worker's output.
#[derive(Debug)]
pub(crate) struct Output(Vec<oneshot::Receiver<()>>);

impl Output {
    /// Copies the pipes to this process's outputs, each line with its label.
    ///
    /// Threads copy, not tasks: if this process's output is not read, only the worker's prints block.
    pub(crate) fn copy(label: &Label, stdout: File, stderr: File) -> Self {
        Self(vec![spawn_copy(label, stdout, &STDOUT), spawn_copy(label, stderr, &STDERR)])
    }

    /// Waits until the last lines are printed.
    pub(crate) async fn finished(self) {
        for copied in self.0 {
            let _ = timeout(LAST_LINES, copied).await;
        }
    }
}

/// One of the two outputs of a process.
struct Stream {
    is_terminal: fn() -> bool,
    own: fn() -> Box<dyn Write>,
    /// The level of a line that does not name its own.
    level: Level,
}

static STDOUT: Stream = Stream {
    is_terminal: || io::stdout().is_terminal(),
    own: || Box::new(io::stdout()),
    level: Level::INFO,
};

static STDERR: Stream = Stream {
    is_terminal: || io::stderr().is_terminal(),
    own: || Box::new(io::stderr()),
    level: Level::WARN,
};

fn spawn_copy(label: &Label, from: File, stream: &'static Stream) -> oneshot::Receiver<()> {
    let (done, copied) = oneshot::channel();
    let label = label.clone();
    let copy = move || {
        let pieces = Pieces::new(Some(&label.secret));
        if logs_objects() {
            copy_pieces(from, pieces, Logged { label, level: stream.level });
        } else {
            let is_terminal = label.file.is_none() && (stream.is_terminal)();
            let to: Box<dyn Write> = match &label.file {
                Some(file) => Box::new(file.clone()),
                None => (stream.own)(),
            };
            let printed = Printed::new(label.clone(), is_terminal, to);
            copy_pieces(from, pieces, (printed, Kept { label, level: stream.level }));
        }
        let _ = done.send(());
    };
    if let Err(error) = thread::Builder::new().name("output".into()).spawn(copy) {
        tracing::warn!(%error, "cannot copy the output");
    }
    copied
}

/// A source of bytes with a limit on the wait for them.
trait Source: Read {
    /// Returns whether there is something to read, after at most this long.
    fn wait(&self, limit: Duration) -> bool;
}

impl Source for File {
    fn wait(&self, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
        // The next read shows the error.
        poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&limit)).map_or(true, |ready| ready > 0)
    }
}

fn copy_pieces(mut from: impl Source, mut pieces: Pieces, mut to: impl Sink) {
    let mut block = vec![0; BLOCK_BYTES];
    let mut printed = 0;
    loop {
        // An unfinished line is shown: a progress bar, or a prompt.
        while pieces.has_begun() && !from.wait(SHOWN_AFTER) {
            pieces.show(&mut to);
            to.flush();
        }
        let read = match from.read(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.unwrap_or(0),
        };
        pieces.feed(&block[..read], &mut to);
        if read == 0 {
            pieces.finish(&mut to);
        }
        to.flush();
        if read == 0 {
            return;
        }
        printed += read;
        if printed >= BLOCK_BYTES {
            thread::sleep(BLOCK_PAUSE);
            printed = 0;
        }
    }
}

/// Splits the bytes of a pipe into lines, and lines that are long or slow into pieces.
struct Pieces {
    marks: Option<Marks>,
    /// The bytes that were read and not written yet.
    begun: Vec<u8>,
    /// Whether a piece of the line was written already.
    is_shown: bool,
    /// Whether the next piece continues the line, instead of overwriting it.
    continues: bool,
    /// When the last piece was written, or the line began.
    since: Instant,
    /// The ids of the requests of the line that has begun.
    ids: String,
}

impl Pieces {
    fn new(secret: Option<&str>) -> Self {
        Self {
            marks: secret.map(Marks::new),
            begun: Vec::new(),
            is_shown: false,
            continues: false,
            since: Instant::now(),
            ids: String::new(),
        }
    }

    fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// Writes the lines that end in these bytes, and keeps the rest.
    fn feed(&mut self, bytes: &[u8], to: &mut impl Sink) {
        if !self.has_begun() {
            self.since = Instant::now();
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(line);
            if self.begun.pop_if(|last| *last == b'\n').is_some() {
                let line = std::mem::take(&mut self.begun);
                self.put(&line, true, to);
                self.ids.clear();
                (self.is_shown, self.continues) = (false, false);
                self.since = Instant::now();
            }
            while self.begun.len() >= LINE_BYTES {
                self.cut(LINE_BYTES, to);
            }
        }
        // A progress bar that moves all the time is shown at intervals.
        if self.has_begun() && self.since.elapsed() >= SHOWN_AFTER {
            self.show(to);
        }
    }

    /// Writes the line that has begun.
    fn show(&mut self, to: &mut impl Sink) {
        self.cut(self.begun.len(), to);
        self.since = Instant::now();
    }

    /// Writes the rest at the end of the output.
    fn finish(&mut self, to: &mut impl Sink) {
        if self.has_begun() {
            let rest = std::mem::take(&mut self.begun);
            self.put(&rest, false, to);
        }
    }

    /// Writes the beginning of a line. Characters and marks stay whole.
    fn cut(&mut self, most: usize, to: &mut impl Sink) {
        let piece = &self.begun[..most];
        let in_mark = self.marks.as_ref().and_then(|marks| marks.unfinished(piece));
        let whole = most - unfinished_character(piece);
        let at = in_mark.map_or(whole, |at| at.min(whole));
        let rest = self.begun.split_off(at);
        let piece = std::mem::replace(&mut self.begun, rest);
        self.put(&piece, false, to);
    }

    /// Writes a piece with the ids of its requests. A line of one request that interrupts the line of
    /// another splits it.
    fn put(&mut self, piece: &[u8], ends: bool, to: &mut impl Sink) {
        let (mut line, mut text) = (Vec::new(), piece);
        while let Some(Mark { before, ids, after }) =
            self.marks.as_ref().and_then(|marks| marks.find(text))
        {
            line.extend_from_slice(before);
            if ids != self.ids {
                if !line.is_empty() {
                    self.put_text(&line, to);
                    line.clear();
                }
                self.continues = false;
            }
            ids.clone_into(&mut self.ids);
            text = after;
        }
        line.extend_from_slice(text);
        if !line.is_empty() || (ends && !self.is_shown) {
            self.put_text(&line, to);
        }
    }

    fn put_text(&mut self, text: &[u8], to: &mut impl Sink) {
        // A progress bar that was shown is overwritten, not continued.
        let continues = self.continues && text.first() != Some(&b'\r');
        let shown = visible(text);
        if !shown.is_empty() || text.is_empty() {
            to.put(&self.ids, shown, continues);
        }
        self.is_shown = true;
        self.continues = text.last() != Some(&b'\r');
    }
}

/// Returns the text that a terminal would show: a carriage return begins the line anew.
fn visible(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    let begin = text[..end].iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1);
    &text[begin..end]
}

/// Returns the number of bytes at the end that begin a character of UTF-8.
fn unfinished_character(text: &[u8]) -> usize {
    for (back, byte) in text.iter().rev().take(3).enumerate() {
        let length = match byte {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if back + 1 < length { back + 1 } else { 0 };
    }
    0
}

/// The destination of lines.
trait Sink {
    /// Writes a line, with the ids of its requests or an empty text; `continues`: it continues the
    /// line before.
    fn put(&mut self, ids: &str, line: &[u8], continues: bool);
    fn flush(&mut self) {}
}

impl<A: Sink, B: Sink> Sink for (A, B) {
    fn put(&mut self, ids: &str, line: &[u8], continues: bool) {
        self.0.put(ids, line, continues);
        self.1.put(ids, line, continues);
    }

    fn flush(&mut self) {
        self.0.flush();
        self.1.flush();
    }
}

/// The destination of lines that are kept for operators.
struct Kept {
    label: Label,
    level: Level,
}

impl Sink for Kept {
    fn put(&mut self, ids: &str, line: &[u8], continues: bool) {
        let Label { worker, endpoint, history, .. } = &self.label;
        let Some(history) = history else { return };
        history.keep(&OutputLine {
            endpoint: endpoint.as_deref(),
            worker,
            request_id: (!ids.is_empty()).then_some(ids),
            level: self.level,
            text: &String::from_utf8_lossy(line),
            continues,
        });
    }
}

/// The destination of lines for people.
struct Printed<W> {
    label: Label,
    is_terminal: bool,
    /// The time at the beginning of each line of this block.
    time: String,
    block: Vec<u8>,
    to: W,
}

impl<W: Write> Printed<W> {
    fn new(label: Label, is_terminal: bool, to: W) -> Self {
        Self { label, is_terminal, time: String::new(), block: Vec::new(), to }
    }
}

/// Returns the time in the form of the server's own lines, dimmed on a terminal.
fn now(is_terminal: bool) -> String {
    let mut time = String::new();
    // Writing to a text cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    if is_terminal { format!("\x1b[2m{time}\x1b[0m ") } else { format!("{time} ") }
}

impl<W: Write> Sink for Printed<W> {
    fn put(&mut self, ids: &str, line: &[u8], continues: bool) {
        if self.time.is_empty() {
            self.time = now(self.is_terminal);
        }
        let ids = self.label.shown(ids);
        let (space, open, close) = if ids.is_empty() { ("", "", "") } else { (" ", "[", "]") };
        let bar = if continues { " + " } else { " | " };
        let begin = [&self.time, &self.label.worker, space, open, &ids, close, bar];
        begin.iter().for_each(|part| self.block.extend_from_slice(part.as_bytes()));
        if self.is_terminal {
            self.block.extend_from_slice(harmless(line).as_bytes());
        } else {
            self.block.extend_from_slice(line);
        }
        self.block.push(b'\n');
    }

    fn flush(&mut self) {
        // This process's output is not read: the lines are dropped.
        let _ = self.to.write_all(&self.block);
        self.block.clear();
        self.time.clear();
    }
}

/// Returns a text that is safe for a terminal: control characters are escaped, except tabs and colors.
fn harmless(line: &[u8]) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut has_colors = false;
    for chunk in line.utf8_chunks() {
        let mut text = chunk.valid();
        while let Some(c) = text.chars().next() {
            let color = if c == '\x1b' { color(text) } else { None };
            if let Some(color) = color {
                (has_colors, text) = (true, &text[color.len()..]);
                shown.push_str(color);
                continue;
            }
            match c {
                '\t' => shown.push(c),
                _ if c.is_control() => shown.extend(c.escape_default()),
                _ => shown.push(c),
            }
            text = &text[c.len_utf8()..];
        }
        for byte in chunk.invalid() {
            shown += &format!("\\x{byte:02x}");
        }
    }
    if has_colors {
        shown.push_str("\x1b[0m");
    }
    shown
}

/// Returns the color sequence at the beginning of a text.
fn color(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("\x1b[")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    rest[end..].starts_with('m').then(|| &text[..end + 3])
}

/// The destination of lines as JSON objects.
struct Logged {
    label: Label,
    level: Level,
}

impl Sink for Logged {
    fn put(&mut self, ids: &str, line: &[u8], continues: bool) {
        let Label { worker, endpoint, .. } = &self.label;
        let named_requests = (!ids.is_empty()).then_some(ids);
        let shown = self.label.shown(ids);
        let request_id = (!shown.is_empty()).then_some(&*shown);
        let text = String::from_utf8_lossy(line);
        let record = Record::of(&text);
        let (message, fields) = (record.message(), record.fields());
        let continued = continues.then_some(true);
        let endpoint = endpoint.as_deref();
        macro_rules! log {
            ($level:ident) => {
                tracing::event!(
                    target: OUTPUT, Level::$level,
                    endpoint, worker, named_requests, request_id, continued, fields, "{message}"
                )
            };
        }
        match record.level().unwrap_or(self.level) {
            Level::TRACE => log!(TRACE),
            Level::DEBUG => log!(DEBUG),
            Level::INFO => log!(INFO),
            Level::WARN => log!(WARN),
            Level::ERROR => log!(ERROR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A destination that keeps lines and the ids of their requests; `+` marks those that continue.
    struct KeptLines<'a>(&'a mut Vec<(String, String)>);

    impl Sink for KeptLines<'_> {
        fn put(&mut self, ids: &str, line: &[u8], continues: bool) {
            let line = String::from_utf8(line.to_owned()).unwrap();
            let plus = if continues { "+" } else { "" };
            self.0.push((ids.to_owned(), format!("{plus}{line}")));
        }
    }

    impl Source for &[u8] {
        fn wait(&self, _: Duration) -> bool {
            true
        }
    }

    fn lines(text: &str, secret: Option<&str>) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        copy_pieces(text.as_bytes(), Pieces::new(secret), KeptLines(&mut lines));
        lines
    }

    /// Returns the lines that slow pieces result in.
    fn slowly<const N: usize>(texts: [&[u8]; N]) -> Vec<String> {
        let (mut lines, mut pieces) = (Vec::new(), Pieces::new(None));
        for text in texts {
            pieces.feed(text, &mut KeptLines(&mut lines));
            if pieces.has_begun() {
                pieces.show(&mut KeptLines(&mut lines));
            }
        }
        lines.into_iter().map(|(_, line)| line).collect()
    }

    fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
        expected.map(|(ids, line)| (ids.to_owned(), line.to_owned())).into()
    }

    #[test]
    fn a_long_line_is_cut_and_its_pieces_are_known() {
        let long = format!("x{}", "é".repeat(LINE_BYTES));
        let (head, rest) = (&long[..LINE_BYTES - 1], format!("+{}", &long[LINE_BYTES - 1..]));
        let expected = pairs([("", "one"), ("", ""), ("", head), ("", &rest), ("", "last")]);
        let text = format!("one\n\n{long}\nlast");
        assert_eq!(lines(&text, None), expected);
        assert_eq!(lines(&text, Some("s")), expected);
    }

    #[test]
    fn what_comes_slowly_is_shown_as_it_comes() {
        assert_eq!(slowly([b"loading", b"...", b"\n", b"done\n"]), ["loading", "+...", "done"]);
        assert_eq!(slowly([b"\r 1%\r 2%", b"\r 3%", b"\r 4%\n"]), [" 2%", " 3%", " 4%"]);
        assert_eq!(slowly([b"1%\r", b"2%\r3%\r", b"\n"]), ["1%", "3%"]);
        assert_eq!(slowly([b"gr\xc3", b"\xb6n\n"]), ["gr", "+ön"]);
        assert_eq!(slowly([b"windows\r\n"]), ["windows"]);
    }

    #[test]
    fn a_terminal_shows_what_is_printed_and_does_nothing_else() {
        let shown = |line: &[u8]| harmless(line);
        assert_eq!(shown(b"a\tb \x1b[1;31mred"), "a\tb \x1b[1;31mred\x1b[0m");
        assert_eq!(shown(b"\x1b[2J\x07\xff"), "\\u{1b}[2J\\u{7}\\xff");
        assert_eq!(shown("gr\u{f6}\u{9b}".as_bytes()), "gr\u{f6}\\u{9b}");
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
        for short in 1..=mark.len() {
            let before = "x".repeat(LINE_BYTES - short);
            let text = format!("{before}{mark}after\n");
            let expected = pairs([("", &before), ("some-id", "after")]);
            assert!(lines(&text, Some("secret")) == expected, "{short} bytes of it came first");
        }
    }

    #[test]
    fn people_see_the_time_the_worker_and_the_request() {
        let spec = OutputSpec { shows_ids: true, ..OutputSpec::default() };
        let label = Label::for_worker("/a", 0, &spec);
        let mut printed = Printed::new(label, false, std::io::sink());
        printed.time = "2026-01-02T03:04:05.000000Z ".into();
        printed.put("", b"one", false);
        printed.put("7b e0", b"two", true);
        printed.put("1 2 3 4 5 6 7 8 9 10", b"three", false);
        let wanted = "2026-01-02T03:04:05.000000Z /a#0 | one\n\
                      2026-01-02T03:04:05.000000Z /a#0 [7b e0] + two\n\
                      2026-01-02T03:04:05.000000Z /a#0 [1 2 3 4 5 6 7 8 +2] | three\n";
        assert_eq!(String::from_utf8(std::mem::take(&mut printed.block)).unwrap(), wanted);
        // Names that only the server knows do not belong in the log.
        printed.label.shows_ids = false;
        printed.put("r7", b"four", false);
        assert!(printed.block.ends_with(b"/a#0 | four\n"));
    }
}
