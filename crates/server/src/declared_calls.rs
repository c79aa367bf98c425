//! The calls that models declare: whether their endpoints exist, and the cycles among them.

use std::sync::Arc;

use litplex_calls::{CallEdge, DeclaredCalls, DeclaredCycle, EdgeKind, add_edge, declared_cycles};
use litplex_config::{Endpoint, Source};
use litplex_core::Identity;
use litplex_pipelines::{CallingStep, Graph};
use litplex_workers::Inspected;

use crate::ModelSource;
use crate::placement::most_workers;

/// Returns an error for each call of an endpoint that does not exist, or is not the only one of its
/// name.
pub(crate) fn errors(endpoints: &[Endpoint], caller: &str, calls: &[String]) -> Vec<String> {
    let errors = calls.iter().filter_map(|callee| find(endpoints, callee).err());
    let text =
        |error| format!("endpoint `{caller}`: a call that it declares cannot be made: {error}");
    errors.map(text).collect()
}

/// Returns such errors of the models that a Rust program supplies: they are known before any model is loaded.
pub(crate) fn errors_of_models(endpoints: &[Endpoint], models: &[ModelSource]) -> Vec<String> {
    let models = endpoints.iter().zip(models);
    models.flat_map(|(endpoint, model)| errors(endpoints, endpoint.label(), &model.calls)).collect()
}

/// Returns the cycles among the calls of models that were inspected, on a machine with this many GPUs.
pub(crate) fn inspected_cycles(
    endpoints: &[Endpoint],
    models: &[Inspected],
    gpus: usize,
) -> Vec<DeclaredCycle> {
    let models = endpoints.iter().zip(models);
    let declared = models.map(|(endpoint, model)| match &endpoint.source {
        Source::Pipeline(graph) => declared(endpoints, endpoint, &callees(graph), None),
        Source::Rust | Source::Python(_) => {
            let places = model.concurrency.unwrap_or(1) * most_workers(endpoint, gpus);
            declared(endpoints, endpoint, &model.calls, Some(places))
        }
    });
    declared_cycles(&Vec::from_iter(declared))
}

/// Returns the calls of an endpoint that can be made, by the labels of the endpoints. `places` is the most
/// hooks that its workers run at once; `None` for a pipeline.
pub(crate) fn declared(
    endpoints: &[Endpoint],
    endpoint: &Endpoint,
    calls: &[String],
    places: Option<usize>,
) -> DeclaredCalls {
    let callees = calls.iter().filter_map(|callee| find(endpoints, callee).ok()).flatten();
    let callees = callees.map(|index| endpoints[index].label().to_owned()).collect();
    DeclaredCalls { endpoint: endpoint.label().to_owned(), callees, places }
}

/// Returns the calls that an endpoint declares, as edges of the graph of endpoints.
pub(crate) fn edges(
    endpoints: &[Arc<Identity>],
    caller: &str,
    source: &Source,
    calls: &[String],
) -> Vec<CallEdge> {
    let mut edges = Vec::new();
    let mut add = |endpoint: &str, kind, step: Option<&str>| {
        let found = Identity::find_all(endpoints.iter().map(|it| &**it), endpoint);
        for index in found.unwrap_or_default() {
            let (caller, callee) = (caller.to_owned(), endpoints[index].label.clone());
            let steps = step.map(str::to_owned).into_iter().collect();
            add_edge(&mut edges, CallEdge { caller, callee, kind, steps });
        }
    };
    match source {
        Source::Pipeline(graph) => {
            for CallingStep { endpoint, step, is_shadow } in graph.calling_steps() {
                let kind = if is_shadow { EdgeKind::Shadow } else { EdgeKind::Step };
                add(endpoint, kind, Some(step));
            }
        }
        Source::Rust | Source::Python(_) => {
            calls.iter().for_each(|endpoint| add(endpoint, EdgeKind::Call, None));
        }
    }
    edges
}

/// Returns such edges of all models that were inspected.
pub(crate) fn inspected_edges(endpoints: &[Endpoint], models: &[Inspected]) -> Vec<CallEdge> {
    let identities: Vec<_> = endpoints.iter().map(|it| it.identity.clone()).collect();
    let models = endpoints.iter().zip(models);
    models
        .flat_map(|(it, model)| edges(&identities, it.label(), &it.source, &model.calls))
        .collect()
}

/// Returns the references by which a pipeline calls endpoints.
pub(crate) fn callees(graph: &Graph) -> Vec<String> {
    graph.endpoints().into_iter().map(str::to_owned).collect()
}

/// Returns the indices of the endpoints that may answer a call.
fn find(endpoints: &[Endpoint], reference: &str) -> Result<Vec<usize>, litplex_core::FindError> {
    Identity::find_all(endpoints.iter().map(|endpoint| &*endpoint.identity), reference)
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, parse_toml, resolve};

    use super::*;

    #[test]
    fn the_places_of_a_cycle_count_the_workers_on_all_devices() {
        let sentence = |options: &str, gpus| {
            let text = format!("[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n{options}");
            let origin = Origin::File("litplex.toml".into());
            let program = resolve(parse_toml(&text).unwrap(), &origin).unwrap();
            let calls = vec!["/a".to_owned()];
            let model = Inspected { calls, concurrency: Some(4), ..Inspected::default() };
            inspected_cycles(&program.endpoints, &[model], gpus)[0].to_string()
        };
        for (options, gpus, places) in [
            ("workers_per_device = 2", 0, 8),
            ("workers_per_device = 2", 3, 24),
            ("workers_per_device = 2\naccelerator = \"cpu\"", 3, 8),
            ("workers_per_device = 2\ndevices = 2", 3, 16),
            ("workers_per_device = 2\ndevices = [1]", 3, 8),
            ("min_workers = 1\nmax_workers = 5", 3, 20),
        ] {
            let text = sentence(options, gpus);
            let expected = format!("computes {places} requests at a time");
            assert!(text.contains(&expected), "{options}: {text}");
        }
    }
}
