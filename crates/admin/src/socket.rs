//! The admin socket of a running server.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::from_fn;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use litplex_http_core::drain_body::drain_unread_body;
use litplex_http_core::upload::Upload;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::ServiceExt;

use crate::RunDir;
use crate::guard::guarded_socket;
use crate::operations::Admin;
use crate::routes::router;

/// The name of the socket in a run directory.
pub(crate) const NAME: &str = "admin.sock";

/// The time that a client may take to send the head of a request.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of clients that are served at the same time, those that follow events and logs included;
/// further ones wait.
const MAX_CLIENTS: usize = 64;

/// The name of the socket of a server that does not serve yet.
const UNPUBLISHED: &str = "starting.sock";

/// The admin socket of a running server; only its user can connect to it.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Creates the socket in the run directory of a server, where clients do not find it yet.
    ///
    /// # Errors
    /// The error of the system.
    pub fn bind(directory: &RunDir) -> io::Result<Self> {
        let path = directory.socket(UNPUBLISHED);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: directory.socket(NAME) })
    }

    /// Returns a function that puts the socket where clients find it.
    pub fn publisher(&self) -> impl Fn() -> io::Result<()> + Send + use<> {
        let path = self.path.clone();
        move || fs::rename(path.with_file_name(UNPUBLISHED), &path)
    }

    /// Serves the admin API with `admin`, until dropped. When `left` resolves, clients no longer find the
    /// socket, and those that are connected are served further.
    pub async fn serve(self, admin: Arc<dyn Admin>, left: impl Future<Output = ()>) {
        let Self { listener, path } = self;
        let router = router(admin).layer(from_fn(guarded_socket));
        let mut clients = Clients::new("the admin socket");
        let mut left = pin!(left);
        loop {
            tokio::select! {
                () = &mut left => break,
                client = clients.next(listener.accept()) => {
                    if let Some((client, _)) = client {
                        clients.spawn(serve_client(client, router.clone()));
                    }
                }
            }
        }
        let _ = fs::remove_file(&path);
        drop(listener);
        clients.served().await;
    }
}

/// The connections to a listener of the admin API.
pub(crate) struct Clients {
    /// The listener, as the log names it.
    listener: &'static str,
    serving: JoinSet<()>,
}

impl Clients {
    pub(crate) fn new(listener: &'static str) -> Self {
        Self { listener, serving: JoinSet::new() }
    }

    /// Waits until there are fewer clients than may be served at the same time, and returns the next one. If
    /// it cannot be accepted, logs the reason, and returns a second later.
    pub(crate) async fn next<T>(
        &mut self,
        accept: impl Future<Output = io::Result<T>>,
    ) -> Option<T> {
        while self.serving.len() >= MAX_CLIENTS {
            self.serving.join_next().await;
        }
        while self.serving.try_join_next().is_some() {}
        match accept.await {
            Ok(accepted) => Some(accepted),
            Err(error) => {
                tracing::warn!("{} cannot take a connection: {error}", self.listener);
                sleep(Duration::from_secs(1)).await;
                None
            }
        }
    }

    /// Resolves when all connections have ended.
    pub(crate) async fn served(&mut self) {
        while self.serving.join_next().await.is_some() {}
    }

    /// Serves a connection.
    pub(crate) fn spawn(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        self.serving.spawn(client);
    }
}

/// Serves the requests of a connection.
pub(crate) async fn serve_client<C>(client: C, router: axum::Router)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = service_fn(move |request| respond(router.clone(), request));
    // A client that is gone gets no response.
    let _ = http.serve_connection(TokioIo::new(client), service).await;
}

/// Responds to a request whose client may still send its body. The unread rest of a small body is read before the
/// response is sent, so that the connection can be used again; otherwise the response has `Connection: close`.
async fn respond(router: axum::Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    if request.body().is_end_stream() {
        return router.oneshot(request).await;
    }
    let version = request.version();
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let (body, unread) = Upload::new(body, waits);
    let response = router.oneshot(Request::from_parts(parts, Body::new(body))).await?;
    Ok(drain_unread_body(version, unread, response).await)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream as Blocking;
    use std::path::Path;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::task::spawn_blocking;

    use super::*;
    use crate::mock::MockAdmin;
    use crate::{AskError, Client, Event, EventKind, Mode, Scaled, WorkerCount};

    /// Runs `client` with the directory of a server that serves meanwhile.
    async fn with<T: Send + 'static>(
        admin: MockAdmin,
        client: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let root = tempfile::tempdir().unwrap();
        let directory = RunDir::create_in(root.path()).unwrap();
        let socket = AdminSocket::bind(&directory).unwrap();
        let path = directory.path().to_owned();
        let early = Client::of(&path);
        assert!(spawn_blocking(move || early.ps()).await.unwrap().is_err(), "it is not published");
        socket.publisher()().unwrap();
        tokio::select! {
            () = socket.serve(Arc::new(admin), pending()) => unreachable!("the socket serves until it is dropped"),
            result = spawn_blocking(move || client(&path)) => result.unwrap(),
        }
    }

    async fn with_server<T: Send + 'static>(client: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        with(MockAdmin::new(8000), client).await
    }

    /// Sends these bytes and returns all that the server sends.
    fn raw(directory: &Path, request: &[u8]) -> String {
        let mut client = Blocking::connect(directory.join(NAME)).unwrap();
        // The server may refuse before it has read everything.
        let _ = client.write_all(request);
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        answer
    }

    fn request(method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }

    #[tokio::test]
    async fn a_connection_goes_on_after_a_refusal_whose_request_has_not_arrived_whole() {
        with_server(|directory| {
            let mut client = Blocking::connect(directory.join(NAME)).unwrap();
            let head = "POST /v1/endpoints/no/scale HTTP/1.1\r\nHost: a\r\n\
                        Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n";
            client.write_all(head.as_bytes()).unwrap();
            // Enough for a server that does not wait for the rest.
            std::thread::sleep(Duration::from_millis(100));
            let last = request("GET", "/v1/server", "");
            client.write_all(format!("{{}}{last}").as_bytes()).unwrap();
            let mut answers = String::new();
            client.read_to_string(&mut answers).unwrap();
            assert!(answers.starts_with("HTTP/1.1 400"), "{answers}");
            assert!(answers.contains("HTTP/1.1 200"), "{answers}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_client_reads_and_changes_a_server() {
        let admin = MockAdmin::new(8000);
        let stopped = admin.stopped.clone();
        with(admin, |directory| {
            let client = Client::of(directory);
            let shown = MockAdmin::new(8000).shown();
            assert_eq!(client.ps().unwrap(), shown);
            assert_eq!(client.endpoint("/embed").unwrap(), shown.endpoints[0]);
            let unknown = client.endpoint("/no").unwrap_err().to_string();
            assert_eq!(unknown, "there is no endpoint `/no`");
            let wanted = Scaled { endpoint: "/embed".into(), before: 1, wanted: 4 };
            assert_eq!(client.scale("/embed", WorkerCount::Number(4)).unwrap(), wanted);
            let auto = Scaled { wanted: 2, ..wanted };
            assert_eq!(client.scale("/embed", WorkerCount::Auto).unwrap(), auto);
            let refused = client.scale("/embed", WorkerCount::Number(0)).unwrap_err();
            assert_eq!(refused.to_string(), "`/embed` may have 1 to 8 workers");
            for mode in [Mode::Paused, Mode::Draining, Mode::Serving] {
                assert_eq!(client.set_mode("/embed", mode).unwrap().mode, mode);
            }
            assert_eq!(client.stack("/embed", 3).unwrap(), "/embed#3\n");
            assert_eq!(client.set_log_level("debug").unwrap().level, "debug");
            assert_eq!(client.log_level().unwrap().level, "info");
            client.stop().unwrap();
        })
        .await;
        assert!(stopped.load(Relaxed));
    }

    #[tokio::test]
    async fn lines_of_the_log_are_chosen_and_followed() {
        let admin = MockAdmin::new(8000);
        let log = admin.log.clone();
        let write = move |endpoint: &str, message: &str| {
            let line = format!(
                "{{\"message\":\"{message}\",\"endpoint\":\"{endpoint}\",\"worker\":\"{endpoint}#0\"}}\n"
            );
            log.push(line.clone(), line.len());
        };
        with(admin, move |directory| {
            let client = Client::of(directory);
            let messages = |query: &[(&str, &str)]| -> Vec<String> {
                let lines = client.logs(query).unwrap().map(|line| line.unwrap());
                lines.map(|line| line.split('"').nth(3).unwrap().to_owned()).collect()
            };
            write("/embed", "one");
            write("/b", "two");
            write("/embed", "three");
            assert_eq!(messages(&[]), ["one", "two", "three"]);
            assert_eq!(messages(&[("lines", "2")]), ["two", "three"]);
            assert_eq!(messages(&[("endpoint", "/embed")]), ["one", "three"]);
            let unknown = client.logs(&[("endpoint", "/no")]).unwrap_err();
            assert!(matches!(unknown, AskError::Refused(_)), "{unknown:?}");
            let query = [("worker", "/b#0"), ("follow", "true"), ("lines", "0")];
            let mut followed = client.logs(&query).unwrap();
            write("/embed", "four");
            write("/b", "five");
            assert!(followed.next().unwrap().unwrap().contains("five"));
            let refused = client.logs(&[("lines", "many")]).unwrap_err();
            assert!(matches!(refused, AskError::Refused(_)), "{refused:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_stream_of_events_goes_on_after_the_last_one_seen() {
        let admin = MockAdmin::new(8000);
        let endpoint = "/a".to_owned();
        for wanted in 1..=3 {
            let kind = EventKind::Scaled { endpoint: endpoint.clone(), before: 0, wanted };
            admin.events.push(Event { timestamp: "2026".into(), kind }, 100);
        }
        with(admin, |directory| {
            let kept = Client::of(directory).events(false).unwrap();
            let kept: Vec<_> = kept.map(|event| event.unwrap()).collect();
            let first =
                r#"{"timestamp":"2026","event":"scaled","endpoint":"/a","before":0,"wanted":1}"#;
            assert_eq!((kept.len(), &*kept[0]), (3, first));
            assert_eq!(Client::of(directory).events(true).unwrap().take(3).count(), 3);
            let mut client = Blocking::connect(directory.join(NAME)).unwrap();
            let head = "GET /v1/events HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 1\r\n\r\n";
            client.write_all(head.as_bytes()).unwrap();
            let mut answer = String::new();
            while !answer.contains("data: ") {
                let mut piece = [0; 1024];
                let read = client.read(&mut piece).unwrap();
                answer += std::str::from_utf8(&piece[..read]).unwrap();
            }
            assert!(
                answer.contains("event: scaled\n")
                    && answer.contains("id: 2")
                    && !answer.contains("id: 1\n"),
                "{answer}"
            );
        })
        .await;
    }

    #[tokio::test]
    async fn each_operation_is_in_the_document() {
        let text =
            with_server(|directory| raw(directory, request("GET", "/openapi.json", "").as_bytes()));
        let text = text.await;
        let (_, document) = text.split_once("\r\n\r\n").unwrap();
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for path in ["/v1/server", "/v1/endpoints/{endpoint}/scale", "/v1/log-level", "/v1/stop"] {
            assert!(paths.contains_key(path), "{path}: {document}");
        }
        for (path, operations) in paths {
            for (method, operation) in operations.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            }
        }
    }

    #[tokio::test]
    async fn invalid_requests_are_refused_with_a_sentence() {
        let scale = "/v1/endpoints/%2Fembed/scale";
        let requests = [
            (request("GET", "/v2", ""), "404", "there is no `/v2`"),
            (request("DELETE", "/v1/server", ""), "405", "`/v1/server` does not take DELETE"),
            (
                request("POST", scale, "{\"workers\": -1}"),
                "400",
                "integer `-1`, expected a number of workers",
            ),
            (
                request("POST", scale, "{\"workers\": \"many\"}"),
                "400",
                "expected a number of workers",
            ),
            (request("POST", scale, "{\"worker\": 1}"), "400", "unknown field `worker`"),
            (
                request("POST", scale, "{\"workers\": 2000}"),
                "400",
                "expected at most 1024, got 2000",
            ),
            (request("GET", "/v1/logs?folow=true", ""), "400", "unknown field `folow`"),
            (request("GET", "/v1/endpoints/a/workers/x/stack", ""), "400", "invalid worker `x`"),
        ];
        for (request, status, part) in requests {
            let sent = request.clone();
            let answer = with_server(move |directory| raw(directory, sent.as_bytes())).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
            assert!(
                answer.contains("{\"error\":\"") && answer.contains(part),
                "{request}\n{answer}"
            );
        }
    }

    #[tokio::test]
    async fn pages_of_other_sites_are_refused_where_the_socket_is_made_a_port() {
        for (headers, wanted) in [
            ("Host: litplex", "202"),
            ("Host: localhost:9000\r\nOrigin: http://localhost:9000", "202"),
            ("Host: localhost:9000\r\nOrigin: https://evil.example", "403"),
            ("Host: localhost:9000\r\nSec-Fetch-Site: cross-site", "403"),
            ("Host: evil.example", "403"),
        ] {
            let request =
                format!("POST /v1/stop HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
            let answer = with_server(move |directory| raw(directory, request.as_bytes())).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {wanted} ")), "{headers}\n{answer}");
        }
    }

    #[tokio::test]
    async fn the_dashboard_is_a_page_of_its_own_files() {
        let get = |path: &str, headers: &str| {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
            with_server(move |directory| raw(directory, request.as_bytes()))
        };
        let moved = get("/", "").await;
        assert!(
            moved.starts_with("HTTP/1.1 307 ") && moved.contains("location: dashboard\r\n"),
            "{moved}"
        );
        let page = get("/dashboard", "").await;
        assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<!DOCTYPE html>"), "{page}");
        assert!(page.contains("content-security-policy: default-src 'self'; "), "{page}");
        let tag = page.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        let again = get("/dashboard", &format!("If-None-Match: {tag}\r\n")).await;
        assert!(again.starts_with("HTTP/1.1 304 "), "{again}");
        for path in ["/dashboard/app.js", "/dashboard/style.css"] {
            assert!(get(path, "").await.starts_with("HTTP/1.1 200 "), "{path}");
        }
        for path in ["/dashboard/no.js", "/dashboard/../Cargo.toml"] {
            assert!(get(path, "").await.starts_with("HTTP/1.1 404 "), "{path}");
        }
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
            let confused = raw(directory, b"{\"ps\":{}}\n\n\n");
            (confused, Client::of(directory).ps())
        })
        .await;
        assert!(confused.starts_with("HTTP/1.1 400 "), "{confused}");
        assert!(told.is_ok());
    }

    #[test]
    fn a_server_that_has_ended_is_reported_as_gone() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(Client::of(root.path()).ps(), Err(AskError::Gone)));
        drop(std::os::unix::net::UnixListener::bind(root.path().join(NAME)).unwrap());
        assert!(matches!(Client::of(root.path()).ps(), Err(AskError::Gone)));
    }
}
