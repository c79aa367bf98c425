//! The first frames of a worker's two connections.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use litplex_core::LaunchError;
use litplex_wire::{
    Decoder, Frame, Hello, Kind, PROTOCOL, PROTOCOL_OLDEST, Refuse, Role, Welcome, negotiate,
};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// What the kernel may hold of what was sent and not read, up to its own limit (`wmem_max`): with
/// the default a body of a megabyte takes the two processes five turns.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Where one worker dials in: a socket that only this user can reach, gone once it has.
pub(crate) struct Door {
    listener: UnixListener,
    directory: tempfile::TempDir,
    token: String,
}

/// A worker's two connections.
pub(crate) struct Connections {
    pub(crate) data: UnixStream,
    pub(crate) control: UnixStream,
    pub(crate) hello: Hello,
}

impl Door {
    /// Opens a door with a secret of its own, in this directory.
    pub(crate) fn open(sockets: &Path) -> Result<Self, LaunchError> {
        let open = || {
            let owner_only = std::fs::Permissions::from_mode(0o700);
            let directory = tempfile::Builder::new()
                .prefix("worker-")
                .permissions(owner_only)
                .tempdir_in(sockets)?;
            let listener = UnixListener::bind(socket_in(directory.path()))?;
            // The name of the directory is random and the directory readable to this user
            // alone: a second random name makes the secret.
            let secret = tempfile::Builder::new().rand_bytes(32).tempfile_in(directory.path())?;
            let token = secret.path().file_name().unwrap_or_default().to_string_lossy().into();
            Ok(Self { listener, directory, token })
        };
        open().map_err(|error: std::io::Error| failed(format!("no socket for it: {error}")))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Lets the worker in. Whoever does not know the secret is refused and does not disturb.
    pub(crate) async fn admit(self) -> Result<Connections, LaunchError> {
        let (mut data, mut control) = (None, None);
        loop {
            let (mut stream, _) = self
                .listener
                .accept()
                .await
                .map_err(|error| failed(format!("its socket cannot accept: {error}")))?;
            match self.greet(&mut stream).await {
                Ok(hello) if hello.role == Role::Data => data = Some((stream, hello)),
                Ok(_) => control = Some(stream),
                Err(Refused::Stranger) => {}
                Err(Refused::Worker(reason)) => return Err(failed(reason)),
            }
            if let (Some(_), Some(_)) = (&data, &control) {
                break;
            }
        }
        match (data, control) {
            (Some((data, hello)), Some(control)) => {
                // Only slower without it.
                let _ = sockopt::set_socket_send_buffer_size(&data, SEND_BUFFER_BYTES);
                Ok(Connections { data, control, hello })
            }
            _ => Err(failed("it did not dial in")),
        }
    }

    async fn greet(&self, stream: &mut UnixStream) -> Result<Hello, Refused> {
        let frame = read_frame(stream).await.ok_or(Refused::Stranger)?;
        let hello: Hello = serde_json::from_slice(&frame.payload)
            .ok()
            .filter(|hello: &Hello| frame.kind == Kind::Hello && hello.token == self.token)
            .ok_or(Refused::Stranger)?;
        let Some(protocol) = negotiate(&hello) else {
            let reason = no_common_version(&hello);
            let refuse = Refuse { reason: reason.clone() };
            write_frame(stream, &Frame::message(Kind::Refuse, &refuse)).await;
            return Err(Refused::Worker(reason));
        };
        write_frame(stream, &Frame::message(Kind::Welcome, &Welcome { protocol })).await;
        Ok(hello)
    }
}

fn no_common_version(hello: &Hello) -> String {
    let range = |oldest: u32, newest: u32| match oldest == newest {
        true => newest.to_string(),
        false => format!("{oldest} to {newest}"),
    };
    let ours = range(PROTOCOL_OLDEST, PROTOCOL);
    let theirs = range(hello.protocol_oldest.unwrap_or(hello.protocol), hello.protocol);
    format!(
        "this litplex speaks worker protocol {ours}, the worker {theirs}; install one version of \
         litplex for both"
    )
}

enum Refused {
    Stranger,
    Worker(String),
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("worker.sock")
}

fn failed(reason: impl Into<String>) -> LaunchError {
    LaunchError { reason: reason.into(), traceback: None }
}

/// Reads one frame; `None` when the connection ends first or does not carry one.
///
/// Nothing may follow the frame before this side has answered it: no byte is kept.
pub(crate) async fn read_frame(stream: &mut UnixStream) -> Option<Frame> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    loop {
        if let Some(frame) = decoder.decode(&mut buffer).ok()? {
            return Some(frame);
        }
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// Writes one frame. A connection that broke shows when it is read next.
pub(crate) async fn write_frame(stream: &mut UnixStream, frame: &Frame) {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let _ = stream.write_all(&bytes).await;
}
