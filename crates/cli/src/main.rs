//! The `litplex` command: arguments, exit statuses and one module per subcommand. Serving itself is in
//! `litplex` and `server`.

mod call;
mod config;
mod development;
mod env;
mod events;
mod failure;
mod fit;
mod generations;
mod import;
mod init;
mod key;
mod level;
mod logs;
mod operate;
mod promote;
mod ps;
mod reload;
mod requests;
mod rollback;
mod say;
mod scale;
mod servers;
mod stack;
mod stop;
mod table;
mod top;
mod trace;
mod upgrade;
mod validate;
mod wrong;

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use litplex::{FOR_SERVERS, Inherited, Program, PythonProgram, StartCommand};
use litplex_admin::Mode;
use tokio::sync::oneshot;

use crate::failure::{Printed, described, exit_status};
use crate::say::{say, written};
use crate::wrong::wrong;

/// 5 to 10 % faster than the system's allocator with many small bodies.
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
  litplex serve server.py              serve the same as `python server.py`
  litplex serve server.py --reload     serve, and apply each save of its files
  litplex serve litplex.toml --port 80  serve the endpoints of a file, on another port
  litplex check litplex.toml            show all errors, or what would be served
  litplex ps                           show running servers: endpoints, load, workers
  litplex scale /ocr 4                 run four workers for an endpoint
  litplex logs -f                      follow the log of the server
  litplex requests --slowest           show the slowest requests, and why: litplex trace ID
  litplex call /ocr -f page.png        call an endpoint, as its schema asks
  litplex init words                   write the files of a new project

A minimal litplex.toml:
  [[endpoint]]
  path = \"/ocr\"
  api = \"ocr.py:OcrAPI\"

LITPLEX_LOG sets the log level: `warn`, `debug`, `litplex_workers=debug`;
LITPLEX_LOG_FORMAT=json writes each line as a JSON object.
Exit status:
  0  success; a server stopped as requested, by SIGINT (Ctrl-C), SIGTERM, SIGQUIT or the end of
     its terminal: requests in flight are answered first, a second signal stops at once
  1  the address is in use, the system refuses an operation, or a reload fails
  2  the program, its configuration or the command is wrong; nothing was started
  3  a model, or the program's app, could not be loaded
  141  the reader of standard output has closed it, as in `litplex ps | head -1`
`python server.py` exits with the same status, except for errors in the program: it
raises them (status 1).";

#[derive(Subcommand)]
enum Verb {
    /// Serve until Ctrl-C or SIGTERM; requests in flight are answered first
    Serve(Serve),
    /// Check a program, and print its endpoints as they would be served
    Check(Check),
    /// Write the files of a new project: a model, its configuration, a test and a Dockerfile
    Init(init::Init),
    /// Call an endpoint: send JSON, a text or files as its schema asks, and show the response
    Call(call::Call),
    /// Create a key for a caller, and its line for `api_keys_file`
    Key(key::Key),
    /// Show running servers: endpoints with their state and load, and their workers
    Ps(ps::Ps),
    /// Show the load of the endpoints, live, and why one is slow
    Top(top::Top),
    /// Show which models fit into memory together, and which one leaves for which
    Fit(fit::Fit),
    /// Load a model, call it, unload it, and call it again: is its memory back, and is its answer the same?
    Validate(validate::Validate),
    /// Set the number of an endpoint's workers, while it serves
    Scale(scale::Scale),
    /// Apply what has changed in the program, or replace the workers of an endpoint, while it serves
    Reload(reload::Reload),
    /// Make the canary, or the shadow, of an endpoint its live generation
    Promote(promote::Promote),
    /// End the trial of a generation, or return to an earlier generation of its workers
    Rollback(rollback::Rollback),
    /// Show the last generations of an endpoint's workers
    Generations(generations::Generations),
    /// Hold the requests of an endpoint in its queue
    Pause(operate::Operate),
    /// Let an endpoint finish its requests, and refuse new ones
    Drain(operate::Operate),
    /// Let an endpoint serve that was paused or drained
    Resume(operate::Operate),
    /// Show the last lines of a server's log, or follow it
    Logs(logs::Logs),
    /// Show the options that a running server uses, and who may use it
    Config(config::Config),
    /// Show the last requests of a server, or the slowest: how long each waited and was computed
    Requests(requests::Requests),
    /// Show where the time of one request went, as a waterfall
    Trace(trace::Trace),
    /// Show what happened to a server and its workers, or follow it
    Events(events::Events),
    /// Show or set the level of a server's log
    LogLevel(level::Level),
    /// Show what a worker does: the stacks of all its threads
    Stack(stack::Stack),
    /// Replace a server by a new process of its program, with the present executable and code
    Upgrade(upgrade::Upgrade),
    /// Stop a server: requests in progress are answered first
    Stop(stop::Stop),
    /// Print an inference graph of another server as a pipeline in TOML
    Import(import::Import),
    /// Show or remove the virtual environments that were created from `requirements`
    Env(env::Env),
    /// Print the completions of this command for a shell
    Completions(Completions),
}

#[derive(Args)]
#[command(after_help = "Example: litplex completions bash > /etc/bash_completion.d/litplex")]
struct Completions {
    shell: clap_complete::Shell,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    source: Option<Source>,
    /// Address to listen on [default: the program's, else 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// Port to listen on, 0 for a free one [default: the program's, else 8000]
    #[arg(long)]
    port: Option<u16>,
    /// PEM file with a certificate, to serve HTTPS [default: the program's, else HTTP]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// PEM file with the authorities that must have signed the certificates of clients
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// For development: apply each save of a source file while serving
    #[arg(long)]
    reload: bool,
    /// Wait for a change since this time first, in nanoseconds since 1970; set by `--reload`
    #[arg(long, hide = true, requires = "reload")]
    changed_since: Option<u64>,
    /// Read the program from standard input, as the Python SDK writes it, and stop when it closes
    #[arg(long, hide = true, conflicts_with_all = ["file", "reload"])]
    program: bool,
}

#[derive(Args)]
#[command(after_help = CHECK_HELP)]
struct Check {
    #[command(flatten)]
    source: Source,
    /// Show all settings, including the defaults
    #[arg(long)]
    all: bool,
    /// Load every model too, with `setup`, as the server would; then end
    #[arg(long)]
    load: bool,
    /// Print the routes, and who may call each, as JSON
    #[arg(long, conflicts_with_all = ["all", "load"])]
    json: bool,
    /// Seconds that importing one model may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u32,
}

const CHECK_HELP: &str = "\
Each Python model is imported and created by its own interpreter, in its own environment; `setup` runs
with --load only. The check finds options, files, devices, interpreters, modules, classes, `args` and
hooks that are missing or wrong.

Exit status: 0 no errors, 2 errors, 3 a model could not be loaded (--load).";

#[derive(Args)]
struct Source {
    /// A Python file that serves, or a TOML file that lists endpoints
    #[arg(value_name = "SERVER.PY|LITPLEX.TOML")]
    file: PathBuf,
    /// Interpreter that reads a Python file [default: the one that litplex was installed for]
    #[arg(long)]
    python: Option<PathBuf>,
    /// Flag of that interpreter
    #[arg(long, hide = true, allow_hyphen_values = true)]
    python_flag: Vec<String>,
    /// Name of the Python file for `python -m`
    #[arg(long, hide = true)]
    module: Option<String>,
    /// Arguments for a Python file
    #[arg(last = true)]
    args: Vec<OsString>,
}

fn main() -> ExitCode {
    let done = Cli::try_parse().map_or_else(|told| print_help_or_error(&told), run_command);
    done.unwrap_or_else(|error| {
        failure::print(&error);
        ExitCode::from(exit_status(&error))
    })
}

/// Prints the requested text (`--help`, `--version`), or the errors of the command line.
fn print_help_or_error(told: &clap::Error) -> anyhow::Result<ExitCode> {
    let printed = told.print();
    if !told.use_stderr() {
        written(printed)?;
    }
    Ok(ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2)))
}

fn run_command(cli: Cli) -> anyhow::Result<ExitCode> {
    run(cli).map(|()| ExitCode::SUCCESS)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Verb::Serve(serve) => run_serve(serve),
        Verb::Check(check) => run_check(&check),
        Verb::Init(init) => init::run(&init),
        Verb::Fit(fit) => fit::run(&fit),
        Verb::Validate(validate) => validate::run(&validate),
        Verb::Call(call) => call::run(&call),
        Verb::Key(key) => key::run(&key),
        Verb::Ps(ps) => ps::run(&ps),
        Verb::Top(top) => top::run(&top),
        Verb::Scale(scale) => scale::run(&scale),
        Verb::Reload(reload) => reload::run(&reload),
        Verb::Promote(promote) => promote::run(&promote),
        Verb::Rollback(rollback) => rollback::run(&rollback),
        Verb::Generations(generations) => generations::run(&generations),
        Verb::Pause(operate) => operate::run(Mode::Paused, &operate),
        Verb::Drain(operate) => operate::run(Mode::Draining, &operate),
        Verb::Resume(operate) => operate::run(Mode::Serving, &operate),
        Verb::Logs(logs) => logs::run(&logs),
        Verb::Config(config) => config::run(&config),
        Verb::Requests(requests) => requests::run(&requests),
        Verb::Trace(trace) => trace::run(&trace),
        Verb::Events(events) => events::run(&events),
        Verb::LogLevel(level) => level::run(&level),
        Verb::Stack(stack) => stack::run(&stack),
        Verb::Upgrade(upgrade) => upgrade::run(&upgrade),
        Verb::Stop(stop) => stop::run(&stop),
        Verb::Import(import) => import::run(&import),
        Verb::Env(env) => env::run(&env),
        Verb::Completions(Completions { shell }) => print_completions(shell),
    }
}

fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "litplex", &mut text);
    say(&String::from_utf8_lossy(&text))
}

fn run_check(check: &Check) -> anyhow::Result<()> {
    let program = load(&check.source)?;
    let checked = program.check(Duration::from_secs(check.timeout.into()))?;
    if check.json {
        return say(&format!("{}\n", checked.describe_json()));
    }
    say(&checked.describe(check.all))?;
    if check.load {
        program.load()?;
        say("\nloaded: all endpoints\n")?;
    }
    Ok(())
}

fn run_serve(serve: Serve) -> anyhow::Result<()> {
    // Before another process is started, which would get the sockets.
    let inherited = Inherited::from_env();
    let predecessor = inherited.predecessor();
    let served =
        if serve.program { run_from_sdk(inherited) } else { run_from_file(serve, inherited) };
    if let (Some(predecessor), Err(error)) = (predecessor, &served) {
        predecessor.failed(&described(error));
    }
    served
}

fn run_from_file(serve: Serve, inherited: Inherited) -> anyhow::Result<()> {
    let Some(source) = serve.source else {
        return Err(wrong("name a Python or TOML file to serve; `litplex serve --help` shows how"));
    };
    let Serve { host, port, tls_cert, tls_key, tls_client_ca, reload, changed_since, .. } = serve;
    let waits = reload && inherited.predecessor().is_none();
    let run = || {
        let mut program = load(&source)?.listen(host, port);
        if let (Some(cert), Some(key)) = (tls_cert, tls_key) {
            program = program.tls(cert, key, tls_client_ca);
        }
        if reload {
            program = program.reload_on_save(source.file.clone());
        }
        let program = program.inherit(inherited).started_by(StartCommand::this_process()?);
        Ok(program.adopt_orphans().run(std::future::pending())?)
    };
    // A successor that is wrong leaves its predecessor in place.
    if waits { development::serve(&source.file, changed_since, run) } else { run() }
}

/// Serves the program that the SDK writes to standard input, until standard input is closed.
fn run_from_sdk(inherited: Inherited) -> anyhow::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut line = String::new();
    stdin.read_line(&mut line).context("cannot read the program")?;
    drop(stdin);
    let mut program = Program::from_sdk(&line)?.inherit(inherited);
    if let Some(python) = program.python().cloned() {
        program = program.started_by(StartCommand::this_process()?.with_args(arguments(python)));
    }
    let (closed, parent_gone) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = closed.send(());
    });
    Ok(program.adopt_orphans().run(async { drop(parent_gone.await) })?)
}

/// Returns the arguments with which this command serves a Python program without its process.
fn arguments(program: PythonProgram) -> Vec<OsString> {
    let PythonProgram { interpreter, flags, file, module, args, .. } = program;
    let mut arguments: Vec<OsString> = vec!["serve".into(), file.into(), "--python".into()];
    arguments.push(interpreter.into());
    arguments.extend(flags.into_iter().map(|flag| format!("--python-flag={flag}").into()));
    arguments.extend(module.map(|module| format!("--module={module}").into()));
    arguments.push("--".into());
    arguments.extend(args.into_iter().map(OsString::from));
    arguments
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

/// Runs a Python file up to the call that serves, and returns the program that it describes.
fn load_python(source: &Source) -> anyhow::Result<Program> {
    if !source.file.is_file() {
        return Err(wrong(format!("there is no file {}", source.file.display())));
    }
    let python = source.python.clone().unwrap_or_else(litplex::default_interpreter);
    let mut command = Command::new(&python);
    FOR_SERVERS.iter().for_each(|name| _ = command.env_remove(name));
    let mut child = command
        .args(&source.python_flag)
        .args(["-m", "litplex._describe"])
        .args(source.module.iter().map(|module| format!("--module={module}")))
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
    // The child keeps the pickles that it hands over until its standard input is closed.
    let program = (!text.is_empty()).then(|| Program::from_sdk(&text));
    drop(child.stdin.take());
    let status = child.wait().with_context(|| format!("cannot wait for {}", python.display()))?;
    match program {
        Some(program) if status.success() => Ok(program?),
        // The child has printed the errors.
        _ if status.code() == Some(2) => Err(Printed.into()),
        _ => Err(wrong(format!("{} {}", source.file.display(), describe_failure(&python)))),
    }
}

fn describe_failure(python: &Path) -> String {
    format!(
        "exited before describing its endpoints; see the output above (is litplex installed for {}?)",
        python.display()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use litplex::Error;
    use litplex_core::LaunchError;

    use crate::say::ReaderGone;

    use super::*;

    /// The verbs that use no operation. `call` is a client of endpoints.
    const LOCAL: [&str; 8] =
        ["serve", "check", "init", "call", "key", "import", "env", "completions"];

    /// The verbs for running servers, each with the operations of the admin API that it uses.
    const REMOTE: [(&str, &[&str]); 21] = [
        ("ps", &["get /v1/server"]),
        ("top", &["get /v1/load"]),
        ("fit", &["get /v1/memory"]),
        ("validate", &["get /v1/endpoints/{endpoint}"]),
        ("scale", &["post /v1/endpoints/{endpoint}/scale"]),
        ("reload", &["post /v1/endpoints/{endpoint}/reload", "post /v1/reload"]),
        ("promote", &["post /v1/endpoints/{endpoint}/promote"]),
        ("rollback", &["post /v1/endpoints/{endpoint}/rollback"]),
        ("generations", &["get /v1/endpoints/{endpoint}/generations"]),
        ("pause", &["post /v1/endpoints/{endpoint}/pause"]),
        ("drain", &["post /v1/endpoints/{endpoint}/drain"]),
        ("resume", &["post /v1/endpoints/{endpoint}/resume"]),
        ("logs", &["get /v1/logs"]),
        ("config", &["get /v1/config", "get /v1/keys"]),
        ("requests", &["get /v1/requests"]),
        ("trace", &["get /v1/requests/{id}"]),
        ("events", &["get /v1/events"]),
        ("log-level", &["get /v1/log-level", "put /v1/log-level"]),
        ("stack", &["get /v1/endpoints/{endpoint}/workers/{slot}/stack"]),
        ("upgrade", &["post /v1/upgrade"]),
        ("stop", &["post /v1/stop"]),
    ];

    /// The operations without a verb: `ps` shows all endpoints, and the others are for the dashboard.
    const WITHOUT_VERB: [&str; 6] = [
        "get /v1/endpoints/{endpoint}/batches",
        "get /v1/endpoints/{endpoint}/openapi",
        "get /v1/graph",
        "get /v1/history",
        "get /v1/session",
        "post /v1/endpoints/{endpoint}/call",
    ];

    #[test]
    fn the_command_can_do_what_the_admin_api_can() {
        let document = litplex_admin::document();
        let mut offered: Vec<String> = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            let methods = operations.as_object().unwrap().keys();
            offered.extend(methods.map(|method| format!("{method} {path}")));
        }
        let used = REMOTE.iter().flat_map(|(_, operations)| operations.iter().copied());
        let mut known: Vec<_> = used.chain(WITHOUT_VERB).map(str::to_owned).collect();
        offered.sort();
        known.sort();
        assert_eq!(offered, known, "an operation needs a verb, or a place in `WITHOUT_VERB`");

        let command = Cli::command();
        let mut verbs: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        let mut listed = Vec::from_iter(LOCAL.into_iter().chain(REMOTE.map(|(verb, _)| verb)));
        verbs.sort_unstable();
        listed.sort_unstable();
        assert_eq!(verbs, listed, "a verb for running servers needs its operations in `REMOTE`");
        for (verb, _) in REMOTE {
            let command = command.find_subcommand(verb).unwrap();
            let options: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
            for option in ["port", "url", "key", "json"] {
                assert!(options.contains(&option), "`{verb}` has no --{option}");
            }
        }
    }

    #[test]
    fn no_verb_has_two_arguments_of_one_name() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_lists_every_exit_status_with_its_cause() {
        let (_, statuses) = AFTER_HELP.split_once("Exit status:\n").unwrap();
        let lines = statuses.lines().filter_map(|line| line.trim_start().split_once("  "));
        let listed: Vec<(u8, &str)> =
            lines.filter_map(|(status, cause)| Some((status.parse().ok()?, cause))).collect();
        let app = Error::AppHost(LaunchError::new("no module `app`"));
        let wanted = [
            (0, "success"),
            (exit_status(&io::Error::other("disk full").into()), "the system refuses"),
            (exit_status(&wrong("no file")), "configuration or the command is wrong"),
            (exit_status(&app.into()), "could not be loaded"),
            (exit_status(&ReaderGone.into()), "reader of standard output"),
        ];
        assert_eq!(listed.len(), wanted.len(), "{listed:?}");
        for ((status, cause), (wanted_status, part)) in listed.into_iter().zip(wanted) {
            assert_eq!(status, wanted_status, "{cause}");
            assert!(cause.contains(part), "{status}: {cause:?} should contain {part:?}");
        }
    }
}
