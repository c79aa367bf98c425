//! The check of the types in pipelines against those of the endpoints that they call, as far as these
//! are known: before models are loaded from their inspection, and then from their own descriptions.

use litplex_core::Identity;
use litplex_pages::EndpointSchema;
use litplex_pipelines::{Graph, misfits};
use serde_json::Value;

/// An endpoint, with what is known of its types.
pub(crate) struct TypedEndpoint<'e> {
    pub(crate) identity: &'e Identity,
    /// The graph, if it is a pipeline.
    pub(crate) graph: Option<&'e Graph>,
    /// The schemas, from [`types`].
    pub(crate) types: Value,
}

/// Returns the schemas of requests and responses that the program and the model declare. `is_stream` is
/// `None` if it is not known whether responses are streams.
pub(crate) fn types(schema: &EndpointSchema, declared: &Value, is_stream: Option<bool>) -> Value {
    let mut types = schema.over(declared);
    // The schema of a stream is that of an item.
    if is_stream != Some(false)
        && let Some(types) = types.as_object_mut()
    {
        types.remove("response");
    }
    types
}

/// Returns a sentence for each value in a pipeline that its endpoint cannot take.
pub(crate) fn errors(endpoints: &[TypedEndpoint<'_>]) -> Vec<String> {
    let identities = endpoints.iter().map(|endpoint| endpoint.identity);
    let mut found = Vec::new();
    for endpoint in endpoints {
        let Some(graph) = endpoint.graph else { continue };
        let misfits = misfits(graph, |callee| {
            match Identity::find_all(identities.clone(), callee).ok()?[..] {
                [index] => Some(&endpoints[index].types),
                // The request chooses.
                _ => None,
            }
        });
        let label = &endpoint.identity.label;
        found.extend(misfits.iter().map(|misfit| format!("pipeline of {label}: {misfit}")));
    }
    found
}
