//! The checks that need the descriptions of models: whether the endpoints that pipelines and handles call exist,
//! and whether their types fit. The start of a server, a reload and `litplex check` make the same ones.

use std::collections::BTreeSet;

use litplex_admin::Refusal;
use litplex_config::{ConfigError, Endpoint, Source};
use litplex_pages::EndpointSchema;
use litplex_pipelines::Graph;
use litplex_workers::Inspected;
use serde_json::Value;

use crate::call_types::{self, TypedEndpoint, types};
use crate::declared_calls;

/// The description of an endpoint's model, as far as it is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Description {
    /// The types of requests and responses, from [`types`].
    pub(crate) types: Value,
    /// The references by which it calls other endpoints.
    pub(crate) calls: Vec<String>,
}

impl Description {
    /// Returns the description of a pipeline.
    pub(crate) fn pipeline(schema: &EndpointSchema, graph: &Graph) -> Self {
        let (types, calls) = (types(schema, &Value::Null, None), declared_calls::callees(graph));
        Self { types, calls }
    }

    /// Returns the description of a model that was inspected.
    pub(crate) fn inspected(schema: &EndpointSchema, model: &Inspected) -> Self {
        let types = types(schema, &model.schema, model.stream);
        Self { types, calls: model.calls.clone() }
    }
}

/// Returns an error for each value that does not fit the endpoint which gets it, then for each call that cannot
/// be made. The descriptions are in the order of the endpoints.
pub(crate) fn errors(endpoints: &[Endpoint], models: &[Description]) -> Vec<String> {
    let described = || endpoints.iter().zip(models);
    let typed = described().map(|(endpoint, model)| TypedEndpoint {
        identity: &endpoint.identity,
        graph: graph(endpoint),
        types: model.types.clone(),
    });
    let mut found = call_types::errors(&Vec::from_iter(typed));
    for (endpoint, model) in described() {
        found.extend(declared_calls::errors(endpoints, endpoint.label(), &model.calls));
    }
    found
}

/// Returns the graph of an endpoint that is a pipeline.
pub(crate) fn graph(endpoint: &Endpoint) -> Option<&Graph> {
    match &endpoint.source {
        Source::Pipeline(graph) => Some(graph),
        Source::Rust | Source::Python(_) => None,
    }
}

/// Returns a refusal with all errors, if there are some.
pub(crate) fn refuse(errors: Vec<String>) -> Result<(), Refusal> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Refusal::conflict(ConfigError(errors).to_string()))
}

/// The endpoints of a server with the descriptions of their models: a new generation of one must fit them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Neighbours {
    pub(crate) endpoints: Vec<Endpoint>,
    /// In the order of the endpoints.
    pub(crate) models: Vec<Description>,
}

impl Neighbours {
    /// Returns the errors among the endpoints.
    pub(crate) fn errors(&self) -> Vec<String> {
        errors(&self.endpoints, &self.models)
    }

    /// Returns the labels of the endpoints that call others or are called by others.
    pub(crate) fn related(&self) -> BTreeSet<String> {
        let identities: Vec<_> = self.endpoints.iter().map(|it| it.identity.clone()).collect();
        let described = self.endpoints.iter().zip(&self.models);
        let edges = described.flat_map(|(endpoint, model)| {
            declared_calls::edges(&identities, endpoint.label(), &endpoint.source, &model.calls)
        });
        edges.flat_map(|edge| [edge.caller, edge.callee]).collect()
    }

    /// Takes the description of the model of the endpoint with this label.
    pub(crate) fn describe(&mut self, label: &str, model: Description) {
        if let Some(at) = self.endpoints.iter().position(|it| it.label() == label) {
            self.models[at] = model;
        }
    }

    /// Returns the further errors that there would be if an endpoint had this configuration and this model.
    pub(crate) fn errors_with(mut self, endpoint: &Endpoint, model: Description) -> Vec<String> {
        let before = self.errors();
        let found = self.endpoints.iter().position(|it| it.label() == endpoint.label());
        if let Some(at) = found {
            self.endpoints[at] = endpoint.clone();
            self.models[at] = model;
        }
        further(self.errors(), &before)
    }
}

/// Returns the errors that are not among those of before: others are no reason to refuse a change.
pub(crate) fn further(errors: Vec<String>, before: &[String]) -> Vec<String> {
    errors.into_iter().filter(|error| !before.contains(error)).collect()
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, parse_toml, resolve};
    use serde_json::json;

    use super::*;

    fn endpoints() -> Vec<Endpoint> {
        let text = "[[endpoint]]\npath = \"/text\"\napi = \"a:A\"\n\
                    [[endpoint]]\npath = \"/length\"\napi = \"a:A\"\n\
                    [[endpoint]]\npath = \"/both\"\npipeline = [\"/text\", \"/length\"]";
        let origin = Origin::File("/srv/litplex.toml".into());
        resolve(parse_toml(text).unwrap(), &origin).unwrap().endpoints
    }

    /// A model that takes and returns values of these types.
    fn model(takes: &str, returns: &str, calls: &[&str]) -> Description {
        let declared = json!({
            "request": {"application/json": {"type": takes}},
            "response": {"type": returns},
        });
        let types = types(&EndpointSchema::default(), &declared, Some(false));
        Description { types, calls: calls.iter().map(|&call| call.to_owned()).collect() }
    }

    fn neighbours(models: [Description; 2]) -> Neighbours {
        let endpoints = endpoints();
        let pipeline = Description::pipeline(
            &EndpointSchema::default(),
            graph(&endpoints[2]).expect("it is a pipeline"),
        );
        Neighbours { endpoints, models: models.into_iter().chain([pipeline]).collect() }
    }

    #[test]
    fn a_new_model_must_fit_those_that_call_it_and_that_it_calls() {
        let endpoints = endpoints();
        let right = || [model("object", "string", &[]), model("string", "integer", &[])];
        let (text, length) = (&endpoints[0], &endpoints[1]);
        let with = |endpoint, model| neighbours(right()).errors_with(endpoint, model);
        assert_eq!(with(text, model("object", "string", &["/length"])), [""; 0]);
        let misfit = with(length, model("array", "integer", &[]));
        assert_eq!(misfit.len(), 1, "{misfit:?}");
        assert!(misfit[0].starts_with("pipeline of /both: "), "{misfit:?}");
        let missing = with(text, model("object", "string", &["/none"]));
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].starts_with("endpoint `/text`: a call that it declares"), "{missing:?}");
        assert_eq!(with(length, Description::default()), [""; 0], "no more is known of it");
        let wrong = [model("object", "string", &[]), model("array", "integer", &[])];
        let both = neighbours(wrong).errors_with(text, model("object", "string", &["/length"]));
        assert_eq!(both, [""; 0], "the other one was wrong before");
        let mut all = neighbours(right());
        assert_eq!(Vec::from_iter(all.related()), ["/both", "/length", "/text"]);
        all.endpoints.pop();
        assert_eq!(Vec::from_iter(all.related()), [""; 0]);
    }
}
