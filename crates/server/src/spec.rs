//! What a server is made of.

use std::sync::Arc;

use litplex_config::Program;
use litplex_core::{Attach, Launch};
use litplex_http::{Described, Layers};
use litplex_workers::Settings;

/// Makes the launch of a Rust model, once its settings are resolved.
pub type RustModel = Box<dyn FnOnce(Settings, Arc<dyn Attach>) -> Arc<dyn Launch> + Send>;

/// What a program gives of an endpoint besides its options.
#[derive(Default)]
pub struct Given {
    /// The model, where that is one in Rust.
    pub model: Option<RustModel>,
    /// The schema and the examples of its requests and responses.
    pub described: Described,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("is_rust", &self.model.is_some()).finish_non_exhaustive()
    }
}

/// Everything that a server is made of.
pub struct ServerSpec {
    /// The checked configuration.
    pub config: Program,
    /// What the program gives of each endpoint besides its options, in the order of the
    /// configuration.
    pub given: Vec<Given>,
    /// The layers around the server and its endpoints.
    pub layers: Layers,
    /// Whether the server waits for processes that models leave behind.
    pub adopts_orphans: bool,
}

impl ServerSpec {
    /// A server with this configuration and no Rust model.
    pub fn new(config: Program) -> Self {
        let given = config.endpoints.iter().map(|_| Given::default()).collect();
        Self { config, given, layers: Layers::default(), adopts_orphans: false }
    }
}

impl std::fmt::Debug for ServerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerSpec").field("config", &self.config).finish_non_exhaustive()
    }
}
