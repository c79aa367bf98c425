//! Log lines about the path at which the clients of a dialect find an endpoint.

use std::sync::Arc;

use litplex_config::Source;
use litplex_core::{Attach, Attachment, DialectId, Identity, ModelInfo};
use litplex_http::dialect_path;
use litplex_scheduler::Endpoint;

/// The queue of an endpoint; each attached worker of a model that was given by its name is checked
/// for the path of its dialect. Of instances the SDK checks it; which dialect another model speaks is
/// known only once a worker is ready.
pub(crate) struct CheckedAttach {
    endpoint: Endpoint,
    identity: Arc<Identity>,
    is_reference: bool,
}

impl CheckedAttach {
    pub(crate) fn new(endpoint: Endpoint, config: &litplex_config::Endpoint) -> Self {
        let is_reference =
            matches!(&config.source, Source::Python(load) if load["kind"] == "reference");
        Self { endpoint, identity: config.identity.clone(), is_reference }
    }
}

impl Attach for CheckedAttach {
    fn attach(&self, slot: usize, info: ModelInfo) -> Attachment {
        if let Some(dialect) = &info.dialect {
            match dialect_path(dialect) {
                Some(path) if self.is_reference => log_path(&self.identity, path),
                Some(_) => {}
                None => log_unknown(&self.identity.label, dialect),
            }
        }
        self.endpoint.attach(slot, info)
    }
}

fn log_path(identity: &Identity, path: &str) {
    let endpoint = &*identity.label;
    // What clients add to their base address.
    let ending = path.trim_start_matches("/v1");
    if identity.path == "/predict" {
        tracing::info!(endpoint, "also at `{path}`, where its clients send requests");
    } else if !identity.path.ends_with(ending) {
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
