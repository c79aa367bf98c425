//! The socket on which one worker process connects to this server.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::sockopt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Error;
use crate::link::{Connections, Handshake, greet_caller};

/// The bytes that the kernel may buffer for a worker, up to its own limit (`wmem_max`): with the
/// default a body of a megabyte needs five rounds of write and read.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// The listener of one worker: a socket that only this user can reach. It stays as long as the
/// worker, which opens a connection for calls when a hook first calls another endpoint.
pub(crate) struct WorkerListener {
    listener: UnixListener,
    directory: tempfile::TempDir,
    token: String,
}

impl WorkerListener {
    /// Listens in this directory, with a token of its own.
    pub(crate) fn bind(sockets: &Path) -> Result<Self, Error> {
        let bind = || {
            let owner_only = std::fs::Permissions::from_mode(0o700);
            let directory = tempfile::Builder::new()
                .prefix("worker-")
                .permissions(owner_only)
                .tempdir_in(sockets)?;
            let listener = UnixListener::bind(socket_in(directory.path()))?;
            // The name of the directory is random and only this user can read the directory: a
            // second random name is the token.
            let secret = tempfile::Builder::new().rand_bytes(32).tempfile_in(directory.path())?;
            let token = secret.path().file_name().unwrap_or_default().to_string_lossy().into();
            Ok(Self { listener, directory, token })
        };
        bind().map_err(Error::Listen)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }

    /// Returns the path of the file that the worker appends the stacks of its threads to.
    pub(crate) fn stacks(&self) -> PathBuf {
        self.directory.path().join("stacks")
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Resolves once the worker has opened its two connections.
    pub(crate) async fn accept(&self) -> Result<Connections<UnixStream>, Error> {
        let mut handshake = Handshake::new(self.token.clone());
        loop {
            let (stream, _) = self.listener.accept().await.map_err(Error::Accept)?;
            if let Some(connections) = handshake.greet(stream).await? {
                // The worker is only slower without it.
                let _ = sockopt::set_socket_send_buffer_size(&connections.data, SEND_BUFFER_BYTES);
                return Ok(connections);
            }
        }
    }
}

impl WorkerListener {
    /// Returns the connections that the worker opens for calls, and the task that accepts them, until the receiver
    /// or the task is dropped.
    pub(crate) fn accept_calls(self: Arc<Self>) -> (mpsc::Receiver<UnixStream>, JoinSet<()>) {
        let (dialled, connections) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            tokio::select! {
                () = self.pass_on_calls(&dialled) => {}
                () = dialled.closed() => {}
            }
        });
        (connections, accepting)
    }

    async fn pass_on_calls(&self, dialled: &mpsc::Sender<UnixStream>) {
        while let Ok((mut stream, _)) = self.listener.accept().await {
            if greet_caller(&mut stream, &self.token).await {
                let _ = sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
                let _ = dialled.send(stream).await;
            }
        }
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("worker.sock")
}
