//! The description of a Python program, which the program gives when it runs up to the call that serves.
//! `litplex._describe` is the other side.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Seek};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::child::{Process, describe};

/// The largest part of the output of a program that failed, in bytes.
const SHOWN_BYTES: u64 = 16 * 1024;

/// A program in Python that can run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonProgram {
    /// The interpreter.
    pub interpreter: PathBuf,
    /// The options of the interpreter, such as `-O`.
    pub flags: Vec<String>,
    /// The name for `python -m`, if the program is in a package.
    pub module: Option<String>,
    /// The file.
    pub file: PathBuf,
    /// The arguments.
    pub args: Vec<String>,
    /// The working directory in which it ran first.
    pub cwd: Option<PathBuf>,
}

/// The description of a program. Its process, which holds the files of the models, lives until it is dropped.
#[derive(Debug)]
pub struct Description {
    /// The program as JSON.
    pub text: String,
    _process: Process,
    _until_read: PipeWriter,
}

impl PythonProgram {
    /// Runs the program up to the call that serves, and returns its description.
    ///
    /// # Errors
    /// What the program printed, or why it cannot run.
    pub async fn describe(&self, limit: Duration) -> Result<Description, String> {
        let cannot = |error: io::Error| format!("cannot run {}: {error}", self.file.display());
        let (order, until_read) = io::pipe().map_err(cannot)?;
        let (mut description, answer) = io::pipe().map_err(cannot)?;
        let mut printed = tempfile::tempfile().map_err(cannot)?;
        let mut process = {
            let to = printed.try_clone().map_err(cannot)?;
            // The ends of the process are closed here after its start.
            let command = self.command(order.into(), answer.into(), to);
            Process::spawn(command).map_err(cannot)?
        };
        let read = spawn_blocking(move || {
            let mut text = String::new();
            description.read_to_string(&mut text).map(|_| text)
        });
        let Ok(text) = timeout(limit, read).await else {
            let seconds = limit.as_secs_f64();
            return Err(format!("{} did not serve within {seconds} s", self.file.display()));
        };
        let text = text.map_err(io::Error::other).and_then(|text| text).map_err(cannot)?;
        if text.is_empty() {
            let status = process.ended().await.map_err(cannot)?;
            let said = said(&mut printed).unwrap_or_default();
            let reason = || format!("{}: {}", self.file.display(), describe(status).reason);
            return Err(if said.is_empty() { reason() } else { said });
        }
        Ok(Description { text, _process: process, _until_read: until_read })
    }

    fn command(&self, order: Stdio, answer: Stdio, printed: File) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.args(&self.flags).args(["-m", "litplex._describe"]);
        if let Some(module) = &self.module {
            command.arg(format!("--module={module}"));
        }
        command
            .arg(&self.file)
            .args(&self.args)
            // The server notifies systemd, not its programs.
            .env_remove("NOTIFY_SOCKET")
            .stdin(order)
            .stdout(answer)
            .stderr(printed);
        if let Some(cwd) = self.cwd.as_ref().filter(|cwd| cwd.is_dir()) {
            command.current_dir(cwd);
        }
        command
    }
}

/// Returns the last output of a program, without the word before its error.
fn said(printed: &mut File) -> io::Result<String> {
    let length = printed.metadata()?.len();
    printed.seek(io::SeekFrom::Start(length.saturating_sub(SHOWN_BYTES)))?;
    let mut bytes = Vec::new();
    printed.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    Ok(text.strip_prefix("error: ").unwrap_or(text).to_owned())
}
