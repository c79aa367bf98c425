//! Python processes, mostly of workers: their start, such that they cannot outlive this process, and
//! their end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use litplex_core::{Cause, WorkerExit, size_in_words};
use litplex_devices::Cgroup;
use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal,
    test_kill_process_group,
};
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use super::adopted::Adopted;
use super::order::Order;
use super::output::{Label, Output};
use super::pipes::StandardStreams;
use crate::Error;

/// The time that the processes which a process leaves behind have to end before they are killed.
/// Python's resource tracker needs it to remove semaphores and shared memory, once the processes that
/// use them are gone.
pub(super) const CLEAN_UP: Duration = Duration::from_millis(500);

/// The time between two checks whether they have ended.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The variables that are for the server alone: it notifies systemd, which may pass it sockets, and reports to
/// the server that it replaces.
pub const FOR_SERVERS: [&str; 6] = [
    "NOTIFY_SOCKET",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LITPLEX_PREDECESSOR",
    "LITPLEX_KEEPER",
];

/// A command to start.
pub(crate) struct Command<'a> {
    pub(crate) interpreter: &'a Path,
    /// The options of the interpreter.
    pub(crate) flags: &'a [String],
    /// The directory with the `__main__.py` to run.
    pub(crate) code: PathBuf,
    /// Environment variables to add.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// Environment variables of this process that the command does not get.
    pub(crate) secrets: &'a [String],
    /// The working directory, if it is not this process's own.
    pub(crate) cwd: Option<&'a Path>,
    /// The bytes of memory to which the kernel limits the process, where it can.
    pub(crate) memory_limit: Option<u64>,
}

/// A child of this program.
#[derive(Debug)]
enum Handle {
    /// This program started it.
    Started(Child),
    /// A template forked it for this program.
    Adopted(Adopted),
}

impl Handle {
    fn id(&self) -> Option<u32> {
        match self {
            Self::Started(child) => child.id(),
            Self::Adopted(child) => child.id(),
        }
    }

    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        match self {
            Self::Started(child) => child.wait().await,
            Self::Adopted(child) => child.wait().await,
        }
    }
}

/// A running process. On drop it is killed, with all processes that it started.
pub(crate) struct Process {
    child: Handle,
    group: Option<Pid>,
    output: Option<Output>,
    cgroup: Option<Cgroup>,
}

impl Process {
    /// Starts a process and sends its order. The file of the order is sent while the process starts.
    pub(crate) async fn start(
        command: &Command<'_>,
        label: &Label,
        order: Order<'_>,
    ) -> Result<Self, Error> {
        let mut child =
            start(&mut spawnable(command)).map_err(|error| cannot_start(command, error))?;
        let output = copy_output(&mut child, label);
        let stdin = child.stdin.take();
        let mut process = Self::new(Handle::Started(child));
        process.output = output;
        process.confine(command.memory_limit);
        if let Some(stdin) = stdin {
            order.send(stdin).await;
        }
        Ok(process)
    }

    /// Starts a process that has a socket as its standard input; returns this program's end.
    pub(crate) fn start_with_socket(
        command: &Command<'_>,
        label: &Label,
    ) -> Result<(Self, std::os::unix::net::UnixStream), Error> {
        let cannot = |error| cannot_start(command, error);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(cannot)?;
        let mut command = spawnable(command);
        let mut child = start(command.stdin(std::os::fd::OwnedFd::from(theirs))).map_err(cannot)?;
        let output = copy_output(&mut child, label);
        let mut process = Self::new(Handle::Started(child));
        process.output = output;
        Ok((process, ours))
    }

    /// Takes over a worker that was forked, and sends its order.
    pub(crate) async fn adopt(
        child: Adopted,
        streams: StandardStreams,
        memory_limit: Option<u64>,
        label: &Label,
        order: Order<'_>,
    ) -> Self {
        let StandardStreams { stdin, stdout, stderr } = streams;
        let mut process = Self::new(Handle::Adopted(child));
        let file = |end: std::io::PipeReader| File::from(std::os::fd::OwnedFd::from(end));
        process.output = Some(Output::copy(label, file(stdout), file(stderr)));
        process.confine(memory_limit);
        if let Ok(stdin) = pipe::Sender::from_owned_fd(stdin.into()) {
            order.send(stdin).await;
        }
        process
    }

    fn new(child: Handle) -> Self {
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        Self { child, group, output: None, cgroup: None }
    }

    /// Lets the kernel limit the memory of the process, where it can. No code of a model runs before the
    /// process has read its order.
    fn confine(&mut self, limit: Option<u64>) {
        let id = self.child.id();
        self.cgroup = limit.zip(id).and_then(|(limit, id)| confine(id, limit));
    }

    /// Sets whether the process may move memory to swap, where the kernel limits its memory.
    pub(crate) fn allow_swap(&self, is_allowed: bool) {
        if let Some(Err(error)) = self.cgroup.as_ref().map(|cgroup| cgroup.allow_swap(is_allowed)) {
            tracing::debug!("its swap cannot be set: {error}");
        }
    }

    /// Returns the process id, which the system may give to another process once this one is gone.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Resolves when the process is gone and its output was copied.
    pub(crate) async fn gone(&mut self) -> WorkerExit {
        let status = self.ended().await;
        if let Some(output) = self.output.take() {
            output.finished().await;
        }
        if let Some(limit) = self.cgroup.as_ref().and_then(Cgroup::exceeded) {
            return WorkerExit::new(Cause::Memory, exhausted(limit));
        }
        match status {
            Ok(status) => describe(status),
            Err(error) => {
                WorkerExit::new(Cause::Exit, format!("its process cannot be waited for: {error}"))
            }
        }
    }

    /// Starts a command that has its own outputs.
    pub(crate) fn spawn(command: std::process::Command) -> std::io::Result<Self> {
        Ok(Self::new(Handle::Started(start(&mut tied(command))?)))
    }

    /// Resolves when the process is gone, with how it ended.
    pub(crate) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        let id = self.child.id();
        let status = self.child.wait().await;
        forget(id);
        // The processes that it started end with it; they would keep the pipes open. The group's id is
        // not used after this: the system may give it to another group.
        if let Some(group) = self.group {
            end_group(group).await;
        }
        self.group = None;
        status
    }

    /// Asks the process to end.
    pub(crate) fn terminate(&self) {
        if let Some(process) = self.group {
            let _ = kill_process(process, Signal::TERM);
        }
    }

    /// Kills the process. `ended`, or else the drop of this value, ends the processes that it started.
    pub(crate) fn kill(&self) {
        if let Some(process) = self.group {
            // The process may be gone already.
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("child", &self.child).finish_non_exhaustive()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Ends the processes of a group whose leader is gone: terminates them, and kills those that stay.
async fn end_group(group: Pid) {
    let _ = kill_process_group(group, Signal::TERM);
    // They may be stopped, because the process was interrupted for the turn of another worker.
    let _ = kill_process_group(group, Signal::CONT);
    let begin = Instant::now();
    while test_kill_process_group(group).is_ok() && begin.elapsed() < CLEAN_UP {
        sleep(LOOK_EVERY).await;
    }
    let _ = kill_process_group(group, Signal::KILL);
}

/// The processes that this program started and has not waited for. There is one list, as the system
/// has one: a child that is not in it is an adopted orphan.
static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Calls a function with the processes that were started here, while none is started.
pub(super) fn with_known_children(act: impl FnOnce(&BTreeSet<u32>)) {
    act(&CHILDREN.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Starts a command, and lists its process before it can be taken for an orphan.
pub(super) fn start(command: &mut tokio::process::Command) -> std::io::Result<Child> {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    children.extend(child.id());
    Ok(child)
}

/// Starts a command whose process may outlive this one, and lists it as `start` does.
///
/// # Errors
/// The error of the system.
pub fn start_beside(command: &mut std::process::Command) -> std::io::Result<std::process::Child> {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    children.insert(child.id());
    Ok(child)
}

/// Lists a process that another one has started, and that becomes a child of this one.
pub fn list_beside(id: u32) {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
}

/// Removes a process of [`start_beside`] or [`list_beside`] that was waited for.
pub fn forget_beside(id: u32) {
    forget(Some(id));
}

/// Removes a process that was waited for: the system may give its id to another.
pub(super) fn forget(id: Option<u32>) {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    children.retain(|child| Some(*child) != id);
}

fn spawnable(spec: &Command<'_>) -> tokio::process::Command {
    let mut command = std::process::Command::new(spec.interpreter);
    spec.secrets.iter().for_each(|name| _ = command.env_remove(name));
    FOR_SERVERS.iter().for_each(|name| _ = command.env_remove(name));
    // `-u`, because child processes of the worker would inherit PYTHONUNBUFFERED.
    command
        .arg("-u")
        .args(spec.flags)
        .arg(&spec.code)
        .envs(spec.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(directory) = spec.cwd {
        command.current_dir(directory);
    }
    tied(command)
}

/// Ties the process of a command to this process.
fn tied(mut command: std::process::Command) -> tokio::process::Command {
    // A group of its own: Ctrl-C in a terminal is for the server, which then drains.
    command.process_group(0);
    die_with_parent(&mut command);
    let mut command = tokio::process::Command::from(command);
    // For the time before there is a `Process`.
    command.kill_on_drop(true);
    command
}

/// Makes the kernel kill the process when the thread that started it is gone, however this process
/// ends. That thread is the runtime's, which lives as long as the server.
#[expect(unsafe_code, reason = "the only way to run prctl between fork and exec")]
fn die_with_parent(command: &mut std::process::Command) {
    let parent = rustix::process::getpid();
    let guard = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // If the parent died before the line above, no signal would kill this process.
        if rustix::process::getppid() != Some(parent) {
            return Err(std::io::Error::other("the server is gone"));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: prctl and getppid
    // are system calls, and the error allocates only when the process is about to end.
    unsafe { command.pre_exec(guard) };
}

fn confine(process: u32, limit: u64) -> Option<Cgroup> {
    let cgroup = Cgroup::create(limit)?;
    match cgroup.admit(process) {
        Ok(()) => Some(cgroup),
        Err(error) => {
            tracing::warn!("`memory_limit` is watched, not enforced: {error}");
            None
        }
    }
}

/// Describes that the kernel ended a process at its memory limit.
fn exhausted(limit: u64) -> String {
    let limit = size_in_words(limit);
    format!(
        "it needed more than the {limit} that it may use (`memory_limit`); the kernel killed it"
    )
}

fn copy_output(child: &mut Child, label: &Label) -> Option<Output> {
    let stdout = child.stdout.take()?.into_owned_fd().ok()?;
    let stderr = child.stderr.take()?.into_owned_fd().ok()?;
    Some(Output::copy(label, File::from(stdout), File::from(stderr)))
}

fn cannot_start(spec: &Command<'_>, error: std::io::Error) -> Error {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound if spec.cwd.is_some_and(|cwd| !cwd.is_dir()) => {
            format!("its directory `{}` does not exist", shown(spec.cwd))
        }
        std::io::ErrorKind::NotFound => {
            "there is no such interpreter; create the environment or correct `python`".into()
        }
        _ => error.to_string(),
    };
    Error::Start { interpreter: spec.interpreter.to_owned(), hint, source: error }
}

fn shown(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

pub(crate) fn describe(status: ExitStatus) -> WorkerExit {
    match (status.code(), status.signal()) {
        (Some(code), _) => {
            WorkerExit::new(Cause::Exit, format!("its process exited with status {code}"))
        }
        (None, Some(signal)) => {
            WorkerExit::new(Cause::Signal, format!("its process was killed by signal {signal}"))
        }
        (None, None) => WorkerExit::new(Cause::Exit, "its process ended"),
    }
}
