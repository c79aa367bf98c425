//! The graph of a pipeline, as it was read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use litplex_core::ShadowRoom;
use serde_json::Value;

use crate::condition::Condition;
use crate::draw::Weights;
use crate::path::Path;
use crate::template::Template;

/// The graph of a pipeline. It has at least one step.
#[derive(Debug)]
pub struct Graph {
    /// The definition that it was read from.
    pub(crate) definition: Value,
    pub(crate) steps: Vec<Node>,
    /// The calls of endpoints, each with its place in the definition.
    pub(crate) calls: Vec<PlacedCall>,
}

/// The endpoint that a step calls.
#[derive(Debug)]
pub(crate) struct PlacedCall {
    pub(crate) place: String,
    pub(crate) endpoint: String,
}

/// A step that calls an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallingStep<'g> {
    /// The path or the name of the endpoint.
    pub endpoint: &'g str,
    /// The name of the step in metrics and errors.
    pub step: &'g str,
    /// Whether it is a shadow, or a part of one.
    pub is_shadow: bool,
}

/// A step.
#[derive(Debug)]
pub(crate) struct Node {
    /// The name by which other steps select from its response.
    pub(crate) name: Option<Arc<str>>,
    /// Its name in metrics, spans and errors: the name, or else the endpoint or the kind.
    pub(crate) label: Arc<str>,
    /// The place in the definition.
    pub(crate) place: String,
    pub(crate) input: Arc<Template>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) dependency: Dependency,
    pub(crate) work: Work,
}

/// What becomes of the pipeline if a step fails.
#[derive(Debug)]
pub(crate) enum Dependency {
    /// It fails, too.
    Hard,
    /// It goes on with this JSON text.
    Soft(Bytes),
}

/// The kinds of steps.
#[derive(Debug)]
pub(crate) enum Work {
    /// Calls the endpoint with this path or name.
    Call(String),
    /// Returns its input.
    Value,
    Sequence(Vec<Node>),
    Parallel(Vec<(Arc<str>, Node)>),
    Switch(Vec<SwitchBranch>),
    Splitter(Splitter),
    Map(Box<Map>),
}

/// A branch of a switch; one without a condition is always taken.
#[derive(Debug)]
pub(crate) struct SwitchBranch {
    pub(crate) when: Option<Arc<Condition>>,
    pub(crate) step: Node,
}

/// Branches that are drawn by weight, and shadows.
#[derive(Debug)]
pub(crate) struct Splitter {
    pub(crate) weights: Weights,
    pub(crate) branches: Vec<Node>,
    pub(crate) shadows: Vec<Shadow>,
}

/// A step that gets a copy of a share of the requests.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) share: f64,
    /// The room for the copies that run at the same time.
    pub(crate) room: ShadowRoom,
    pub(crate) step: Arc<Node>,
}

/// A step that runs for each item of a list.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) over: Path,
    pub(crate) in_flight: usize,
    pub(crate) step: Arc<Node>,
}

impl Graph {
    /// Returns the endpoints that it calls, each once, in the order of the definition.
    pub fn endpoints(&self) -> Vec<&str> {
        let mut endpoints = Vec::new();
        for call in &self.calls {
            if !endpoints.contains(&&*call.endpoint) {
                endpoints.push(&call.endpoint);
            }
        }
        endpoints
    }

    /// Returns the steps that call endpoints, in the order of the definition.
    pub fn calling_steps(&self) -> Vec<CallingStep<'_>> {
        let mut found = Vec::new();
        self.steps.iter().for_each(|step| step.add_calls(false, &mut found));
        found
    }

    /// Returns the definition that it was read from.
    pub fn definition(&self) -> &Value {
        &self.definition
    }
}

impl Node {
    /// Adds the steps that call endpoints.
    fn add_calls<'g>(&'g self, is_shadow: bool, found: &mut Vec<CallingStep<'g>>) {
        let mut add = |step: &'g Self, is_shadow| step.add_calls(is_shadow, found);
        match &self.work {
            Work::Call(endpoint) => {
                found.push(CallingStep { endpoint, step: &self.label, is_shadow });
            }
            Work::Value => {}
            Work::Sequence(steps) => steps.iter().for_each(|step| add(step, is_shadow)),
            Work::Parallel(branches) => branches.iter().for_each(|(_, step)| add(step, is_shadow)),
            Work::Switch(branches) => branches.iter().for_each(|it| add(&it.step, is_shadow)),
            Work::Splitter(splitter) => {
                splitter.branches.iter().for_each(|step| add(step, is_shadow));
                splitter.shadows.iter().for_each(|shadow| add(&shadow.step, true));
            }
            Work::Map(map) => add(&map.step, is_shadow),
        }
    }
}

impl PartialEq for Graph {
    /// Compares the definitions: equal ones are the same graph.
    fn eq(&self, other: &Self) -> bool {
        self.definition == other.definition
    }
}

impl Work {
    /// Returns the word of the definition for the kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Value => "value",
            Self::Sequence(_) => "sequence",
            Self::Parallel(_) => "parallel",
            Self::Switch(_) => "switch",
            Self::Splitter(_) => "splitter",
            Self::Map(_) => "map",
        }
    }
}
