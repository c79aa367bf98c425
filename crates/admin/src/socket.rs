//! The admin socket of a running server.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use litplex_core::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::message::{MAX_REQUEST_BYTES, Request, Response, line};
use crate::{RunDir, Scaled, Status};

/// The name of the socket in a run directory.
pub(crate) const NAME: &str = "admin.sock";

/// The time that a client may take to write its request, and to read the response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The number of clients that are served at the same time; further ones wait.
const MAX_CLIENTS: usize = 32;

/// The most workers of an endpoint.
const MAX_WORKERS: usize = 1024;

/// The operations of a server that its admin socket offers.
pub trait Admin: Send + Sync {
    /// Returns the status of the server.
    fn ps(&self) -> BoxFuture<'_, Status>;

    /// Sets the number of workers of an endpoint that [`ps`](Self::ps) lists. Returns when the
    /// number is set, not when the workers run.
    ///
    /// The error is a sentence for operators.
    fn scale(&self, endpoint: String, workers: usize) -> BoxFuture<'_, Result<Scaled, String>>;
}

/// The admin socket of a running server; only its user can connect to it.
#[derive(Debug)]
pub struct AdminSocket(UnixListener);

impl AdminSocket {
    /// Creates the socket in the run directory of a server.
    ///
    /// # Errors
    /// The error of the system.
    pub fn bind(directory: &RunDir) -> io::Result<Self> {
        let path = directory.socket(NAME);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }

    /// Serves requests with `admin`, until dropped.
    pub async fn serve(self, admin: Arc<dyn Admin>) {
        let mut clients = JoinSet::new();
        loop {
            while clients.len() >= MAX_CLIENTS {
                clients.join_next().await;
            }
            while clients.try_join_next().is_some() {}
            match self.0.accept().await {
                Ok((client, _)) => {
                    clients.spawn(serve_client(client, admin.clone()));
                }
                Err(error) => {
                    tracing::warn!("the admin socket cannot take a connection: {error}");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Serves one request. A client that is slow or gone gets no response.
async fn serve_client(client: UnixStream, admin: Arc<dyn Admin>) {
    let (reader, mut writer) = client.into_split();
    let Ok(Ok(request)) = timeout(TIMEOUT, read_line(reader)).await else { return };
    let response = line(&respond(&request, &*admin).await);
    let _ = timeout(TIMEOUT, writer.write_all(&response)).await;
}

async fn read_line(reader: OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(reader.take(MAX_REQUEST_BYTES)).read_until(b'\n', &mut line).await?;
    Ok(line)
}

async fn respond(request: &[u8], admin: &dyn Admin) -> Response {
    match serde_json::from_slice(request) {
        Ok(Request::Ps {}) => Response::Status(admin.ps().await),
        Ok(Request::Scale { endpoint, workers }) => {
            let scaled = scale(endpoint, workers, admin).await;
            scaled.map_or_else(Response::Error, Response::Scaled)
        }
        Err(error) => Response::Error(format!("invalid admin request: {error}")),
    }
}

async fn scale(endpoint: String, workers: usize, admin: &dyn Admin) -> Result<Scaled, String> {
    if workers > MAX_WORKERS {
        return Err(format!("invalid `workers`: expected at most {MAX_WORKERS}, got {workers}"));
    }
    admin.scale(endpoint, workers).await
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream as Blocking;
    use std::path::Path;

    use tokio::task::spawn_blocking;

    use super::*;
    use crate::{AskError, Client, EndpointStatus};

    struct MockAdmin;

    impl Admin for MockAdmin {
        fn ps(&self) -> BoxFuture<'_, Status> {
            Box::pin(ready(status()))
        }

        fn scale(&self, endpoint: String, workers: usize) -> BoxFuture<'_, Result<Scaled, String>> {
            let scaled = match workers {
                0 => Err(format!("`{endpoint}` must have a worker")),
                wanted => Ok(Scaled { endpoint, before: 1, wanted }),
            };
            Box::pin(ready(scaled))
        }
    }

    fn status() -> Status {
        let endpoint = EndpointStatus {
            path: "/embed".into(),
            name: "Model".into(),
            aliases: Vec::new(),
            kind: "python".into(),
            state: "ready".into(),
            problem: None,
            wanted: 1,
            min_workers: None,
            max_workers: None,
            queued: 0,
            in_flight: 0,
            requests: 7,
            workers: Vec::new(),
        };
        let url = "http://127.0.0.1:8000".into();
        Status { pid: 1, url, port: 8000, uptime: 1.5, endpoints: vec![endpoint] }
    }

    /// Runs `client` with the directory of a server that serves meanwhile.
    async fn with_server<T: Send + 'static>(client: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let root = tempfile::tempdir().unwrap();
        let directory = RunDir::create_in(root.path()).unwrap();
        let socket = AdminSocket::bind(&directory).unwrap();
        let path = directory.path().to_owned();
        tokio::select! {
            () = socket.serve(Arc::new(MockAdmin)) => unreachable!("the socket serves until it is dropped"),
            result = spawn_blocking(move || client(&path)) => result.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_client_reads_the_status_and_scales_an_endpoint() {
        let (told, scaled, refused) = with_server(|directory| {
            let client = Client::of(directory);
            (client.ps(), client.scale("/embed", 4), client.scale("/embed", 0))
        })
        .await;
        assert_eq!(told.unwrap(), status());
        let wanted = Scaled { endpoint: "/embed".into(), before: 1, wanted: 4 };
        assert_eq!(scaled.unwrap(), wanted);
        assert_eq!(refused.unwrap_err().to_string(), "`/embed` must have a worker");
    }

    #[tokio::test]
    async fn only_its_user_can_reach_the_socket() {
        let mode = |directory: &Path| std::fs::metadata(directory.join(NAME)).unwrap().mode();
        assert_eq!(with_server(mode).await & 0o777, 0o600);
    }

    #[tokio::test]
    async fn silent_or_confused_clients_do_not_disturb_other_clients() {
        let (confused, told) = with_server(|directory| {
            let _silent = Blocking::connect(directory.join(NAME)).unwrap();
            let mut confused = Blocking::connect(directory.join(NAME)).unwrap();
            confused.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            let mut answer = String::new();
            confused.read_to_string(&mut answer).unwrap();
            (answer, Client::of(directory).ps())
        })
        .await;
        assert!(confused.starts_with("{\"error\":\"invalid admin request: "), "{confused}");
        assert!(told.is_ok());
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_read_to_the_end() {
        let answer = with_server(|directory| {
            let mut client = Blocking::connect(directory.join(NAME)).unwrap();
            client.write_all(&vec![b' '; MAX_REQUEST_BYTES as usize]).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        })
        .await;
        assert!(answer.contains("invalid admin request"), "{answer}");
    }

    #[tokio::test]
    async fn a_server_that_has_ended_is_reported_as_gone() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(Client::of(root.path()).ps(), Err(AskError::Gone)));
        drop(UnixListener::bind(root.path().join(NAME)).unwrap());
        assert!(matches!(Client::of(root.path()).ps(), Err(AskError::Gone)));
    }
}
