//! Looking at a model without setting it up: its interpreter imports it, makes the instance and
//! says what it is like. `_worker/_check.py` is the other side.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
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

/// How much of what a program printed is shown when its interpreter fails.
const LAST_LINES: usize = 15;

/// What is looked at.
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
    /// The device of its first worker.
    pub device: String,
    /// As in [`WorkerSpec`](crate::WorkerSpec).
    pub overrides: Overrides,
    /// How long it may take.
    pub limit: Duration,
}

/// What the interpreter says.
#[derive(Debug, Deserialize)]
struct Answer {
    error: Option<String>,
    traceback: Option<String>,
    #[serde(flatten)]
    model: Inspected,
}

/// What is known of a model that was looked at.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Inspected {
    /// Whether its environment is not made yet, so that nothing else is known.
    #[serde(skip)]
    pub is_unmade: bool,
    /// The most items in a batch.
    pub max_batch_size: Option<usize>,
    /// How many seconds a batch may wait to fill.
    pub batch_timeout: Option<f64>,
    /// Whether its answers are streams.
    pub stream: Option<bool>,
    /// The path of the protocol that it speaks, where it has one.
    pub spec: Option<String>,
    /// Whether it is offered as a tool.
    #[serde(default)]
    pub tool: bool,
}

/// Looks at a model in its own interpreter and environment.
///
/// # Errors
/// What is wrong with it, with a traceback where its own code raised.
pub async fn inspect(inspection: &Inspection) -> Result<Inspected, String> {
    let mut interpreter = inspection.interpreter.clone();
    let Inspection { endpoint, requirements, cache, secrets, .. } = inspection;
    if let (Some(requirements), Some(cache)) = (requirements, cache) {
        let interpreter_of_venv = &inspection.interpreter;
        let venv =
            Venv { endpoint, interpreter: interpreter_of_venv, requirements, cache, secrets };
        match venv.found().await.map_err(|error| error.to_string())? {
            Some(python) => interpreter = python,
            None => return Ok(Inspected { is_unmade: true, ..Inspected::default() }),
        }
    }
    let found = look(inspection, interpreter).await?;
    match (&found.error, &found.traceback) {
        (None, _) => Ok(found.model),
        (Some(error), None) => Err(error.clone()),
        (Some(error), Some(traceback)) => Err(format!("{error}\n\n{traceback}\n")),
    }
}

async fn look(inspection: &Inspection, interpreter: PathBuf) -> Result<Answer, String> {
    let Inspection { sdk, env, cwd, limit, secrets, .. } = inspection;
    let package = sdk.package().map_err(|error| error.to_string())?;
    let refused = |error: io::Error| format!("it cannot be looked at: {error}");
    // Files take all that it prints, however much, and end with this.
    let (mut order, mut answer, mut printed) =
        (file().map_err(refused)?, file().map_err(refused)?, file().map_err(refused)?);
    write_order(&mut order, inspection).map_err(refused)?;
    let mut command = Command::new(&interpreter);
    command
        .arg(package.join("_worker"))
        .arg("--check")
        .envs(env)
        .stdin(Stdio::from(order))
        .stdout(Stdio::from(answer.try_clone().map_err(refused)?))
        .stderr(Stdio::from(printed.try_clone().map_err(refused)?));
    secrets.iter().for_each(|name| _ = command.env_remove(name));
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    let cannot_start =
        |error| format!("cannot start its interpreter `{}`: {error}", interpreter.display());
    let mut process = Process::spawn(command).map_err(cannot_start)?;
    let ended = timeout(*limit, process.ended()).await;
    let Ok(status) = ended else {
        return Err(format!(
            "importing it takes more than {} s; let `--timeout` be longer",
            limit.as_secs_f64()
        ));
    };
    let status = status.map_err(refused)?;
    let said = read(&mut answer).map_err(refused)?;
    serde_json::from_str(&said).map_err(|_| {
        let lines = read(&mut printed).unwrap_or_default();
        let from = lines.lines().count().saturating_sub(LAST_LINES);
        let last: Vec<_> = lines.lines().skip(from).collect();
        let interpreter = interpreter.display();
        let how = describe(status).reason;
        format!("it cannot be looked at by `{interpreter}`: {how}\n{}", last.join("\n"))
    })
}

/// Writes the order in a line, and the pickle after it where the model is one.
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

fn file() -> io::Result<File> {
    tempfile::tempfile()
}

fn read(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
