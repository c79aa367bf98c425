//! Endpoints whose model is a pipeline.

use std::sync::Arc;

use litplex_core::Identity;
use litplex_pipelines::{Endpoint, Graph, check};
use serde_json::{Map, Value};

use crate::options::{Scope, find};
use crate::read::text;

/// The option that has the steps.
pub(crate) const PIPELINE: &str = "pipeline";

/// The options of an endpoint with a pipeline; all others are about workers.
const OPTIONS: [&str; 16] = [
    "path",
    "name",
    "aliases",
    PIPELINE,
    "timeout",
    "chunk_timeout",
    "ping_interval",
    "max_body_bytes",
    "api_keys",
    "api_keys_file",
    "jwt_scopes",
    "rate_limit",
    "rate_burst",
    "max_requests_per_caller",
    "batch_callers",
    "directory",
];

/// Returns the graph of a pipeline without errors; `None` for other endpoints.
pub(crate) fn graph(endpoint: &Map<String, Value>) -> Option<Arc<Graph>> {
    Graph::read(endpoint.get(PIPELINE)?).ok().map(Arc::new)
}

/// Returns an error for each option that a pipeline cannot have.
pub(crate) fn refused_options(endpoint: &Map<String, Value>) -> Vec<String> {
    let refused =
        |name: &&String| find(Scope::Endpoint, name).is_some() && !OPTIONS.contains(&name.as_str());
    let problem = |name: &String| match name.as_str() {
        "api" | "args" => format!("an endpoint has `{PIPELINE}` or `{name}`, not both"),
        _ => format!(
            "`{name}` applies to endpoints with workers, and a pipeline has none: leave it out, or \
             give it to the endpoints that it calls"
        ),
    };
    endpoint.keys().filter(refused).map(problem).collect()
}

/// Returns all errors in the pipelines of these endpoints, each with its place.
pub(crate) fn problems(
    endpoints: &[Map<String, Value>],
    identities: &[Arc<Identity>],
) -> Vec<String> {
    let mut found = Vec::new();
    let mut graphs = Vec::new();
    for endpoint in endpoints {
        let read = endpoint.get(PIPELINE).filter(|steps| steps.is_array()).map(Graph::read);
        let label = text(endpoint, "path").unwrap_or_default();
        graphs.push(match read {
            None => None,
            Some(Ok(graph)) => Some(graph),
            Some(Err(problems)) => {
                found.extend(problems.iter().map(|it| format!("pipeline of {label}: {it}")));
                None
            }
        });
    }
    let endpoints: Vec<_> = identities
        .iter()
        .zip(&graphs)
        .map(|(identity, graph)| Endpoint { identity, graph: graph.as_ref() })
        .collect();
    found.extend(check(&endpoints));
    found
}

#[cfg(test)]
mod tests {
    use crate::{Origin, Source, parse_toml, resolve};

    fn resolved(pipeline: &str) -> Result<crate::Program, Vec<String>> {
        let text = format!(
            "[[endpoint]]\npath = \"/ocr\"\napi = \"a:A\"\nname = \"ocr\"\n\
             [[endpoint]]\npath = \"/search\"\n{pipeline}"
        );
        resolve(parse_toml(&text).unwrap(), &Origin::File("litplex.toml".into())).map_err(|e| e.0)
    }

    #[test]
    fn a_pipeline_is_read_from_toml() {
        let program = resolved(
            "timeout = 5\n[[endpoint.pipeline]]\ncall = \"ocr\"\nname = \"text\"\n\
             [[endpoint.pipeline]]\n[endpoint.pipeline.parallel]\na = \"/ocr\"\n\
             b = { call = \"/ocr\", input = \"$text.words\" }",
        );
        let endpoint = program.unwrap().endpoints.remove(1);
        let Source::Pipeline(graph) = &endpoint.source else { panic!("expected a pipeline") };
        assert_eq!(graph.endpoints(), ["ocr", "/ocr"]);
        assert_eq!(endpoint.timeout.as_secs(), 5);
    }

    #[test]
    fn errors_of_pipelines_have_their_place() {
        let errors = |pipeline: &str| resolved(pipeline).unwrap_err();
        assert_eq!(
            errors("pipeline = [\"/oc\", { call = \"/ocr\", input = \"$x\" }]").len(),
            1,
            "endpoints are looked up once the steps are read"
        );
        assert_eq!(
            errors("pipeline = [\"/oc\"]"),
            ["pipeline of /search: steps[0]: unknown endpoint \"/oc\"; did you mean \"/ocr\"?"]
        );
        assert_eq!(
            errors("pipeline = [\"/search\"]"),
            ["pipeline of /search: a pipeline must not call itself: /search → /search"]
        );
        assert!(errors("pipeline = 3")[0].contains("`pipeline` must be a list of steps"));
        assert!(
            errors("pipeline = []")[0].contains("pipeline of /search: steps: there is no step")
        );
    }

    #[test]
    fn options_of_workers_are_refused() {
        let errors =
            |option: &str| resolved(&format!("{option}\npipeline = [\"ocr\"]")).unwrap_err();
        for option in ["workers_per_device = 1", "max_batch_size = 4", "accelerator = \"cpu\""] {
            let name = option.split(' ').next().unwrap();
            let error = &errors(option)[0];
            let expected =
                format!("endpoint `/search`: `{name}` applies to endpoints with workers");
            assert!(error.starts_with(&expected), "{error}");
        }
        assert_eq!(
            errors("api = \"a:A\""),
            ["endpoint `/search`: an endpoint has `pipeline` or `api`, not both"]
        );
        assert!(resolved("rate_limit = \"1/s\"\npipeline = [\"ocr\"]").is_ok());
    }
}
