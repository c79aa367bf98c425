//! The access log: a line for each request, in a file or on a terminal.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::HeaderValue;
use http::{Method, Request};
use serde::{Serialize, Serializer};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::context::Context;
use crate::log_limit::LogLimit;

/// The capacity of the queue of lines. If the file is too slow, lines are counted and dropped: no
/// request waits for a disk.
const LINES: usize = 32 * 1024;

/// The time in which lines are collected before they are written together.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest time for the last lines when the server ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line of JSON, for programs.
    Json,
    /// A short line, for a terminal.
    Short,
}

/// The log to which a line is written for each request.
#[derive(Debug)]
pub struct AccessLog {
    lines: Arc<Lines>,
}

/// The queue of the thread that writes lines.
#[derive(Debug)]
struct Lines {
    queue: SyncSender<Entry>,
    /// Counts the lines that were dropped. The lock is taken only for those.
    full: Mutex<LogLimit>,
}

impl Lines {
    /// Queues a line, or drops it if the queue is full.
    fn send(&self, line: Line) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Entry::Line(line))
            && let Some(dropped) =
                self.full.lock().ok().and_then(|mut full| full.note(Instant::now()))
        {
            tracing::warn!(dropped, "access log cannot keep up; lines are dropped");
        }
    }
}

impl AccessLog {
    /// Writes to `file`, on a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn to(file: impl Write + Send + 'static, form: Form) -> std::io::Result<Self> {
        let (queue, inbox) = sync_channel(LINES);
        let write = move || write(&inbox, file, form);
        thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok(Self { lines: Arc::new(Lines { queue, full: Mutex::default() }) })
    }

    /// Resolves when the lines of all requests that have ended are written.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        // The queue is full if the file is not read.
        if self.lines.queue.try_send(Entry::Flush(done)).is_ok() {
            let _ = timeout(LAST_LINES, written).await;
        }
    }

    /// Begins the record of a request.
    pub(crate) fn begin<B>(
        &self,
        request: &Request<B>,
        context: &Context,
        id: Option<HeaderValue>,
    ) -> Record {
        Record {
            lines: Arc::clone(&self.lines),
            began: Instant::now(),
            context: context.clone(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            id,
            status: 0,
            bytes: 0,
            is_complete: false,
        }
    }
}

/// The facts about a request. They are written when this is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    lines: Arc<Lines>,
    began: Instant,
    /// Has the client and the holder of the request's key, also if no response was sent.
    context: Context,
    method: Method,
    path: String,
    id: Option<HeaderValue>,
    pub(crate) status: u16,
    /// The number of bytes of the body that were sent.
    pub(crate) bytes: u64,
    /// Whether the whole body was sent.
    pub(crate) is_complete: bool,
}

impl Drop for Record {
    fn drop(&mut self) {
        let line = Line {
            bytes: self.bytes,
            client: self.context.client.map(|client| client.address.ip()),
            complete: self.is_complete,
            duration: (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e6,
            holder: self.context.holder().cloned(),
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            request_id: self.id.take(),
            // The status that servers log if a client left before its response.
            status: if self.is_complete || self.bytes > 0 { self.status } else { 499 },
            time: SystemTime::now(),
        };
        self.lines.send(line);
    }
}

/// A line of the log.
#[derive(Debug, Serialize)]
struct Line {
    bytes: u64,
    client: Option<IpAddr>,
    complete: bool,
    duration: f64,
    holder: Option<Arc<str>>,
    #[serde(serialize_with = "method")]
    method: Method,
    path: String,
    #[serde(serialize_with = "header")]
    request_id: Option<HeaderValue>,
    status: u16,
    #[serde(serialize_with = "seconds")]
    time: SystemTime,
}

impl Line {
    fn write_to(&self, block: &mut Vec<u8>, form: Form) {
        match form {
            Form::Json => {
                serde_json::to_writer(&mut *block, self).expect("it is JSON. This is a bug.");
                block.push(b'\n');
            }
            Form::Short => {
                writeln!(block, "{self}").expect("memory can be written. This is a bug.");
            }
        }
    }
}

/// The short form. Text from the client is escaped: a terminal obeys control characters.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let Self { method, status, bytes, .. } = self;
        let path = self.path.escape_debug();
        let milliseconds = self.duration * 1e3;
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}Z {method} {path} {status}")?;
        write!(f, " {milliseconds:.1} ms {bytes} B")?;
        if let Some(holder) = &self.holder {
            write!(f, " {}", holder.escape_debug())?;
        }
        f.write_str(match (self.status, self.complete) {
            (499, _) => " (the client left)",
            (_, false) => " (broken off)",
            (_, true) => "",
        })
    }
}

fn method<S: Serializer>(method: &Method, to: S) -> Result<S::Ok, S::Error> {
    method.as_str().serialize(to)
}

fn header<S: Serializer>(value: &Option<HeaderValue>, to: S) -> Result<S::Ok, S::Error> {
    value.as_ref().and_then(|value| value.to_str().ok()).serialize(to)
}

fn seconds<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    ((time.as_secs_f64() * 1e3).round() / 1e3).serialize(to)
}

/// A message to the thread that writes.
#[derive(Debug)]
enum Entry {
    Line(Line),
    /// Requests a notification when all lines before it are written.
    Flush(oneshot::Sender<()>),
}

/// Writes lines until all senders are dropped.
fn write(entries: &Receiver<Entry>, mut file: impl Write, form: Form) {
    let (mut block, mut flushed, mut failed) = (Vec::new(), Vec::new(), LogLimit::default());
    while let Ok(first) = entries.recv() {
        if matches!(first, Entry::Line(_)) {
            // Waking the thread for each line would cost as much as a request.
            thread::sleep(PAUSE);
        }
        for entry in std::iter::once(first).chain(entries.try_iter()) {
            match entry {
                Entry::Line(line) => line.write_to(&mut block, form),
                Entry::Flush(done) => flushed.push(done),
            }
        }
        if let Err(error) = file.write_all(&block).and_then(|()| file.flush())
            && let Some(times) = failed.note(Instant::now())
        {
            tracing::warn!(%error, times, "cannot write the access log");
        }
        block.clear();
        for done in flushed.drain(..) {
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, pipe};

    use super::*;

    /// Returns the lines of three requests with responses and of one whose client left.
    async fn lines_of_four_requests(form: Form) -> Vec<String> {
        let (reader, writer) = pipe().unwrap();
        let log = AccessLog::to(writer, form).unwrap();
        let request = Request::post("/ocr?page=1").body(()).unwrap();
        let context = Context::new(None, None, None);
        for _ in 0..3 {
            let mut record = log.begin(&request, &context, Some(HeaderValue::from_static("one")));
            (record.status, record.bytes, record.is_complete) = (200, 17, true);
        }
        let left = log.begin(&request, &context, None);
        context.set_holder(Some("an\u{1b}n".into()));
        drop(left);
        log.flush().await;
        drop(log);
        BufReader::new(reader).lines().map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn requests_that_ended_before_a_flush_are_written_after_it() {
        let lines = lines_of_four_requests(Form::Json).await;
        let told = r#""method":"POST","path":"/ocr","request_id":"one","status":200,"time":"#;
        assert!(lines[..3].iter().all(|line| line.contains(told)), "{lines:?}");
        assert!(lines[3].contains(r#""request_id":null,"status":499"#), "{lines:?}");
        assert!(lines[3].contains(r#""holder":"an\u001bn""#), "{lines:?}");
        assert_eq!(lines.len(), 4);
    }

    /// A file that cannot be written. It requests two more flushes.
    struct Full(Vec<SyncSender<Entry>>);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn write_all(&mut self, block: &[u8]) -> std::io::Result<()> {
            if let Some(lines) = self.0.pop() {
                lines.send(Entry::Flush(oneshot::channel().0)).unwrap();
            }
            self.write(block).map(drop)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines that `act` logs.
    fn logged(act: impl FnOnce()) -> String {
        let (mut reader, writer) = pipe().unwrap();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(writer)).finish();
        tracing::subscriber::with_default(subscriber, act);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_file_that_cannot_be_written_is_logged_seldom() {
        let text = logged(|| {
            let (lines, inbox) = sync_channel(LINES);
            lines.send(Entry::Flush(oneshot::channel().0)).unwrap();
            write(&inbox, Full(vec![lines.clone(), lines]), Form::Json);
        });
        assert_eq!(text.matches("cannot write the access log").count(), 1, "{text}");
    }

    #[test]
    fn dropped_lines_are_logged_seldom() {
        let (queue, _inbox) = sync_channel(0);
        let log = AccessLog { lines: Arc::new(Lines { queue, full: Mutex::default() }) };
        let text = logged(|| {
            for _ in 0..3 {
                drop(log.begin(&Request::new(()), &Context::default(), None));
            }
        });
        assert_eq!(text.matches("lines are dropped dropped=1").count(), 1, "{text}");
    }

    #[tokio::test]
    async fn people_read_a_short_line_that_their_terminal_does_not_obey() {
        let lines = lines_of_four_requests(Form::Short).await;
        assert!(lines[0].contains("Z POST /ocr 200 0."), "{lines:?}");
        assert!(lines[0].ends_with(" ms 17 B"), "{lines:?}");
        assert!(lines[3].ends_with(r" ms 0 B an\u{1b}n (the client left)"), "{lines:?}");
    }
}
