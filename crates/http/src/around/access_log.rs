use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::HeaderValue;
use http::{Method, Request};
use serde::{Serialize, Serializer};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// Lines on their way to the file. If that is too slow for them they are counted and not written:
/// no request waits for a disk.
const LINES: usize = 32 * 1024;

/// How long lines are collected before they are written together.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the last lines may take when the server ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where a line is written for each request: an object with what it was and what became of it.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<Entry>,
}

impl AccessLog {
    /// Writes to `file`, on a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn to(file: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (lines, inbox) = sync_channel(LINES);
        thread::Builder::new().name("access-log".into()).spawn(move || write(&inbox, file))?;
        Ok(Self { lines })
    }

    /// Resolves when the lines of all requests that have ended are written.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        // A full channel is one whose file nobody reads.
        if self.lines.try_send(Entry::Flush(done)).is_ok() {
            let _ = timeout(LAST_LINES, written).await;
        }
    }

    /// Begins the record of a request.
    pub(crate) fn begin<B>(
        &self,
        request: &Request<B>,
        client: Option<SocketAddr>,
        id: Option<HeaderValue>,
    ) -> Record {
        Record {
            lines: self.lines.clone(),
            began: Instant::now(),
            client,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            id,
            holder: None,
            status: 0,
            bytes: 0,
            is_complete: false,
        }
    }
}

/// What is known of a request. It is written when this is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    lines: SyncSender<Entry>,
    began: Instant,
    client: Option<SocketAddr>,
    method: Method,
    path: String,
    id: Option<HeaderValue>,
    /// Whose key it carries.
    pub(crate) holder: Option<Arc<str>>,
    pub(crate) status: u16,
    /// What was sent of the body.
    pub(crate) bytes: u64,
    /// Whether all of it was.
    pub(crate) is_complete: bool,
}

impl Drop for Record {
    fn drop(&mut self) {
        let line = Line {
            bytes: self.bytes,
            client: self.client.map(|client| client.ip()),
            complete: self.is_complete,
            duration: (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e6,
            holder: self.holder.take(),
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            request_id: self.id.take(),
            // As servers note a client that left before it had its answer.
            status: if self.is_complete || self.bytes > 0 { self.status } else { 499 },
            time: SystemTime::now(),
        };
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Entry::Line(line)) {
            tracing::warn!("the access log is too slow; a line of it is left out");
        }
    }
}

/// What is written of a request.
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

/// What the writing thread is sent.
#[derive(Debug)]
enum Entry {
    Line(Line),
    /// Everything before it is to be written; this says when it is.
    Flush(oneshot::Sender<()>),
}

/// Writes lines until nobody can send one any more.
fn write(entries: &Receiver<Entry>, mut file: impl Write) {
    let (mut block, mut asked) = (Vec::new(), Vec::new());
    while let Ok(first) = entries.recv() {
        if matches!(first, Entry::Line(_)) {
            // To be woken for each line would cost as much as to answer the request.
            thread::sleep(PAUSE);
        }
        for entry in std::iter::once(first).chain(entries.try_iter()) {
            match entry {
                Entry::Line(line) => {
                    serde_json::to_writer(&mut block, &line).expect("it is JSON. This is a bug.");
                    block.push(b'\n');
                }
                Entry::Flush(done) => asked.push(done),
            }
        }
        if let Err(error) = file.write_all(&block).and_then(|()| file.flush()) {
            tracing::warn!(%error, "the access log cannot be written");
        }
        block.clear();
        for done in asked.drain(..) {
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, pipe};

    use super::*;

    #[tokio::test]
    async fn what_ended_before_a_flush_is_written_after_it() {
        let (reader, writer) = pipe().unwrap();
        let log = AccessLog::to(writer).unwrap();
        let request = Request::post("/ocr?page=1").body(()).unwrap();
        for _ in 0..3 {
            let mut record = log.begin(&request, None, Some(HeaderValue::from_static("one")));
            (record.status, record.bytes, record.is_complete) = (200, 17, true);
        }
        log.begin(&request, None, None);
        log.flush().await;
        drop(log);
        let lines: Vec<_> = BufReader::new(reader).lines().map(Result::unwrap).collect();
        let told = r#""method":"POST","path":"/ocr","request_id":"one","status":200,"time":"#;
        assert!(lines[..3].iter().all(|line| line.contains(told)), "{lines:?}");
        assert!(lines[3].contains(r#""request_id":null,"status":499"#), "{lines:?}");
        assert_eq!(lines.len(), 4);
    }
}
