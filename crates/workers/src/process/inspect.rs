//! The inspection of a model without its setup: the model's interpreter imports it, makes the
//! instance and describes it. `_worker/_check.py` is the other side.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use litplex_dirs::Cache;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::child::{Process, describe};
use super::launch::pickle;
use super::sdk::Sdk;
use super::spec::Overrides;
use super::venv::Venv;
use crate::Error;

/// The number of a program's last lines that are shown when its interpreter fails.
const LAST_LINES: usize = 15;

/// The model to inspect.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The endpoint's path.
    pub endpoint: String,
    /// As in [`ProcessSpec`](crate::ProcessSpec).
    pub interpreter: PathBuf,
    /// As in [`ProcessSpec`](crate::ProcessSpec).
    pub requirements: Option<PathBuf>,
    /// As in [`ProcessSpec`](crate::ProcessSpec).
    pub sdk: Sdk,
    /// As in [`ProcessSpec`](crate::ProcessSpec).
    pub cache: Option<Cache>,
    /// As in [`ProcessSpec`](crate::ProcessSpec).
    pub secrets: Vec<String>,
    /// As in [`ProcessSpec`](crate::ProcessSpec).
    pub env: BTreeMap<String, String>,
    /// As in [`ProcessSpec`](crate::ProcessSpec).
    pub cwd: Option<PathBuf>,
    /// As in [`WorkerSpec`](crate::WorkerSpec).
    pub pythonpath: Vec<PathBuf>,
    /// As in [`WorkerSpec`](crate::WorkerSpec).
    pub load: Value,
    /// The device of the endpoint's first worker.
    pub device: String,
    /// As in [`WorkerSpec`](crate::WorkerSpec).
    pub overrides: Overrides,
    /// The time that the import of the model has.
    pub limit: Duration,
}

/// The interpreter's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    error: Option<String>,
    traceback: Option<String>,
    #[serde(flatten)]
    model: Inspected,
}

/// The description of a model that was inspected.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Inspected {
    /// Whether the model's environment does not exist yet, so that no other field is known.
    #[serde(skip)]
    pub is_unmade: bool,
    /// The most items in a batch.
    pub max_batch_size: Option<usize>,
    /// The time that a batch may wait to fill, in seconds.
    pub batch_timeout: Option<f64>,
    /// Whether responses are streams.
    pub stream: Option<bool>,
    /// The path of the model's dialect, if it has one.
    pub spec: Option<String>,
    /// Whether the model is offered as a tool.
    #[serde(default)]
    pub tool: bool,
    /// The paths or names of the endpoints that it declares to call.
    #[serde(default)]
    pub calls: Vec<String>,
    /// The schemas of its requests and responses, as in its `ready` message.
    #[serde(default)]
    pub schema: Value,
    /// The most batches, or single requests, that a worker computes at the same time.
    pub concurrency: Option<usize>,
}

/// Inspects a model in its own interpreter and environment.
///
/// # Errors
/// The model is wrong, with a traceback if its own code raised, or its interpreter does not run.
pub async fn inspect(inspection: &Inspection) -> Result<Inspected, Error> {
    let mut interpreter = inspection.interpreter.clone();
    let Inspection { endpoint, requirements, cache, secrets, .. } = inspection;
    if let (Some(requirements), Some(cache)) = (requirements, cache) {
        let interpreter_of_venv = &inspection.interpreter;
        let venv =
            Venv { endpoint, interpreter: interpreter_of_venv, requirements, cache, secrets };
        match venv.found().await? {
            Some(python) => interpreter = python,
            None => return Ok(Inspected { is_unmade: true, ..Inspected::default() }),
        }
    }
    let found = look(inspection, interpreter).await?;
    match found.error {
        None => Ok(found.model),
        Some(reason) => Err(Error::Model { reason, traceback: found.traceback }),
    }
}

async fn look(inspection: &Inspection, interpreter: PathBuf) -> Result<Answer, Error> {
    // Files hold all that the program prints, and are removed when this returns.
    let mut files = Files::new(inspection).map_err(Error::Inspect)?;
    let command = command(inspection, &interpreter, &files)?;
    let mut process = Process::spawn(command)
        .map_err(|source| Error::InspectStart { interpreter: interpreter.clone(), source })?;
    let Ok(status) = timeout(inspection.limit, process.ended()).await else {
        return Err(Error::InspectTimeout(inspection.limit.as_secs_f64()));
    };
    let status = status.map_err(Error::Inspect)?;
    let answer = read(&mut files.answer).map_err(Error::Inspect)?;
    serde_json::from_str(&answer).map_err(|_| {
        let (reason, output) = (describe(status).reason, files.last_lines());
        Error::InspectFailed { interpreter, reason, output }
    })
}

fn command(inspection: &Inspection, interpreter: &Path, files: &Files) -> Result<Command, Error> {
    let Inspection { sdk, env, cwd, secrets, .. } = inspection;
    let copy = |file: &File| file.try_clone().map(Stdio::from).map_err(Error::Inspect);
    let mut command = Command::new(interpreter);
    command
        .arg(sdk.package()?.join("_worker"))
        .arg("--check")
        .envs(env)
        .stdin(copy(&files.order)?)
        .stdout(copy(&files.answer)?)
        .stderr(copy(&files.printed)?);
    secrets.iter().for_each(|name| _ = command.env_remove(name));
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    Ok(command)
}

/// The temporary files that are the standard streams of an inspection.
struct Files {
    order: File,
    answer: File,
    printed: File,
}

impl Files {
    fn new(inspection: &Inspection) -> io::Result<Self> {
        let mut order = tempfile::tempfile()?;
        write_order(&mut order, inspection)?;
        Ok(Self { order, answer: tempfile::tempfile()?, printed: tempfile::tempfile()? })
    }

    /// Returns the last lines that the program printed.
    fn last_lines(&mut self) -> String {
        let lines = read(&mut self.printed).unwrap_or_default();
        let from = lines.lines().count().saturating_sub(LAST_LINES);
        lines.lines().skip(from).collect::<Vec<_>>().join("\n")
    }
}

/// Writes the order in a line, and after it the pickle, if the model is one.
fn write_order(to: &mut File, inspection: &Inspection) -> io::Result<()> {
    writeln!(to, "{}", order_of(inspection))?;
    if let Some(path) = pickle(&inspection.load) {
        io::copy(&mut File::open(path)?, to)?;
    }
    to.rewind()
}

fn order_of(inspection: &Inspection) -> Value {
    let Overrides { max_batch_size, batch_timeout, stream, max_concurrency } = inspection.overrides;
    json!({
        "load": inspection.load,
        "pythonpath": inspection.pythonpath,
        "device": inspection.device,
        "setup": {
            "max_batch_size": max_batch_size,
            "batch_timeout": batch_timeout.map(|timeout| timeout.as_secs_f64()),
            "stream": stream,
            "max_concurrency": max_concurrency,
        },
    })
}

fn read(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
