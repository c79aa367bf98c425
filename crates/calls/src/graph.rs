//! The graph of a server: its endpoints, and the calls between them that are declared: by handles of hooks
//! and by steps of pipelines.

use std::fmt::Write;

use litplex_core::Identity;
use serde_json::{Value, json};

/// An edge of the graph: the calls of one endpoint by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEdge {
    /// The label of the endpoint that calls.
    pub caller: String,
    /// The label of the endpoint that is called.
    pub callee: String,
    /// The kind of the calls.
    pub kind: EdgeKind,
    /// The names of the steps that make them; none for calls of hooks.
    pub steps: Vec<String>,
}

/// The kind of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeKind {
    /// Calls that a hook declares.
    Call,
    /// Calls of steps of a pipeline.
    Step,
    /// Calls of shadows in a pipeline, whose responses are dropped.
    Shadow,
}

impl EdgeKind {
    /// Returns the word for the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Step => "step",
            Self::Shadow => "shadow",
        }
    }
}

/// Adds an edge: that of another step between the same endpoints gets the name of this step, too.
pub fn add_edge(edges: &mut Vec<CallEdge>, edge: CallEdge) {
    let is_same = |it: &&mut CallEdge| {
        (&it.caller, &it.callee, it.kind) == (&edge.caller, &edge.callee, edge.kind)
    };
    match edges.iter_mut().find(is_same) {
        Some(same) => same.steps.extend(edge.steps),
        None => edges.push(edge),
    }
}

/// Returns the graph of these endpoints, each with its kind: nodes by `id`, and edges from one node to
/// another.
pub fn graph_json<'g>(
    endpoints: impl IntoIterator<Item = (&'g Identity, &'g str)>,
    edges: impl IntoIterator<Item = &'g CallEdge>,
) -> Value {
    let node = |(identity, kind): (&Identity, &str)| json!({"id": identity.label, "name": identity.name, "path": identity.path, "kind": kind});
    let edge = |edge: &CallEdge| {
        let CallEdge { caller, callee, kind, steps } = edge;
        json!({"from": caller, "to": callee, "kind": kind.as_str(), "steps": steps})
    };
    json!({
        "nodes": endpoints.into_iter().map(node).collect::<Vec<_>>(),
        "edges": edges.into_iter().map(edge).collect::<Vec<_>>(),
    })
}

/// Returns a line for each edge.
pub fn graph_text<'g>(edges: impl IntoIterator<Item = &'g CallEdge>) -> String {
    let mut text = String::new();
    for CallEdge { caller, callee, kind, steps } in edges {
        let _ = write!(text, "{caller} → {callee}");
        if *kind != EdgeKind::Call {
            let _ = write!(text, " ({} {})", kind.as_str(), steps.join(", "));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(callee: &str, kind: EdgeKind, step: Option<&str>) -> CallEdge {
        let (caller, callee) = ("/a".to_owned(), callee.to_owned());
        CallEdge { caller, callee, kind, steps: step.map(str::to_owned).into_iter().collect() }
    }

    #[test]
    fn steps_between_the_same_endpoints_are_one_edge() {
        let mut edges = Vec::new();
        for edge in [
            edge("/b", EdgeKind::Call, None),
            edge("/b", EdgeKind::Step, Some("first")),
            edge("/c", EdgeKind::Step, Some("other")),
            edge("/b", EdgeKind::Step, Some("second")),
            edge("/b", EdgeKind::Shadow, Some("third")),
        ] {
            add_edge(&mut edges, edge);
        }
        let expected = "/a → /b\n/a → /b (step first, second)\n/a → /c (step other)\n\
                        /a → /b (shadow third)\n";
        assert_eq!(graph_text(&edges), expected);
        let identity = Identity { label: "/a".into(), ..Identity::default() };
        let graph = graph_json([(&identity, "pipeline")], &edges[1..2]);
        let nodes = json!([{"id": "/a", "name": "", "path": "", "kind": "pipeline"}]);
        let edge = json!({"from": "/a", "to": "/b", "kind": "step", "steps": ["first", "second"]});
        assert_eq!(graph, json!({"nodes": nodes, "edges": [edge]}));
    }
}
