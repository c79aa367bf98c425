//! Programs: checked configurations that can be described, checked further, and run.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use litplex_config::{Origin, Pem, TlsFiles, parse_json, resolve};
use litplex_server::{
    ConfigPlace, ConfigSource, Development, Inherited, ServerSpec, StartCommand, check, describe,
    describe_json, hold_pickles, init_log, load, read_toml, serve,
};
use litplex_workers::{Inspected, PythonProgram};
use tokio::runtime;
use tokio::sync::oneshot;

use crate::{ConfigError, Error};

/// A checked configuration that can be run. The `litplex` command works with it.
pub struct Program {
    pub(crate) spec: ServerSpec,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("config", &self.spec.config).finish_non_exhaustive()
    }
}

impl Program {
    fn new(config: litplex_config::Program, source: ConfigSource) -> Self {
        Self::of(ServerSpec { source, ..ServerSpec::new(config) })
    }

    pub(crate) fn of(spec: ServerSpec) -> Self {
        Self { spec }
    }

    /// Checks the text of a `litplex.toml`; names in it are relative to the directory of `path`.
    ///
    /// # Errors
    /// All errors at once.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Ok(Self::new(read_toml(text, path)?, ConfigSource::file(path, text)))
    }

    /// Checks the program that the Python SDK wrote, and opens the files in which the SDK hands over
    /// models: the process that has made them may end then.
    ///
    /// # Errors
    /// All errors at once.
    pub fn from_sdk(text: &str) -> Result<Self, ConfigError> {
        let mut raw = parse_json(text)?;
        let source = ConfigSource::take(&mut raw);
        hold_pickles(&mut raw)?;
        Ok(Self::new(resolve(raw, &Origin::Sdk)?, source))
    }

    /// Replaces the host and the port, if they are given.
    #[must_use]
    pub fn listen(mut self, host: Option<String>, port: Option<u16>) -> Self {
        let overrides = &mut self.spec.source.overrides;
        overrides.host = host.or(overrides.host.take());
        overrides.port = port.or(overrides.port);
        overrides.apply(&mut self.spec.config);
        self
    }

    /// Serves HTTPS with this certificate and its private key, instead of the program's own options.
    /// With `client_ca`, only clients with a certificate of one of its authorities are served.
    #[must_use]
    pub fn tls(mut self, cert: PathBuf, key: PathBuf, client_ca: Option<PathBuf>) -> Self {
        let (cert, key, client_ca) = (Pem::File(cert), Pem::File(key), client_ca.map(Pem::File));
        let overrides = &mut self.spec.source.overrides;
        overrides.tls = Some(TlsFiles { cert, key, client_ca });
        overrides.apply(&mut self.spec.config);
        self
    }

    /// Has the server adopt the orphans of models and wait for them, as the first process of a
    /// container must. Only for a program that starts no process itself, which would be adopted too.
    #[must_use]
    pub fn adopt_orphans(mut self) -> Self {
        self.spec.adopts_orphans = true;
        self
    }

    /// Has the server watch the source files of its models, and `file`, which the program was read from:
    /// a save changes what is served. For development.
    #[must_use]
    pub fn reload_on_save(mut self, file: PathBuf) -> Self {
        self.spec.development = Some(Development { program: file });
        self
    }

    /// Serves on the sockets that this process was given, and takes the place of the server that started it, if
    /// it did so for an upgrade.
    #[must_use]
    pub fn inherit(mut self, inherited: Inherited) -> Self {
        self.spec.inherited = inherited;
        self
    }

    /// Starts the program again for an upgrade of the server with this command. Default: no upgrade.
    #[must_use]
    pub fn started_by(mut self, command: StartCommand) -> Self {
        self.spec.start = Ok(command);
        self
    }

    /// Returns the Python program that makes this one, if it can run again.
    pub fn python(&self) -> Option<&PythonProgram> {
        match &self.spec.source.place {
            ConfigPlace::Python(program) => Some(program),
            ConfigPlace::File(_) | ConfigPlace::Nowhere(_) => None,
        }
    }

    /// Checks everything that needs no loaded model: files, devices, and each Python model, which its
    /// own interpreter imports and instantiates within `limit`, without `setup`.
    ///
    /// # Errors
    /// All errors at once.
    pub fn check(&self, limit: Duration) -> Result<Checked<'_>, Error> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let ServerSpec { config, models, .. } = &self.spec;
        let inspected = runtime.block_on(check(config, models, limit))?;
        Ok(Checked { config, inspected })
    }

    /// Loads every model as a server does, on another thread, and stops it again.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Launch`] where a model cannot be loaded.
    pub fn load(self) -> Result<(), Error> {
        let ServerSpec { config, models, .. } = self.spec;
        let log = init_log(&config.endpoints)?;
        on_a_thread(move || load(config, models, log))?.join().unwrap_or_else(|panic| {
            std::panic::resume_unwind(panic);
        })
    }

    /// Runs the server on another thread until Ctrl-C or SIGTERM, and then until requests in flight
    /// have their responses; when `until` resolves, it stops at once.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(self, until: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        match self.spawn(until)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    pub(crate) async fn run_until_dropped(self) -> Result<(), Error> {
        let (_alive, dropped) = oneshot::channel::<()>();
        let (done, result) = oneshot::channel();
        let server = self.spawn(async { drop(dropped.await) })?;
        thread::Builder::new().name("litplex-join".into()).spawn(move || {
            let _ = done.send(server.join());
        })?;
        match result.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(std::io::Error::other("the server's thread is gone").into()),
        }
    }

    /// Runs the server on a thread that lives as long as it: workers die with the thread that started
    /// them.
    fn spawn(
        self,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> Result<thread::JoinHandle<Result<(), Error>>, Error> {
        let log = init_log(&self.spec.config.endpoints)?;
        on_a_thread(move || serve(self.spec, log, until))
    }
}

/// Runs the future that `make` returns on a new thread with its own runtime.
fn on_a_thread<F: Future<Output = Result<(), Error>>>(
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<thread::JoinHandle<Result<(), Error>>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || {
        let result = runtime.block_on(make());
        // A thread that a model blocks must not delay the end.
        runtime.shutdown_background();
        result
    };
    Ok(thread::Builder::new().name("litplex".into()).spawn(run)?)
}

/// A program without errors, and the properties of its models.
#[derive(Debug)]
pub struct Checked<'a> {
    config: &'a litplex_config::Program,
    inspected: Vec<Inspected>,
}

impl Checked<'_> {
    /// Describes the server and its endpoints: the options that differ from the defaults, and with
    /// `all` the others after them.
    pub fn describe(&self, all: bool) -> String {
        describe(self.config, &self.inspected, all)
    }

    /// Describes the server's address, its routes, and who may call each, as JSON.
    pub fn describe_json(&self) -> String {
        describe_json(self.config, &self.inspected).to_string()
    }
}
