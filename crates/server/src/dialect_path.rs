//! Log lines about the path at which the clients of a dialect find an endpoint.

use litplex_config::Source;
use litplex_core::{Attach, Attachment, DialectId, ModelInfo};
use litplex_http::dialect_path;
use litplex_scheduler::Endpoint;

/// The queue of an endpoint; each attached worker of a model that was given by its name is checked
/// for the path of its dialect. Of instances the SDK checks it; which dialect another model speaks is
/// known only once a worker is ready.
pub(crate) struct CheckedAttach {
    endpoint: Endpoint,
    path: String,
    is_reference: bool,
}

impl CheckedAttach {
    pub(crate) fn new(endpoint: Endpoint, config: &litplex_config::Endpoint) -> Self {
        let is_reference =
            matches!(&config.source, Source::Python(load) if load["kind"] == "reference");
        Self { endpoint, path: config.path.clone(), is_reference }
    }
}

impl Attach for CheckedAttach {
    fn attach(&self, slot: usize, info: ModelInfo) -> Attachment {
        if let Some(dialect) = &info.dialect {
            match dialect_path(dialect) {
                Some(path) if self.is_reference => log_path(&self.path, path),
                Some(_) => {}
                None => log_unknown(&self.path, dialect),
            }
        }
        self.endpoint.attach(slot, info)
    }
}

fn log_path(endpoint: &str, path: &str) {
    // What clients add to their base address.
    let ending = path.trim_start_matches("/v1");
    if endpoint == "/predict" {
        tracing::info!(endpoint, "also at `{path}`, where its clients send requests");
    } else if !endpoint.ends_with(ending) {
        tracing::warn!(
            endpoint,
            "OpenAI's clients request only paths that end in `{ending}`; \
             set its `path` to `{path}`, or send HTTP requests to it yourself"
        );
    }
}

fn log_unknown(endpoint: &str, dialect: &DialectId) {
    let dialect = dialect.as_str();
    tracing::error!(
        endpoint,
        "unknown dialect `{dialect}`; requests are passed on as they come: \
         install the same version of litplex for the worker as for the server"
    );
}
