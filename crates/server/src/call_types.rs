//! The check of the types in pipelines and of handles against those of the endpoints that they call, as far
//! as these are known: before models are loaded from their inspection, and then from their own descriptions.

use litplex_core::Identity;
use litplex_pages::EndpointSchema;
use litplex_pipelines::{Graph, misfit, misfits};
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

/// Returns a sentence for each value that an endpoint cannot take, and each result that it does not return:
/// in pipelines, and by the types that handles declare.
pub(crate) fn errors(endpoints: &[TypedEndpoint<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    for endpoint in endpoints {
        let label = &endpoint.identity.label;
        if let Some(graph) = endpoint.graph {
            let misfits = misfits(graph, |callee| callee_types(endpoints, callee));
            found.extend(misfits.iter().map(|misfit| format!("pipeline of {label}: {misfit}")));
        }
        let handles = endpoint.types["calls"].as_array().into_iter().flatten();
        let misfits = handles.flat_map(|handle| handle_misfits(endpoints, handle));
        found.extend(misfits.map(|misfit| format!("endpoint `{label}`: {misfit}")));
    }
    found
}

/// Returns what is known of the one endpoint that a reference names. At a shared path the request chooses.
fn callee_types<'e>(endpoints: &'e [TypedEndpoint<'_>], callee: &str) -> Option<&'e Value> {
    let identities = endpoints.iter().map(|endpoint| endpoint.identity);
    match Identity::find_all(identities, callee).ok()?[..] {
        [index] => Some(&endpoints[index].types),
        _ => None,
    }
}

/// Returns a sentence for each declared type of a handle that does not fit its endpoint; the format is that
/// of `declared_types` in `_calls/endpoint.py`.
fn handle_misfits(endpoints: &[TypedEndpoint<'_>], handle: &Value) -> Vec<String> {
    let text = |name: &str| handle[name].as_str().unwrap_or_default();
    let (shown, callee) = (text("handle"), text("endpoint"));
    let Some(known) = callee_types(endpoints, callee) else { return Vec::new() };
    let others = &handle["schemas"];
    let taken = known["request"].get("application/json");
    let takes = handle.get("takes").zip(taken).and_then(|(given, taken)| {
        let misfit = misfit((given, others), (taken, &known["schemas"]))?;
        Some(format!("`takes` of `{shown}` does not fit what `{callee}` takes: {misfit}"))
    });
    let returns = handle.get("returns").zip(known.get("response")).and_then(|(read, given)| {
        let misfit = misfit((given, &known["response_schemas"]), (read, others))?;
        Some(format!("`returns` of `{shown}` does not fit what `{callee}` returns: {misfit}"))
    });
    takes.into_iter().chain(returns).collect()
}
