//! The parts of a server that its program supplies.

use std::path::PathBuf;
use std::sync::Arc;

use litplex_config::Program;
use litplex_core::{Attach, Launch};
use litplex_http::Layers;
use litplex_pages::EndpointSchema;
use litplex_workers::Settings;

use crate::source::ConfigSource;
use crate::upgrade::{Inherited, StartCommand};

/// A function that returns the launch of a Rust model, given its resolved settings.
pub type RustModel = Box<dyn FnOnce(Settings, Arc<dyn Attach>) -> Arc<dyn Launch> + Send>;

/// The model of an endpoint, where a Rust program supplies one, and its schema.
#[derive(Default)]
pub struct ModelSource {
    /// The model, if it is in Rust.
    pub model: Option<RustModel>,
    /// The endpoints that it declares to call, by path or name.
    pub calls: Vec<String>,
    /// The types and examples of its requests and responses.
    pub schema: EndpointSchema,
}

impl std::fmt::Debug for ModelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelSource")
            .field("is_rust", &self.model.is_some())
            .finish_non_exhaustive()
    }
}

/// The development mode of a server.
#[derive(Debug, Clone)]
pub struct Development {
    /// The Python or TOML file of the program.
    pub program: PathBuf,
}

/// A server to run.
pub struct ServerSpec {
    /// The checked configuration.
    pub config: Program,
    /// The models of the endpoints, in the order of the configuration.
    pub models: Vec<ModelSource>,
    /// The layers around the server and its endpoints.
    pub layers: Layers,
    /// The source of the configuration, from which a reload reads it again.
    pub source: ConfigSource,
    /// Whether the server adopts the orphans of its models and waits for them.
    pub adopts_orphans: bool,
    /// The development mode, in which saves of files change the endpoints.
    pub development: Option<Development>,
    /// The sockets and connections that this process got from the one that started it.
    pub inherited: Inherited,
    /// The command that starts the program again, for an upgrade; otherwise why there is none.
    pub start: Result<StartCommand, String>,
}

impl ServerSpec {
    /// Returns a server with this configuration and no Rust model.
    pub fn new(config: Program) -> Self {
        let models = config.endpoints.iter().map(|_| ModelSource::default()).collect();
        Self {
            config,
            models,
            layers: Layers::default(),
            source: ConfigSource::default(),
            adopts_orphans: false,
            development: None,
            inherited: Inherited::default(),
            start: Err("this program cannot be started again; restart it".into()),
        }
    }
}

impl std::fmt::Debug for ServerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSpec").field("config", &self.config).finish_non_exhaustive()
    }
}
