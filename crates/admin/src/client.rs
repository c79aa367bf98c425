use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::message::{Answer, LONGEST_ANSWER, Request, line};
use crate::run_dir::run_dirs;
use crate::{Scaled, Status, socket};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there any more.
    #[error("the server is gone")]
    Gone,
    /// It does not answer.
    #[error("the server behind `{socket}` does not answer: {source}")]
    Silent {
        /// Where it listens.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It speaks another version of the protocol.
    #[error("the server behind `{socket}` is another version of litplex: {problem}")]
    Foreign {
        /// Where it listens.
        socket: PathBuf,
        /// What is wrong with its answer.
        problem: String,
    },
    /// It says why not.
    #[error("{0}")]
    Refused(String),
}

/// Returns a client for each server of this user; some of them may be gone.
pub fn running() -> Vec<Client> {
    run_dirs().iter().map(|directory| Client::of(directory)).collect()
}

impl Client {
    /// Makes a client for the server with this run directory.
    pub fn of(directory: &Path) -> Self {
        Self { socket: directory.join(socket::NAME) }
    }

    /// Asks what is running.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ps(&self) -> Result<Status, AskError> {
        match self.ask(&Request::Ps {})? {
            Answer::Status(status) => Ok(status),
            other => Err(self.unexpected(other)),
        }
    }

    /// Lets that many workers of an endpoint run; returns when that is noted.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn scale(&self, endpoint: &str, workers: usize) -> Result<Scaled, AskError> {
        match self.ask(&Request::Scale { endpoint: endpoint.into(), workers })? {
            Answer::Scaled(scaled) => Ok(scaled),
            other => Err(self.unexpected(other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, AskError> {
        let answer = self.exchange(&line(request)).map_err(|source| match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => AskError::Gone,
            _ => AskError::Silent { socket: self.socket.clone(), source },
        })?;
        if answer.is_empty() {
            return Err(AskError::Gone);
        }
        serde_json::from_slice(&answer).map_err(|error| self.foreign(error.to_string()))
    }

    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut server = UnixStream::connect(&self.socket)?;
        server.set_read_timeout(Some(PATIENCE))?;
        server.set_write_timeout(Some(PATIENCE))?;
        server.write_all(request)?;
        let mut answer = Vec::new();
        BufReader::new(server.take(LONGEST_ANSWER)).read_until(b'\n', &mut answer)?;
        Ok(answer)
    }

    fn unexpected(&self, answer: Answer) -> AskError {
        match answer {
            Answer::Error(reason) => AskError::Refused(reason),
            _ => self.foreign("its answer is to another question".into()),
        }
    }

    fn foreign(&self, problem: String) -> AskError {
        AskError::Foreign { socket: self.socket.clone(), problem }
    }
}
