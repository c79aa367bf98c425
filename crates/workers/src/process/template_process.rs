//! The process of a template, and the messages between it and this program, which
//! `_worker/_template.py` describes.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Interest, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::adopted::Adopted;
use super::child::{Command, Process, describe};
use super::output::Label;

/// The time that a process without a connection may take to exit.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// The modules that a line of the log names.
const SHOWN_MODULES: usize = 8;

/// All that the workers of a template have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TemplateSpec {
    pub(super) interpreter: PathBuf,
    pub(super) flags: Vec<String>,
    /// The directory with the `__main__.py` of workers.
    pub(super) code: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    pub(super) secrets: Vec<String>,
    pub(super) cwd: Option<PathBuf>,
    /// The directories in which the workers look for modules first.
    pub(super) path: Vec<PathBuf>,
    pub(super) cpu_affinity: Option<Vec<usize>>,
    pub(super) log_level: Option<String>,
    /// The modules to import, in order.
    pub(super) modules: Vec<PreloadedModule>,
}

/// A module that a template imports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct PreloadedModule {
    /// The name.
    pub(super) name: String,
    /// The file that workers have found under this name, if that is known: with another one the module is
    /// not preloaded.
    pub(super) file: Option<String>,
}

/// A message of the process.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Unimported { module: String, reason: String },
    Unfit { module: String, reason: String },
    Ready { modules: Vec<String>, seconds: f64 },
    Cannot { reason: String },
    Stale { path: String },
    Forked { pid: u32 },
    Adopted {},
}

/// The reason why a process of a template has ended, or is ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// No launch needs it any more.
    Unneeded,
    /// No worker can be forked after the import of this module.
    Unfit(String),
    /// No module was imported.
    Empty,
    /// A file has changed since it was imported.
    Stale,
    /// The process is lost, for this reason.
    Lost(String),
}

/// The reason why a worker was not forked.
pub(super) enum Refusal {
    /// The template goes on.
    Now(String),
    /// The template ends.
    End(End),
}

/// A running process of a template.
pub(super) struct TemplateProcess {
    process: Process,
    messages: Lines<BufReader<OwnedReadHalf>>,
    socket: OwnedWriteHalf,
}

impl TemplateProcess {
    /// Starts the process, which then imports its modules.
    pub(super) async fn start(spec: &TemplateSpec, label: &Label) -> Result<Self, String> {
        let TemplateSpec { interpreter, flags, code, env, secrets, cwd, .. } = spec;
        let (cwd, code, memory_limit) = (cwd.as_deref(), code.clone(), None);
        let command = Command { interpreter, flags, code, env, secrets, cwd, memory_limit };
        let (process, socket) =
            Process::start_with_socket(&command, label).map_err(|error| error.to_string())?;
        let cannot = |error: io::Error| error.to_string();
        socket.set_nonblocking(true).map_err(cannot)?;
        let (read, socket) = UnixStream::from_std(socket).map_err(cannot)?.into_split();
        let running = Self { process, messages: BufReader::new(read).lines(), socket };
        running.send(&order(spec, label), &[]).await.map_err(cannot)?;
        Ok(running)
    }

    /// Resolves when the modules are imported.
    pub(super) async fn imported(&mut self) -> Result<(), End> {
        loop {
            match self.message().await? {
                Message::Unimported { module, reason } => {
                    tracing::warn!("`{module}` is not preloaded: its import raised {reason}");
                }
                Message::Unfit { module, reason } => {
                    tracing::warn!("`{module}` is not preloaded: after its import {reason}");
                    return Err(End::Unfit(module));
                }
                Message::Ready { modules, .. } if modules.is_empty() => return Err(End::Empty),
                Message::Ready { modules, seconds } => {
                    let modules = shown(&modules);
                    tracing::info!("ready: workers are forked with {modules} ({seconds:.2} s)");
                    return Ok(());
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Forks a worker, which is a child of this process when this resolves.
    pub(super) async fn fork(
        &mut self,
        env: &BTreeMap<String, String>,
        streams: &[OwnedFd; 3],
    ) -> Result<Adopted, Refusal> {
        let lost = |error: io::Error| Refusal::End(End::Lost(error.to_string()));
        self.send(&json!({"fork": {"env": env}}), streams).await.map_err(lost)?;
        let pid = match self.message().await.map_err(Refusal::End)? {
            Message::Forked { pid } => pid,
            Message::Cannot { reason } => return Err(Refusal::Now(reason)),
            Message::Stale { path } => {
                tracing::info!("starts again: `{path}` has changed since its imports");
                return Err(Refusal::End(End::Stale));
            }
            other => return Err(Refusal::End(unexpected(&other))),
        };
        let child = Adopted::new(pid).map_err(lost)?;
        self.send_line(b"\n", &[]).await.map_err(lost)?;
        match self.message().await.map_err(Refusal::End)? {
            Message::Adopted {} => Ok(child),
            other => Err(Refusal::End(unexpected(&other))),
        }
    }

    /// Resolves when the process is gone, or has said what no one asked for.
    pub(super) async fn lost(&mut self) -> End {
        match self.message().await {
            Ok(message) => unexpected(&message),
            Err(end) => end,
        }
    }

    /// Returns its process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Ends the process, and what it has forked and not handed over.
    pub(super) async fn end(mut self) {
        self.process.kill();
        let _ = self.process.ended().await;
    }

    async fn message(&mut self) -> Result<Message, End> {
        match self.messages.next_line().await {
            Ok(Some(line)) => {
                serde_json::from_str(&line).map_err(|error| End::Lost(error.to_string()))
            }
            Ok(None) | Err(_) => {
                Err(End::Lost(match timeout(EXIT_TIME, self.process.ended()).await {
                    Ok(Ok(status)) => describe(status).reason,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "it closed its connection".into(),
                }))
            }
        }
    }

    async fn send(&self, message: &Value, files: &[OwnedFd]) -> io::Result<()> {
        self.send_line(format!("{message}\n").as_bytes(), files).await
    }

    /// Sends bytes, the first with these files.
    async fn send_line(&self, mut bytes: &[u8], files: &[OwnedFd]) -> io::Result<()> {
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut files = &files[..];
        let socket: &UnixStream = self.socket.as_ref();
        while !bytes.is_empty() {
            let sent = socket.async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !files.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(files));
                }
                Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
            });
            bytes = &bytes[sent.await?..];
            files = &[];
        }
        Ok(())
    }
}

/// Returns the order that the process reads from its standard input.
fn order(spec: &TemplateSpec, label: &Label) -> Value {
    json!({
        "mark": label.secret,
        "log_level": spec.log_level,
        "template": {
            "modules": spec.modules,
            "path": spec.path,
            "cpu_affinity": spec.cpu_affinity,
            "server": std::process::id(),
        },
    })
}

/// Returns the first of these names, and the number of the others.
fn shown(modules: &[String]) -> String {
    let first = modules[..modules.len().min(SHOWN_MODULES)].join(", ");
    match modules.len().saturating_sub(SHOWN_MODULES) {
        0 => first,
        others => format!("{first} and {others} others"),
    }
}

fn unexpected(message: &Message) -> End {
    End::Lost(format!("it said {message:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_eight_modules_and_counts_the_others() {
        let names = |number| (0..number).map(|n| format!("m{n}")).collect::<Vec<_>>();
        assert_eq!(shown(&names(2)), "m0, m1");
        assert!(shown(&names(8)).ends_with("m6, m7"));
        assert!(shown(&names(10)).ends_with("m7 and 2 others"));
    }

    #[test]
    fn messages_are_read_as_the_process_writes_them() {
        let read = |text| serde_json::from_str::<Message>(text);
        assert!(matches!(read(r#"{"forked": {"pid": 7}}"#), Ok(Message::Forked { pid: 7 })));
        assert!(matches!(read(r#"{"adopted": {}}"#), Ok(Message::Adopted {})));
        let ready = r#"{"ready": {"modules": ["torch"], "seconds": 1.5}}"#;
        assert!(matches!(read(ready), Ok(Message::Ready { modules, .. }) if modules == ["torch"]));
        assert!(read(r#"{"other": {}}"#).is_err());
    }
}
