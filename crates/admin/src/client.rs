//! The client of the admin API, which blocks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use crate::history::{EndpointHistory, Load};
use crate::inventory::{Configuration, KeyHolders};
use crate::operations::ReloadOptions;
use crate::remote::{Encrypted, Remote, RemoteOptions};
use crate::requests::{RecentRequests, RequestDetails};
use crate::run_dir::run_dirs;
use crate::socket;
use crate::status::{
    EndpointGenerations, EndpointMode, EndpointStatus, ErrorBody, LogLevel, MemoryPlan, Mode,
    ProgramReloaded, Reload, ReloadProgram, Reloaded, Rollback, Scale, Scaled, Status, Upgrade,
    Upgraded, WorkerCount,
};

/// The time that a server may take to respond.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a reload of the whole program may take. Each endpoint has a limit of its own.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest response in bytes, streams excepted.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// The longest line of a stream in bytes.
const MAX_LINE_BYTES: usize = 16 << 20;

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    address: Address,
}

/// The address of an admin API.
#[derive(Debug, Clone)]
enum Address {
    /// A socket in the private directory of a server.
    Socket(PathBuf),
    /// A port.
    Remote(Remote),
}

/// The reason why a request to a server failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The server has ended.
    #[error("the server is gone")]
    Gone,
    /// The server does not respond.
    #[error("the server at `{server}` does not respond: {source}")]
    Silent {
        /// The socket or the URL of the server.
        server: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The response is not valid for this version of the API.
    #[error(
        "the server at `{server}` does not respond as this version of the admin API does: {problem}"
    )]
    Foreign {
        /// The socket or the URL of the server.
        server: String,
        /// The error in the response.
        problem: String,
    },
    /// The address is that of a server's endpoints.
    #[error("`{server}` is the address of the endpoints of a litplex server, not of its admin API")]
    Endpoints {
        /// The URL of the server.
        server: String,
    },
    /// The server refused the request, for this reason.
    #[error("{0}")]
    Refused(String),
}

/// Returns a client for each server of this user; some of them may have ended.
pub fn running() -> Vec<Client> {
    run_dirs().iter().map(|directory| Client::of(directory)).collect()
}

impl Client {
    /// Returns a client for the server with this run directory.
    pub fn of(directory: &Path) -> Self {
        Self { address: Address::Socket(directory.join(socket::NAME)) }
    }

    /// Returns a client for the server whose admin API has this address, such as `http://127.0.0.1:9000`, or
    /// `http://127.0.0.1:8000/dashboard` for the port of endpoints.
    ///
    /// # Errors
    /// The address, the key or a file is invalid, in a sentence.
    pub fn remote(url: &str, options: &RemoteOptions) -> Result<Self, String> {
        Ok(Self { address: Address::Remote(Remote::new(url, options)?) })
    }

    /// Returns the status of the server.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ps(&self) -> Result<Status, AskError> {
        self.get("/v1/server")
    }

    /// Returns the status of an endpoint.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn endpoint(&self, endpoint: &str) -> Result<EndpointStatus, AskError> {
        self.get(&endpoint_path(endpoint, ""))
    }

    /// Sets the number of workers of an endpoint; returns when the number is set.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn scale(&self, endpoint: &str, workers: WorkerCount) -> Result<Scaled, AskError> {
        self.send(Method::POST, &endpoint_path(endpoint, "/scale"), &Scale { workers })
    }

    /// Replaces the workers of an endpoint by a new generation; returns once it takes the requests, or its
    /// share of them.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn reload(&self, endpoint: &str, options: &ReloadOptions) -> Result<Reloaded, AskError> {
        let ReloadOptions { limit, canary, shadow, allow_effects, swap } = *options;
        let body = Reload { timeout: limit.as_secs_f64(), canary, shadow, allow_effects, swap };
        self.send_within(limit, &endpoint_path(endpoint, "/reload"), &body)
    }

    /// Makes the canary, or the shadow, of an endpoint its live generation.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn promote(&self, endpoint: &str) -> Result<Reloaded, AskError> {
        self.send(Method::POST, &endpoint_path(endpoint, "/promote"), &())
    }

    /// Ends the trial of a generation, or starts an earlier generation again; returns once it takes the
    /// requests.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn rollback(
        &self,
        endpoint: &str,
        generation: Option<u64>,
        limit: Duration,
    ) -> Result<Reloaded, AskError> {
        let body = Rollback { generation, timeout: limit.as_secs_f64() };
        self.send_within(limit, &endpoint_path(endpoint, "/rollback"), &body)
    }

    /// Returns the generations of an endpoint.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn generations(&self, endpoint: &str) -> Result<EndpointGenerations, AskError> {
        self.get(&endpoint_path(endpoint, "/generations"))
    }

    /// Reads the configuration again, and applies what has changed; with `dry_run` it only compares. The new
    /// workers of each endpoint have `limit` to become ready.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn reload_program(
        &self,
        dry_run: bool,
        limit: Duration,
    ) -> Result<ProgramReloaded, AskError> {
        let timeout = limit.as_secs_f64();
        // Serialization cannot fail: the number is finite.
        let body = serde_json::to_vec(&ReloadProgram { dry_run, timeout }).unwrap_or_default();
        self.parse(&self.ask_within(RELOAD_TIMEOUT, Method::POST, "/v1/reload", body.into())?)
    }

    /// Pauses, drains or resumes an endpoint.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn set_mode(&self, endpoint: &str, mode: Mode) -> Result<EndpointMode, AskError> {
        let verb = match mode {
            Mode::Serving => "/resume",
            Mode::Paused => "/pause",
            Mode::Draining => "/drain",
        };
        self.send(Method::POST, &endpoint_path(endpoint, verb), &())
    }

    /// Returns the stacks of all threads of a worker, as text.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn stack(&self, endpoint: &str, slot: usize) -> Result<String, AskError> {
        let path = endpoint_path(endpoint, &format!("/workers/{slot}/stack"));
        let text = self.ask(Method::GET, &path, Bytes::new())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Returns the load of all endpoints, and why each is slow.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn load(&self) -> Result<Load, AskError> {
        self.get("/v1/load")
    }

    /// Returns the last seconds of an endpoint, in points of at least `step` seconds.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn history(
        &self,
        endpoint: &str,
        seconds: u64,
        step: u32,
    ) -> Result<EndpointHistory, AskError> {
        let endpoint = encoded(endpoint);
        self.get(&format!("/v1/history?endpoint={endpoint}&seconds={seconds}&step={step}"))
    }

    /// Returns the callers and operators that are admitted.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn keys(&self) -> Result<KeyHolders, AskError> {
        self.get("/v1/keys")
    }

    /// Returns the memory of all workers, and what a request for each endpoint would lead to.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn memory(&self) -> Result<MemoryPlan, AskError> {
        self.get("/v1/memory")
    }

    /// Returns the options of the server and its endpoints.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn configuration(&self) -> Result<Configuration, AskError> {
        self.get("/v1/config")
    }

    /// Returns the requests that are chosen by `query`, such as
    /// `[("endpoint", "/embed"), ("slowest", "true")]`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn requests(&self, query: &[(&str, &str)]) -> Result<RecentRequests, AskError> {
        self.get(&format!("/v1/requests?{}", query_text(query)))
    }

    /// Returns the last request with this id, with all its stages.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn request(&self, id: &str) -> Result<RequestDetails, AskError> {
        self.get(&format!("/v1/requests/{}", encoded(id)))
    }

    /// Returns the level of the log.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn log_level(&self) -> Result<LogLevel, AskError> {
        self.get("/v1/log-level")
    }

    /// Sets the level of the log, in the syntax of `LITPLEX_LOG`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn set_log_level(&self, level: &str) -> Result<LogLevel, AskError> {
        self.send(Method::PUT, "/v1/log-level", &LogLevel { level: level.into() })
    }

    /// Replaces the server by a new process of its program, which has `limit` to become ready; returns once
    /// that serves.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn upgrade(&self, limit: Duration) -> Result<Upgraded, AskError> {
        // Serialization cannot fail: the number is finite.
        let body = serde_json::to_vec(&Upgrade { limit: limit.as_secs_f64() }).unwrap_or_default();
        // A process that did not become ready has time to exit.
        let limit = limit + 2 * TIMEOUT;
        self.parse(&self.ask_within(limit, Method::POST, "/v1/upgrade", body.into())?)
    }

    /// Asks the server to stop: requests in progress are answered first.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn stop(&self) -> Result<(), AskError> {
        self.ask(Method::POST, "/v1/stop", Bytes::new()).map(drop)
    }

    /// Returns the lines of the log that are chosen by `query`, such as
    /// `[("endpoint", "/embed"), ("follow", "true")]`.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn logs(&self, query: &[(&str, &str)]) -> Result<Lines, AskError> {
        self.lines(&format!("/v1/logs?{}", query_text(query)))
    }

    /// Returns the events that are kept, each as JSON, and with `follow` the next ones as they come.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn events(
        &self,
        follow: bool,
    ) -> Result<impl Iterator<Item = io::Result<String>> + use<>, AskError> {
        let lines = self.lines(&format!("/v1/events?follow={follow}"))?;
        Ok(lines.filter_map(|line| match line {
            Ok(line) => line.strip_prefix("data: ").map(|data| Ok(data.to_owned())),
            Err(error) => Some(Err(error)),
        }))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        self.parse(&self.ask(Method::GET, path, Bytes::new())?)
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AskError> {
        // Serialization cannot fail: all keys are strings, and all numbers are finite.
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.parse(&self.ask(method, path, body.into())?)
    }

    /// Sends a request whose response takes up to this time longer.
    fn send_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AskError> {
        // Serialization cannot fail: all keys are strings, and all numbers are finite.
        let body = serde_json::to_vec(body).unwrap_or_default().into();
        self.parse(&self.ask_within(limit + TIMEOUT, Method::POST, path, body)?)
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, AskError> {
        serde_json::from_slice(body).map_err(|error| self.foreign(error.to_string()))
    }

    /// Returns the whole body of the response.
    fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, AskError> {
        self.ask_within(TIMEOUT, method, path, body)
    }

    fn ask_within(
        &self,
        limit: Duration,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, AskError> {
        let runtime = self.runtime()?;
        runtime.block_on(async {
            let ended = timeout(limit, async {
                let response = self.exchange(method, path, body).await?;
                self.whole(response).await
            });
            ended.await.unwrap_or_else(|_| Err(self.silent(io::ErrorKind::TimedOut.into())))
        })
    }

    /// Returns the lines of the body of the response.
    fn lines(&self, path: &str) -> Result<Lines, AskError> {
        let runtime = self.runtime()?;
        let response = runtime.block_on(async {
            let response = timeout(TIMEOUT, self.exchange(Method::GET, path, Bytes::new())).await;
            let response =
                response.unwrap_or_else(|_| Err(self.silent(io::ErrorKind::TimedOut.into())))?;
            if response.status().is_success() {
                return Ok(response);
            }
            self.whole(response).await.and_then(|_| Err(self.foreign("an error was expected")))
        })?;
        Ok(Lines { runtime, body: response.into_body(), buffer: BytesMut::new() })
    }

    fn runtime(&self) -> Result<Runtime, AskError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|source| self.silent(source))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, AskError> {
        let (host, prefix, key) = match &self.address {
            Address::Socket(_) => ("litplex", "", None),
            Address::Remote(remote) => (remote.authority(), remote.prefix(), remote.key()),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{prefix}{path}"))
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| self.foreign(error.to_string()))?;
        let mut sender = self.connect().await?;
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, AskError> {
        match &self.address {
            Address::Socket(socket) => {
                let stream = UnixStream::connect(socket).await;
                self.handshake(stream.map_err(|error| self.lost(error))?).await
            }
            Address::Remote(remote) => {
                let stream = remote.connect().await.map_err(|error| self.lost(error))?;
                match remote.encrypt(stream).await.map_err(|error| self.silent(error))? {
                    Encrypted::Tls(stream) => self.handshake(stream).await,
                    Encrypted::Plain(stream) => self.handshake(stream).await,
                }
            }
        }
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<SendRequest<Full<Bytes>>, AskError> {
        let connection = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = connection.map_err(|error| self.broken(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Returns the body of a response, or the refusal that it has.
    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, AskError> {
        let status = response.status();
        let asks_for_key =
            response.headers().get(WWW_AUTHENTICATE).is_some_and(|it| it == "APIKey");
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(error) => self.foreign(error.to_string()),
            Err(error) => self.silent(io::Error::other(error)),
        })?;
        let body = body.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice(&body) {
            Ok(ErrorBody { error }) => AskError::Refused(error),
            Err(_) if asks_for_key || is_of_endpoints(&body) => {
                AskError::Endpoints { server: self.server() }
            }
            Err(_) => self.foreign(format!("it responds with status {status}")),
        })
    }

    fn lost(&self, source: io::Error) -> AskError {
        match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => AskError::Gone,
            _ => self.silent(source),
        }
    }

    /// Returns the error of a connection that broke, which the end of a server does too.
    fn broken(&self, error: &hyper::Error) -> AskError {
        if error.is_parse() { self.foreign(error.to_string()) } else { AskError::Gone }
    }

    fn silent(&self, source: io::Error) -> AskError {
        AskError::Silent { server: self.server(), source }
    }

    fn foreign(&self, problem: impl Into<String>) -> AskError {
        AskError::Foreign { server: self.server(), problem: problem.into() }
    }

    /// Returns the address for messages.
    fn server(&self) -> String {
        match &self.address {
            Address::Socket(socket) => socket.display().to_string(),
            Address::Remote(remote) => remote.url(),
        }
    }
}

/// Returns whether a body is that of the error with which the port of endpoints responds at an unknown path.
fn is_of_endpoints(body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    let texts = [&body["error"]["message"], &body["detail"]].map(Value::as_str);
    texts.into_iter().flatten().any(|text| text.starts_with("there is no endpoint `/"))
}

/// Returns the path of an operation on an endpoint.
fn endpoint_path(endpoint: &str, operation: &str) -> String {
    format!("/v1/endpoints/{}{operation}", encoded(endpoint))
}

fn query_text(query: &[(&str, &str)]) -> String {
    let pairs = query.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    Vec::from_iter(pairs).join("&")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The lines of a response that may never end.
#[derive(Debug)]
pub struct Lines {
    runtime: Runtime,
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// Returns the next line without its end; `None` at the end of the response.
    fn read(&mut self) -> io::Result<Option<String>> {
        let mut searched = 0;
        loop {
            let end = self.buffer[searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line = self.buffer.split_to(searched + end + 1);
                return Ok(Some(String::from_utf8_lossy(&line[..line.len() - 1]).into_owned()));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE_BYTES {
                return Err(io::Error::other("a line is too long"));
            }
            match self.runtime.block_on(self.body.frame()) {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    self.buffer.extend(frame.into_data().unwrap_or_default());
                }
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl Iterator for Lines {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
