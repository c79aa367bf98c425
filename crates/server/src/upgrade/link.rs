//! The messages of a server to those that started it: lines of JSON over a Unix socket in their private directories.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The name of the socket in the directory of the first process, on which it keeps its successors.
pub(crate) const KEEPER: &str = "keeper.sock";

/// The time that the first process has to note a successor.
const NOTE_TIME: Duration = Duration::from_secs(5);

/// The byte with which the first process says that it has noted a successor.
pub(super) const NOTED: u8 = b'\n';

/// A message of a server.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The server serves; this is its version.
    Ready { version: String },
    /// The server does not start, for this reason.
    Failed { reason: String },
    /// Another process serves in its place from now on.
    Successor { pid: u32 },
}

/// Returns the line of a message.
pub(super) fn line(message: &Message) -> String {
    // Serialization cannot fail: all keys are strings.
    serde_json::to_string(message).unwrap_or_default() + "\n"
}

/// The connection of a successor to the first process. Each notices by it that the other is gone.
#[derive(Debug)]
pub(crate) struct KeeperLink {
    /// The path of the first process's socket.
    pub(crate) path: PathBuf,
    stream: UnixStream,
}

impl KeeperLink {
    pub(super) fn connect(path: PathBuf) -> io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(&path)?, path })
    }

    /// Resolves when the first process is gone.
    pub(crate) async fn gone(&self) {
        gone(&self.stream).await;
    }

    /// Tells the first process which process serves from now on, and waits until it has noted that.
    pub(crate) async fn replaced_by(&self, pid: u32) {
        let told = async {
            let mut stream = asynchronous(&self.stream)?;
            stream.write_all(line(&Message::Successor { pid }).as_bytes()).await?;
            stream.read_u8().await
        };
        if !matches!(timeout(NOTE_TIME, told).await, Ok(Ok(_))) {
            tracing::warn!("the first process does not note that process {pid} serves");
        }
    }
}

/// Resolves when the process at the other end is gone, which sends nothing.
pub(super) async fn gone(stream: &UnixStream) {
    if let Ok(mut stream) = asynchronous(stream) {
        let _ = stream.read_u8().await;
    }
}

fn asynchronous(stream: &UnixStream) -> io::Result<tokio::net::UnixStream> {
    let stream = stream.try_clone()?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}
