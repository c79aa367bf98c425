//! Virtual environments made from a file of requirements, each once, in the user's cache.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use litplex_dirs::{Cache, Digest, DirError, make_private};
use rustix::fs::FlockOperation;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::task::spawn_blocking;

use super::child::{Process, describe, forget, start};
use super::environments::{MARK, NAME, lock_of, used_by};
use super::lock::{TIMEOUT_VARIABLE, lock, timeout_from_env};
use super::requirements::Requirements;
use crate::Error;

/// The number of an installer's last lines that are shown when it fails.
const LAST_LINES: usize = 25;

/// The program that prints the identity of an interpreter.
const IDENTITY: &str = "import sys; print(sys.version, sys.base_prefix)";

/// An environment that a worker needs.
#[derive(Debug)]
pub(crate) struct Venv<'a> {
    /// The endpoint, for the log.
    pub(crate) endpoint: &'a str,
    /// The interpreter that creates the environment.
    pub(crate) interpreter: &'a Path,
    /// The file of requirements; paths in it are relative to its directory.
    pub(crate) requirements: &'a Path,
    /// The cache with all environments.
    pub(crate) cache: &'a Cache,
    /// Variables that installers must not see.
    pub(crate) secrets: &'a [String],
}

/// An environment that exists, and is not removed before this is dropped.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) directory: PathBuf,
    _used: File,
}

impl Made {
    /// Returns the interpreter of the environment.
    pub(crate) fn python(&self) -> PathBuf {
        python_in(&self.directory)
    }

    /// Returns whether the environment is complete.
    pub(crate) fn is_ready(&self) -> bool {
        is_ready(&self.directory)
    }
}

impl Venv<'_> {
    /// Returns the environment, which is made if it does not exist.
    ///
    /// Other processes may need the same environment at the same time: one makes the environment, and
    /// the others wait. A drop ends the installer, and the next call begins anew.
    pub(crate) async fn make_ready(&self) -> Result<Made, Error> {
        let directory = self.directory().await?;
        let shared = FlockOperation::NonBlockingLockShared;
        let used = self.lock(&used_by(&directory), shared, "is removed").await?;
        // The time of the last use, for `litplex env`. A failure has no other effect.
        let _ = used.set_modified(SystemTime::now());
        let made = Made { directory, _used: used };
        if !made.is_ready() {
            let alone = FlockOperation::NonBlockingLockExclusive;
            let lock = lock_of(&made.directory);
            let _lock = self.lock(&lock, alone, "is made by another start").await?;
            if !made.is_ready() {
                self.make(&made.directory, &made.python()).await?;
            }
        }
        Ok(made)
    }

    /// Returns the interpreter of the environment, if it exists.
    pub(crate) async fn found(&self) -> Result<Option<PathBuf>, Error> {
        let directory = self.directory().await?;
        Ok(is_ready(&directory).then(|| python_in(&directory)))
    }

    /// Returns the directory, which depends on the requirements and the interpreter.
    async fn directory(&self) -> Result<PathBuf, Error> {
        let mut digest = Digest::new();
        digest.feed(self.identity().await?.as_bytes());
        let requirements =
            Requirements::read(self.requirements).map_err(|error| self.failed_with(error))?;
        // A relative path means another package if the file is elsewhere.
        if requirements.names_a_path() {
            digest.feed(self.requirements.as_os_str().as_encoded_bytes());
        }
        digest.feed(requirements.text().as_bytes());
        let venvs = self.cache.directory(NAME).map_err(|error| self.failed_with(error))?;
        Ok(venvs.join(digest.to_string()))
    }

    async fn identity(&self) -> Result<String, Error> {
        let mut command = tokio::process::Command::new(self.interpreter);
        self.secrets.iter().for_each(|name| _ = command.env_remove(name));
        command.args(["-c", IDENTITY]).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = match start(&mut command) {
            Ok(child) => {
                let id = child.id();
                let output = child.wait_with_output().await;
                forget(id);
                output
            }
            Err(error) => Err(error),
        };
        let said = output.map_err(|error| error.to_string()).and_then(|output| {
            let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            if output.status.success() {
                Ok(said(&output.stdout))
            } else {
                Err(said(&output.stderr))
            }
        });
        said.map_err(|error| {
            self.failed(format!("`{}` does not run: {error}", self.interpreter.display()))
        })
    }

    /// Waits for the lock on a file; `why` says what its holder does with the environment.
    async fn lock(&self, path: &Path, how: FlockOperation, why: &str) -> Result<File, Error> {
        let limit = timeout_from_env().map_err(|error| self.failed_with(error))?;
        let log_wait = |holder: &str| {
            let seconds = limit.as_secs();
            tracing::info!(
                endpoint = self.endpoint,
                "its environment {why} ({holder}); waiting for up to {seconds} s \
                 (`{TIMEOUT_VARIABLE}`)"
            );
        };
        lock(path, how, limit, log_wait).await.map_err(|error| self.failed_with(error))
    }

    /// Creates the environment in its final place, which its scripts name. The mark is written last.
    async fn make(&self, directory: &Path, python: &Path) -> Result<(), Error> {
        let file = self.requirements.display();
        tracing::info!(endpoint = self.endpoint, "making its environment from {file}");
        let left_over = directory.to_owned();
        let removed = spawn_blocking(move || match fs::remove_dir_all(left_over) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
        let removed = removed.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let named =
            |source| self.failed_with(DirError::System { path: directory.to_owned(), source });
        removed.map_err(named)?;
        let has_uv = env::var_os("PATH")
            .is_some_and(|path| env::split_paths(&path).any(|place| place.join("uv").is_file()));
        for command in commands(self, directory, python, has_uv) {
            self.run(command).await?;
        }
        make_private(directory).map_err(|error| self.failed_with(error))?;
        fs::write(directory.join(MARK), file.to_string()).map_err(named)?;
        let place = directory.display();
        tracing::info!(endpoint = self.endpoint, "its environment is ready, in {place}");
        Ok(())
    }

    /// Runs one command, and logs its lines.
    async fn run(&self, mut command: Command) -> Result<(), Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let cannot = |error: io::Error| self.not_run(&program, error);
        let (read, write) = io::pipe().map_err(cannot)?;
        let directory = self.requirements.parent().unwrap_or(Path::new("/"));
        command.stdin(Stdio::null()).current_dir(directory);
        self.secrets.iter().for_each(|name| _ = command.env_remove(name));
        command.stdout(write.try_clone().map_err(cannot)?).stderr(write);
        // The command, which is gone after this, holds the other end of the pipe.
        let mut process = Process::spawn(command).map_err(cannot)?;
        let output = pipe::Receiver::from_owned_fd(read.into()).map_err(cannot)?;
        let (mut lines, mut last) = (BufReader::new(output).lines(), Vec::new());
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::info!(endpoint = self.endpoint, "{line}");
            last.push(line);
        }
        match process.ended().await {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let end =
                    describe(status).reason.replacen("its process", &format!("`{program}`"), 1);
                let cause = headline(&last).map_or(end, str::to_owned);
                let shown = last.split_off(last.len().saturating_sub(LAST_LINES)).join("\n");
                let requirements = self.requirements.to_owned();
                Err(Error::Environment { requirements, cause, output: Some(shown), source: None })
            }
            Err(error) => Err(cannot(error)),
        }
    }

    /// Returns the error with this cause.
    fn failed(&self, cause: impl Into<String>) -> Error {
        Error::Environment {
            requirements: self.requirements.to_owned(),
            cause: cause.into(),
            output: None,
            source: None,
        }
    }

    /// Returns the error with this source.
    fn failed_with(&self, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Environment {
            requirements: self.requirements.to_owned(),
            cause: source.to_string(),
            output: None,
            source: Some(Box::new(source)),
        }
    }

    /// Returns the error for a program that does not run.
    fn not_run(&self, program: &str, source: io::Error) -> Error {
        Error::Environment {
            requirements: self.requirements.to_owned(),
            cause: format!("`{program}` does not run: {source}"),
            output: None,
            source: Some(Box::new(source)),
        }
    }
}

/// Returns the commands that create an environment, in their order.
fn commands(venv: &Venv<'_>, directory: &Path, python: &Path, has_uv: bool) -> [Command; 2] {
    let command = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    let [mut make, mut install] = if has_uv {
        let (mut make, mut install) =
            (command(Path::new("uv"), &["venv"]), command(Path::new("uv"), &["pip", "install"]));
        make.arg("--python").arg(venv.interpreter);
        install.arg("--python").arg(python);
        [make, install]
    } else {
        let pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input"];
        [command(venv.interpreter, &["-m", "venv"]), command(python, &pip)]
    };
    make.arg(directory);
    install.arg("-r").arg(venv.requirements);
    [make, install]
}

fn is_ready(directory: &Path) -> bool {
    directory.join(MARK).exists() && python_in(directory).exists()
}

fn python_in(directory: &Path) -> PathBuf {
    directory.join("bin/python")
}

/// Returns the line with the error, as pip and uv write it.
fn headline(lines: &[String]) -> Option<&str> {
    let says =
        |line: &&String| ["ERROR:", "error:", "Because "].iter().any(|word| line.contains(word));
    lines.iter().rfind(says).or(lines.last()).map(|line| line.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(command: &Command) -> String {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn uv_is_used_where_it_is_there() {
        let (interpreter, requirements) = (Path::new("python3"), Path::new("/srv/r.txt"));
        let cache = Cache::at(Path::new("/cache"));
        let venv = Venv { endpoint: "/a", interpreter, requirements, cache: &cache, secrets: &[] };
        let [directory, python] = ["/v", "/v/bin/python"].map(Path::new);
        let commands = |has_uv| commands(&venv, directory, python, has_uv).map(|c| shown(&c));
        assert_eq!(
            commands(true),
            ["uv venv --python python3 /v", "uv pip install --python /v/bin/python -r /srv/r.txt"]
        );
        let [make, install] = commands(false);
        assert_eq!(make, "python3 -m venv /v");
        assert!(install.starts_with("/v/bin/python -m pip install "), "{install}");
        assert!(install.ends_with(" -r /srv/r.txt"), "{install}");
    }

    #[test]
    fn the_line_that_names_the_package_is_found() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let pip = "Collecting a\nERROR: Could not find a version\nERROR: No matching distribution \
                   found for nosuch\n";
        let missing = "ERROR: No matching distribution found for nosuch";
        assert_eq!(headline(&lines(pip)), Some(missing));
        let uv = "error: No solution found\n  cause: Because nosuch was not found\n\nhint: try it";
        assert_eq!(headline(&lines(uv)), Some("cause: Because nosuch was not found"));
        assert_eq!(headline(&lines("out of luck")), Some("out of luck"));
        assert_eq!(headline(&[]), None);
    }
}
