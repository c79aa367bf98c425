//! The builder of definitions for Rust programs.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// A step of a pipeline. Errors in it are reported with all others when the server starts.
///
/// ```
/// use litplex_pipelines::Step;
/// let steps = [
///     Step::call("/ocr").name("ocr").input("$request.image"),
///     Step::parallel([("lang", Step::call("/lang").soft("en")), ("vector", Step::call("/embed"))])
///         .input("$ocr.text"),
/// ];
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Step(Map<String, Value>);

impl Step {
    fn of(kind: &str, value: impl Into<Value>) -> Self {
        Self(Map::from_iter([(kind.to_owned(), value.into())]))
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Returns a step that calls the endpoint with this path or name.
    pub fn call(endpoint: impl Into<String>) -> Self {
        Self::of("call", endpoint.into())
    }

    /// Returns a step that makes a value of earlier ones and calls no endpoint: a path such as
    /// `$ocr.text`, or JSON in which texts that begin with `$` are paths.
    pub fn value(template: impl Into<Value>) -> Self {
        Self::of("value", template)
    }

    /// Returns a step that runs steps one after the other; each gets the response of the one before.
    pub fn sequence(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::of("sequence", definition(steps))
    }

    /// Returns a step that runs steps at the same time; its response is an object of theirs by name.
    pub fn parallel<N: Into<String>>(branches: impl IntoIterator<Item = (N, Step)>) -> Self {
        let branches = branches.into_iter().map(|(name, Step(step))| (name.into(), step.into()));
        Self::of("parallel", Value::Object(branches.collect()))
    }

    /// Returns a step that runs the first of these steps whose [`when`](Self::when) holds.
    pub fn switch(branches: impl IntoIterator<Item = Step>) -> Self {
        Self::of("switch", definition(branches))
    }

    /// Returns a step that runs one of these steps, drawn by [`weight`](Self::weight). Those with
    /// [`shadow`](Self::shadow) run beside it.
    pub fn splitter(branches: impl IntoIterator<Item = Step>) -> Self {
        Self::of("splitter", definition(branches))
    }

    /// Returns a step that runs another one for each item of the list at this path. Its response is
    /// the list of responses, in the order of the items.
    pub fn map(over: impl Into<String>, step: Step) -> Self {
        Self::of("map", step.0).with("over", over.into())
    }

    /// Sets the name by which later steps select from its response, and which metrics show.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with("name", name.into())
    }

    /// Sets its input: a path, or JSON in which texts that begin with `$` are paths. Default:
    /// `$response`.
    #[must_use]
    pub fn input(self, template: impl Into<Value>) -> Self {
        self.with("input", template)
    }

    /// Sets the time that it may take, to its response or to the first items of a stream.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("timeout", timeout.as_secs_f64())
    }

    /// Lets the pipeline go on with this value if the step fails.
    #[must_use]
    pub fn soft(self, default: impl Into<Value>) -> Self {
        self.with("dependency", "soft").with("default", default)
    }

    /// Sets the number of items of a [`map`](Self::map) that run at the same time. Default: 64.
    #[must_use]
    pub fn in_flight(self, items: usize) -> Self {
        self.with("in_flight", items)
    }

    /// Sets the condition of a branch of a [`switch`](Self::switch), in CEL. A branch without one is
    /// always taken.
    #[must_use]
    pub fn when(self, condition: impl Into<String>) -> Self {
        self.with("when", condition.into())
    }

    /// Sets the weight of a branch of a [`splitter`](Self::splitter); the sum need not be 100.
    #[must_use]
    pub fn weight(self, weight: f64) -> Self {
        self.with("weight", weight)
    }

    /// Makes a branch of a [`splitter`](Self::splitter) a shadow: it gets a copy of this share of the
    /// requests, from 0 to 1, and its responses are dropped.
    #[must_use]
    pub fn shadow(self, share: f64) -> Self {
        self.with("shadow", share)
    }
}

/// Returns the definition of a pipeline of these steps.
pub(crate) fn definition(steps: impl IntoIterator<Item = Step>) -> Value {
    json!(steps.into_iter().map(|Step(step)| step).collect::<Vec<_>>())
}

impl From<Step> for Value {
    fn from(Step(step): Step) -> Self {
        step.into()
    }
}
