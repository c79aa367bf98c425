//! The client of the admin protocol, which blocks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::message::{MAX_RESPONSE_BYTES, Request, Response, line};
use crate::run_dir::run_dirs;
use crate::{Scaled, Status, socket};

/// The time that a server may take to respond.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    socket: PathBuf,
}

/// The reason why a request to a server failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The server has ended.
    #[error("the server is gone")]
    Gone,
    /// The server does not respond.
    #[error("the server at `{socket}` does not respond: {source}")]
    Silent {
        /// The socket of the server.
        socket: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The response is not valid for this version of the protocol.
    #[error("the server at `{socket}` is another version of litplex: {problem}")]
    Foreign {
        /// The socket of the server.
        socket: PathBuf,
        /// The error in the response.
        problem: String,
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
        Self { socket: directory.join(socket::NAME) }
    }

    /// Returns the status of the server.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ps(&self) -> Result<Status, AskError> {
        match self.ask(&Request::Ps {})? {
            Response::Status(status) => Ok(status),
            other => Err(self.unexpected(other)),
        }
    }

    /// Sets the number of workers of an endpoint; returns when the number is set.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn scale(&self, endpoint: &str, workers: usize) -> Result<Scaled, AskError> {
        match self.ask(&Request::Scale { endpoint: endpoint.into(), workers })? {
            Response::Scaled(scaled) => Ok(scaled),
            other => Err(self.unexpected(other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Response, AskError> {
        let response = self.exchange(&line(request)).map_err(|source| match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => AskError::Gone,
            _ => AskError::Silent { socket: self.socket.clone(), source },
        })?;
        if response.is_empty() {
            return Err(AskError::Gone);
        }
        serde_json::from_slice(&response).map_err(|error| self.foreign(error.to_string()))
    }

    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = UnixStream::connect(&self.socket)?;
        server.set_read_timeout(Some(TIMEOUT))?;
        server.set_write_timeout(Some(TIMEOUT))?;
        server.write_all(request)?;
        let mut response = Vec::new();
        BufReader::new(server.take(MAX_RESPONSE_BYTES)).read_until(b'\n', &mut response)?;
        Ok(response)
    }

    fn unexpected(&self, response: Response) -> AskError {
        match response {
            Response::Error(reason) => AskError::Refused(reason),
            _ => self.foreign("the response does not match the request".into()),
        }
    }

    fn foreign(&self, problem: String) -> AskError {
        AskError::Foreign { socket: self.socket.clone(), problem }
    }
}
