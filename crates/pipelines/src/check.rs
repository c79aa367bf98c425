//! Checks of all pipelines of a server together: the endpoints that they call, and cycles among them.

use litplex_core::{FindError, Identity};

use crate::Graph;
use crate::read::closest;

/// An endpoint of the server.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'e> {
    /// The path and the names.
    pub identity: &'e Identity,
    /// The graph, if it is a pipeline.
    pub graph: Option<&'e Graph>,
}

/// Returns a sentence for each call of an endpoint that does not exist, and for each cycle of pipelines.
pub fn check(endpoints: &[Endpoint<'_>]) -> Vec<String> {
    let mut problems = Vec::new();
    // The indices of the endpoints that each one calls.
    let mut callees = vec![Vec::new(); endpoints.len()];
    for (index, Endpoint { identity, graph }) in endpoints.iter().enumerate() {
        for call in graph.iter().flat_map(|graph| &graph.calls) {
            match Identity::find_all(endpoints.iter().map(|it| it.identity), &call.endpoint) {
                Ok(found) => callees[index].extend(found),
                Err(error) => {
                    let problem = unknown(&error, endpoints, &identity.label);
                    let (label, place) = (&identity.label, &call.place);
                    problems.push(format!("pipeline of {label}: {place}: {problem}"));
                }
            }
        }
    }
    let label = |index: usize| endpoints[index].identity.label.as_str();
    problems.extend(cycles(&callees).iter().map(|cycle| {
        let shown: Vec<_> = cycle.iter().map(|&index| label(index)).collect();
        let shown = shown.join(" → ");
        format!("pipeline of {}: a pipeline must not call itself: {shown}", label(cycle[0]))
    }));
    problems
}

fn unknown(error: &FindError, endpoints: &[Endpoint<'_>], whose: &str) -> String {
    let FindError::Unknown { reference, .. } = error else { return error.to_string() };
    let others = endpoints.iter().filter(|endpoint| endpoint.identity.label != whose);
    let names = others.flat_map(|endpoint| {
        let Identity { label, name, aliases, .. } = endpoint.identity;
        [label, name].into_iter().chain(aliases).map(String::as_str)
    });
    let known = Vec::from_iter(names);
    let hint = match closest(reference, &known) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None if known.is_empty() => "there is no other endpoint".into(),
        None => {
            let others = endpoints.iter().map(|endpoint| &*endpoint.identity.label);
            let others = others.filter(|label| *label != whose);
            let labels: Vec<_> = others.map(|label| format!("\"{label}\"")).collect();
            format!("there are {}", labels.join(", "))
        }
    };
    format!("unknown endpoint \"{reference}\"; {hint}")
}

/// Returns the cycles of a graph of indices, each once: it begins and ends with the same index.
fn cycles(callees: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Search { callees, trail: Vec::new(), done: Vec::new(), cycles: Vec::new() };
    (0..callees.len()).for_each(|index| search.visit(index));
    search.cycles
}

struct Search<'c> {
    callees: &'c [Vec<usize>],
    trail: Vec<usize>,
    done: Vec<usize>,
    cycles: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, index: usize) {
        if let Some(start) = self.trail.iter().position(|earlier| *earlier == index) {
            let cycle = self.trail[start..].iter().copied().chain([index]).collect();
            if !self.cycles.contains(&cycle) {
                self.cycles.push(cycle);
            }
            return;
        }
        if self.done.contains(&index) {
            return;
        }
        self.trail.push(index);
        self.callees[index].iter().for_each(|callee| self.visit(*callee));
        self.trail.pop();
        self.done.push(index);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(endpoints: &[(&str, Value)]) -> Vec<String> {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(path, definition)| {
                let (label, path) = (path.to_string(), path.to_string());
                let name = format!("{} model", &path[1..]);
                let identity = Identity { label, path, name, ..Identity::default() };
                let graph = definition.is_array().then(|| Graph::read(definition).unwrap());
                (identity, graph)
            })
            .collect();
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(identity, graph)| Endpoint { identity, graph: graph.as_ref() })
            .collect();
        check(&endpoints)
    }

    #[test]
    fn unknown_endpoints_are_told_with_those_that_exist() {
        let search = json!([{"parallel": {"ocr": "/oc", "x": "zzz"}}, "ocr model", "/embed"]);
        let endpoints = [("/ocr", json!(0)), ("/embed", json!(0)), ("/search", search)];
        assert_eq!(
            problems(&endpoints),
            [
                "pipeline of /search: steps[0].parallel.ocr: unknown endpoint \"/oc\"; did you mean \
                 \"/ocr\"?",
                "pipeline of /search: steps[0].parallel.x: unknown endpoint \"zzz\"; there are \
                 \"/ocr\", \"/embed\"",
            ]
        );
    }

    #[test]
    fn cycles_of_pipelines_are_told() {
        let endpoints = [
            ("/a", json!(["/b"])),
            ("/b", json!(["/c", "/x"])),
            ("/c", json!(["/b", "/b"])),
            ("/d", json!(["/d"])),
            ("/x", json!(0)),
        ];
        assert_eq!(
            problems(&endpoints),
            [
                "pipeline of /b: a pipeline must not call itself: /b → /c → /b",
                "pipeline of /d: a pipeline must not call itself: /d → /d",
            ]
        );
    }

    #[test]
    fn a_diamond_is_no_cycle() {
        let endpoints = [
            ("/a", json!(["/b", "/c"])),
            ("/b", json!(["/x"])),
            ("/c", json!(["/b", "/x"])),
            ("/x", json!(0)),
        ];
        assert!(problems(&endpoints).is_empty());
    }
}
