//! The `litplex` command.

mod env;
mod key;
mod ps;
mod say;
mod scale;
mod servers;
mod table;

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use litplex::{ConfigError, Error, Program};
use tokio::sync::oneshot;

use crate::say::{ReaderGone, say, written};

/// One to two parts in twenty faster than the system's allocator with many small bodies.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One server, many different models.
///
/// Serve a Python file that builds its servers, or a TOML file that lists endpoints. Every
/// endpoint has its own queue, batching, workers and interpreter.
#[derive(Parser)]
#[command(name = "litplex", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

const AFTER_HELP: &str = "\
Examples:
  litplex serve server.py              what `python server.py` serves
  litplex serve litplex.toml --port 80  endpoints of a file, on another port
  litplex check litplex.toml            say what is wrong, or what would be served
  litplex ps                           what is running: endpoints, load, workers
  litplex scale /ocr 4                 let four workers of an endpoint run

A minimal litplex.toml:
  [[endpoint]]
  path = \"/ocr\"
  api = \"ocr.py:OcrAPI\"

LITPLEX_LOG chooses what is logged: `warn`, `debug`, `litplex_workers=debug`;
LITPLEX_LOG_FORMAT=json makes each line an object.
Exit status:
  0  done; a server stopped as asked, by SIGINT (Ctrl-C), SIGTERM, SIGHUP or SIGQUIT:
     requests in flight are answered first, a second signal stops at once
  1  the address is taken, or the system refuses something
  2  the program, its configuration or the command is wrong; nothing was started
  3  a model, or the program's app, could not be loaded
  141  the reader of standard output has gone, as in `litplex ps | head -1`
`python server.py` exits with the same, but for mistakes, which it raises (1).";

#[derive(Subcommand)]
enum Verb {
    /// Serve until Ctrl-C or SIGTERM; requests in flight are answered first
    Serve(Serve),
    /// Check a program, and print its endpoints as they would be served
    Check(Check),
    /// Make a key for somebody who may call, and the line of `api_keys_file` that lets it in
    Key(key::Key),
    /// Show what is running: endpoints with their state and load, and their workers
    Ps(ps::Ps),
    /// Let another number of an endpoint's workers run, while it serves
    Scale(scale::Scale),
    /// Show or remove the virtual environments that were made from `requirements`
    Env(env::Env),
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    source: Option<Source>,
    /// Address to listen on [default: what the program says, else 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on, 0 for a free one [default: what the program says, else 8000]
    #[arg(long)]
    port: Option<u16>,
    /// PEM file with a certificate, to serve HTTPS [default: what the program says, else HTTP]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// PEM file with the certificates that must have signed those of clients
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Read the program from standard input, as the Python SDK writes it, and stop when it closes
    #[arg(long, hide = true, conflicts_with = "file")]
    program: bool,
}

#[derive(Args)]
#[command(after_help = CHECK_HELP)]
struct Check {
    #[command(flatten)]
    source: Source,
    /// Show all settings, also those that are as by default
    #[arg(long)]
    all: bool,
    /// Load every model too, with `setup`, as the server would; then end
    #[arg(long)]
    load: bool,
    /// Seconds that importing one model may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u32,
}

const CHECK_HELP: &str = "\
Each Python model is imported and made by its own interpreter, in its own environment; `setup` does not
run without --load. So what is found is: options, files, devices, interpreters, modules, classes, `args`
and hooks that are missing or wrong.

Exit status: 0 nothing is wrong, 2 something is, 3 a model could not be loaded (--load).";

#[derive(Args)]
struct Source {
    /// A Python file that serves, or a TOML file that lists endpoints
    #[arg(value_name = "SERVER.PY|LITPLEX.TOML")]
    file: PathBuf,
    /// Interpreter that reads a Python file [default: the one that litplex was installed for]
    #[arg(long)]
    python: Option<PathBuf>,
    /// Arguments for a Python file
    #[arg(last = true)]
    args: Vec<OsString>,
}

fn main() -> ExitCode {
    let done = Cli::try_parse().map_or_else(|told| print_help_or_mistake(&told), run_command);
    done.unwrap_or_else(|error| {
        if !error.is::<ReaderGone>() {
            // Nobody may be left who reads it; the status says it all the same.
            let _ = writeln!(io::stderr(), "error: {error:#}");
        }
        exit_code(&error)
    })
}

/// Prints what was asked for (`--help`, `--version`), or what is wrong with the command.
fn print_help_or_mistake(told: &clap::Error) -> anyhow::Result<ExitCode> {
    let printed = told.print();
    if !told.use_stderr() {
        written(printed)?;
    }
    Ok(ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2)))
}

fn run_command(cli: Cli) -> anyhow::Result<ExitCode> {
    run(cli).map(|()| ExitCode::SUCCESS)
}

/// Returns the exit status of an error, as [`AFTER_HELP`] says.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(match error.downcast_ref::<Error>() {
        Some(Error::Config(_)) => 2,
        Some(Error::Launch { .. } | Error::AppHost(_)) => 3,
        _ if error.is::<ConfigError>() => 2,
        _ if error.is::<ReaderGone>() => ReaderGone::STATUS,
        _ => 1,
    })
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Verb::Serve(serve) => run_serve(serve),
        Verb::Check(check) => run_check(&check),
        Verb::Key(key) => key::run(&key),
        Verb::Ps(ps) => ps::run(&ps),
        Verb::Scale(scale) => scale::run(&scale),
        Verb::Env(env) => env::run(&env),
    }
}

fn run_check(check: &Check) -> anyhow::Result<()> {
    let program = load(&check.source)?;
    say(&program.check(Duration::from_secs(check.timeout.into()))?.describe(check.all))?;
    if check.load {
        program.load()?;
        say("\nloaded: all endpoints\n")?;
    }
    Ok(())
}

fn run_serve(serve: Serve) -> anyhow::Result<()> {
    if serve.program {
        return run_from_sdk();
    }
    let Some(source) = serve.source else {
        return Err(wrong("name a Python or TOML file to serve; `litplex serve --help` shows how"));
    };
    let mut program = load(&source)?.listen(serve.host, serve.port);
    if let (Some(cert), Some(key)) = (serve.tls_cert, serve.tls_key) {
        program = program.tls(cert, key, serve.tls_client_ca);
    }
    Ok(program.adopt_orphans().run(std::future::pending())?)
}

/// Serves what the SDK writes to our standard input, for as long as it holds it open.
fn run_from_sdk() -> anyhow::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut line = String::new();
    stdin.read_line(&mut line).context("cannot read the program")?;
    drop(stdin);
    let program = Program::from_sdk(&line)?;
    let (closed, parent_gone) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = closed.send(());
    });
    Ok(program.adopt_orphans().run(async { drop(parent_gone.await) })?)
}

fn load(source: &Source) -> anyhow::Result<Program> {
    let file = &source.file;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("py") => load_python(source),
        Some("toml") => {
            let text = fs::read_to_string(file)
                .map_err(|error| wrong(format!("cannot read {}: {error}", file.display())))?;
            Ok(Program::from_toml(&text, file)?)
        }
        _ => Err(wrong(format!(
            "{} is neither a Python file (.py) nor a TOML file (.toml)",
            file.display()
        ))),
    }
}

/// Says that the program or the command is wrong.
fn wrong(mistake: impl Into<String>) -> anyhow::Error {
    ConfigError(vec![mistake.into()]).into()
}

/// Asks the file what it serves: it runs up to the call that would.
fn load_python(source: &Source) -> anyhow::Result<Program> {
    if !source.file.is_file() {
        return Err(wrong(format!("there is no file {}", source.file.display())));
    }
    let python = source.python.clone().unwrap_or_else(litplex::default_interpreter);
    let mut child = Command::new(&python)
        .args(["-m", "litplex._describe"])
        .arg(&source.file)
        .args(&source.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| wrong(format!("cannot start {}: {error}", python.display())))?;
    let mut text = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut text).context("cannot read the program")?;
    }
    let text = String::from_utf8_lossy(&text);
    // It holds what it hands over until its standard input is closed.
    let program = (!text.is_empty()).then(|| Program::from_sdk(&text));
    drop(child.stdin.take());
    let status = child.wait().with_context(|| format!("cannot wait for {}", python.display()))?;
    match program {
        Some(program) if status.success() => Ok(program?),
        // It has said what is wrong.
        _ if status.code() == Some(2) => std::process::exit(2),
        _ => Err(wrong(format!("{} {}", source.file.display(), describe_failure(&python)))),
    }
}

fn describe_failure(python: &Path) -> String {
    format!(
        "did not say what it serves; the reason is above (is litplex installed for {}?)",
        python.display()
    )
}
