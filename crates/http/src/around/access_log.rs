use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::HeaderValue;
use http::{Method, Request};
use serde_json::json;
use tokio::time::Instant;

/// Lines on their way to the file. If that is too slow for them they are counted and not written:
/// no request waits for a disk.
const LINES: usize = 16 * 1024;

/// Where a line is written for each request: an object with what it was and what became of it.
#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<String>,
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
    lines: SyncSender<String>,
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = json!({
            "time": (now.as_secs_f64() * 1e3).round() / 1e3,
            "client": self.client.map(|client| client.ip()),
            "holder": self.holder.as_deref(),
            "method": self.method.as_str(),
            "path": self.path,
            // As servers note a client that left before it had its answer.
            "status": if self.is_complete || self.bytes > 0 { self.status } else { 499 },
            "bytes": self.bytes,
            "complete": self.is_complete,
            "duration": (self.began.elapsed().as_secs_f64() * 1e6).round() / 1e6,
            "request_id": self.id.as_ref().and_then(|id| id.to_str().ok()),
        });
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line.to_string()) {
            tracing::warn!("the access log is too slow; a line of it is left out");
        }
    }
}

/// Writes lines until nobody can send one any more; those that are there go out together.
fn write(lines: &Receiver<String>, mut file: impl Write) {
    let mut block = String::new();
    while let Ok(line) = lines.recv() {
        for line in std::iter::once(line).chain(lines.try_iter()) {
            block.push_str(&line);
            block.push('\n');
        }
        if let Err(error) = file.write_all(block.as_bytes()).and_then(|()| file.flush()) {
            tracing::warn!(%error, "the access log cannot be written");
        }
        block.clear();
    }
}
