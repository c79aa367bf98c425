//! From the JSON of a definition to a [`Graph`]; all errors are found at once, each with its place.
//!
//! A name is visible to the steps after its own in the same sequence, and to those inside of them. So a
//! value that a step selects always exists: what a branch of a switch or a splitter, or an item of a
//! map, computes is visible inside of it alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use litplex_core::ShadowRoom;
use serde_json::{Map as Object, Value};

use crate::condition::Condition;
use crate::draw::Weights;
use crate::graph::{
    Dependency, Graph, Map, Node, PlacedCall, Shadow, Splitter, SwitchBranch, Work,
};
use crate::path::{Path, is_name};
use crate::template::{RESPONSE, Template};

/// The name of the client's request.
pub(crate) const REQUEST: &str = "request";

/// The name of the item of a map.
pub(crate) const ITEM: &str = "item";

/// The names that steps may not have: values of their own, and words of CEL.
pub(crate) const RESERVED: [&str; 8] =
    [REQUEST, RESPONSE, ITEM, "in", "true", "false", "null", "type"];

const KINDS: [&str; 7] = ["call", "value", "sequence", "parallel", "switch", "splitter", "map"];

/// The keys that each step may have.
const COMMON: [&str; 5] = ["name", "input", "timeout", "dependency", "default"];

const DEFAULT_IN_FLIGHT: usize = 64;

/// The largest number of items of a map that run at the same time.
const MOST_IN_FLIGHT: u64 = 10_000;

/// The longest timeout of a step, in seconds: that of options.
const LONGEST: f64 = 1e9;

impl Graph {
    /// Reads a definition: a list of steps.
    ///
    /// # Errors
    /// All errors, each with its place in the definition.
    pub fn read(definition: &Value) -> Result<Self, Vec<String>> {
        let mut reader = Reader::default();
        let names = Names(vec![REQUEST.into(), RESPONSE.into()]);
        let steps = match definition {
            Value::Array(steps) => reader.sequence("steps", steps, &names),
            other => {
                reader.problems.push(format!(
                    "expected a list of steps, got {}; in TOML write `[[endpoint.pipeline]]` before \
                     each step",
                    kind_of(other)
                ));
                Vec::new()
            }
        };
        let Reader { problems, calls } = reader;
        if problems.is_empty() {
            Ok(Self { definition: definition.clone(), steps, calls })
        } else {
            Err(problems)
        }
    }
}

/// The names that are visible to a step.
#[derive(Debug, Clone)]
struct Names(Vec<Arc<str>>);

impl Names {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| **known == *name)
    }

    fn with(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([name.into()]).collect())
    }
}

/// The kind of branch that a step is, which may have keys of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Position {
    Plain,
    Switch,
    Splitter,
    /// A branch of a parallel; its name is the key.
    Parallel,
}

#[derive(Default)]
struct Reader {
    problems: Vec<String>,
    calls: Vec<PlacedCall>,
}

impl Reader {
    fn problem(&mut self, place: &str, problem: impl AsRef<str>) {
        self.problems.push(format!("{place}: {}", problem.as_ref()));
    }

    /// Reads steps that run one after the other.
    fn sequence(&mut self, place: &str, steps: &[Value], names: &Names) -> Vec<Node> {
        if steps.is_empty() {
            self.problem(place, "there is no step; write at least one");
        }
        let mut names = names.clone();
        let mut read = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            let place = format!("{place}[{number}]");
            let Some(step) = self.step(&place, step, &names, Position::Plain) else { continue };
            names.0.extend(added_names(&step));
            read.push(step);
        }
        read
    }

    fn step(&mut self, place: &str, json: &Value, names: &Names, at: Position) -> Option<Node> {
        let fields = match json {
            Value::Object(fields) => fields.clone(),
            Value::String(_) => Object::from_iter([("call".to_owned(), json.clone())]),
            Value::Array(_) => Object::from_iter([("sequence".to_owned(), json.clone())]),
            other => {
                let found = kind_of(other);
                self.problem(
                    place,
                    format!("expected a step, got {found}; write `call = \"/path\"`"),
                );
                return None;
            }
        };
        let kind = self.kind(place, &fields)?;
        self.check_keys(place, kind, &fields, at);
        let name = self.name(place, &fields, names, at);
        let input = self.input(place, kind, &fields, names);
        let timeout = self.timeout(place, &fields);
        let dependency = self.dependency(place, &fields);
        let work = self.work(place, kind, &fields, names)?;
        let label = match (&name, &work) {
            (Some(name), _) => name.clone(),
            (None, Work::Call(endpoint)) => endpoint.as_str().into(),
            (None, work) => work.kind().into(),
        };
        Some(Node {
            name,
            label,
            place: place.into(),
            input: input.into(),
            timeout,
            dependency,
            work,
        })
    }

    /// Returns the kind of a step: the one key of [`KINDS`] that it has.
    fn kind(&mut self, place: &str, fields: &Object<String, Value>) -> Option<&'static str> {
        let mut found = KINDS.into_iter().filter(|kind| fields.contains_key(*kind));
        match (found.next(), found.next()) {
            (Some(kind), None) => Some(kind),
            (Some(one), Some(other)) => {
                self.problem(place, format!("a step has one of `{one}` and `{other}`, not both"));
                None
            }
            (None, _) => {
                let misspelled = fields.keys().find_map(|key| closest(key, &KINDS));
                let hint = misspelled.map(|kind| format!("; did you mean `{kind}`?"));
                let kinds = KINDS.map(|kind| format!("`{kind}`")).join(", ");
                let hint = hint.unwrap_or_else(|| format!("; write one of {kinds}"));
                self.problem(place, format!("the step has no kind{hint}"));
                None
            }
        }
    }

    fn check_keys(
        &mut self,
        place: &str,
        kind: &str,
        fields: &Object<String, Value>,
        at: Position,
    ) {
        let mut known = Vec::from(COMMON);
        known.push(kind);
        match kind {
            "map" => known.extend(["over", "in_flight"]),
            // The value itself is the template.
            "value" => known.retain(|key| *key != "input"),
            _ => {}
        }
        match at {
            Position::Switch => known.push("when"),
            Position::Splitter => known.extend(["weight", "shadow"]),
            Position::Plain | Position::Parallel => {}
        }
        for key in fields.keys().filter(|key| !known.contains(&key.as_str())) {
            let hint = match closest(key, &known) {
                Some(known) => format!("did you mean `{known}`?"),
                None if key == "when" => "only branches of a switch have a condition".into(),
                None if ["weight", "shadow"].contains(&key.as_str()) => {
                    "only branches of a splitter have it".into()
                }
                None => format!("a `{kind}` has: {}", known.join(", ")),
            };
            self.problem(place, format!("there is no key `{key}`; {hint}"));
        }
    }

    fn name(
        &mut self,
        place: &str,
        fields: &Object<String, Value>,
        names: &Names,
        at: Position,
    ) -> Option<Arc<str>> {
        let name = match fields.get("name")? {
            Value::String(name) => name,
            other => {
                self.problem(place, format!("`name` must be a text, not {other}"));
                return None;
            }
        };
        if at == Position::Parallel {
            self.problem(place, "the key is the name of a parallel step; leave `name` out");
        } else {
            self.check_name(place, name);
            if names.has(name) && !RESERVED.contains(&name.as_str()) {
                self.problem(place, format!("an earlier step has the name `{name}`, too"));
            }
        }
        Some(name.as_str().into())
    }

    fn check_name(&mut self, place: &str, name: &str) {
        if RESERVED.contains(&name) {
            self.problem(place, format!("the name `{name}` is reserved; choose another"));
        } else if !is_name(name) {
            let rule = "letters, digits and `_`, the first one no digit";
            self.problem(place, format!("invalid name `{name}`: expected {rule}"));
        }
    }

    fn input(
        &mut self,
        place: &str,
        kind: &str,
        fields: &Object<String, Value>,
        names: &Names,
    ) -> Template {
        let key = if kind == "value" { "value" } else { "input" };
        match fields.get(key) {
            Some(json) => self.template(place, json, names),
            None => Template::response(),
        }
    }

    fn template(&mut self, place: &str, json: &Value, names: &Names) -> Template {
        let mut wrong = Vec::new();
        let template = Template::read(json, &mut wrong);
        template.each_path(&mut |path| wrong.extend(unknown_name(path, names)));
        wrong.iter().for_each(|problem| self.problem(place, problem));
        template
    }

    fn timeout(&mut self, place: &str, fields: &Object<String, Value>) -> Option<Duration> {
        let given = fields.get("timeout")?;
        let seconds = given.as_f64().filter(|seconds| *seconds > 0.0 && *seconds <= LONGEST);
        let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        if timeout.is_none() {
            let rule = "a number of seconds, greater than 0";
            self.problem(place, format!("`timeout` must be {rule}, not {given}"));
        }
        timeout
    }

    fn dependency(&mut self, place: &str, fields: &Object<String, Value>) -> Dependency {
        let default = fields.get("default");
        match fields.get("dependency").map(|word| word.as_str().unwrap_or_default()) {
            Some("soft") => {
                Dependency::Soft(Bytes::from(default.unwrap_or(&Value::Null).to_string()))
            }
            None | Some("hard") => {
                if default.is_some() {
                    let advice = "add `dependency = \"soft\"`";
                    self.problem(place, format!("`default` needs a soft dependency; {advice}"));
                }
                Dependency::Hard
            }
            Some(_) => {
                let given = &fields["dependency"];
                let problem = format!("`dependency` must be \"hard\" or \"soft\", not {given}");
                self.problem(place, problem);
                Dependency::Hard
            }
        }
    }

    fn work(
        &mut self,
        place: &str,
        kind: &str,
        fields: &Object<String, Value>,
        names: &Names,
    ) -> Option<Work> {
        let given = &fields[kind];
        let inner = format!("{place}.{kind}");
        match (kind, given) {
            ("call", Value::String(endpoint)) if !endpoint.is_empty() => {
                let call = PlacedCall { place: place.into(), endpoint: endpoint.clone() };
                self.calls.push(call);
                Some(Work::Call(endpoint.clone()))
            }
            ("value", _) => Some(Work::Value),
            ("sequence", Value::Array(steps)) => {
                Some(Work::Sequence(self.sequence(&inner, steps, names)))
            }
            ("parallel", Value::Object(branches)) => {
                if let Some(name) = fields.get("name").and_then(Value::as_str)
                    && branches.contains_key(name)
                {
                    self.problem(place, format!("a branch has the name `{name}`, too"));
                }
                Some(Work::Parallel(self.parallel(&inner, branches, names)))
            }
            ("switch", Value::Array(branches)) => {
                Some(Work::Switch(self.switch(&inner, branches, names)))
            }
            ("splitter", Value::Array(branches)) => {
                Some(Work::Splitter(self.splitter(&inner, branches, names)))
            }
            ("map", step) => self.map(place, step, fields, names),
            (_, other) => {
                let expected = match kind {
                    "call" => "the path or the name of an endpoint",
                    "parallel" => "a table of steps by name",
                    _ => "a list of steps",
                };
                let found = kind_of(other);
                self.problem(place, format!("`{kind}` must be {expected}, not {found}"));
                None
            }
        }
    }

    fn parallel(
        &mut self,
        place: &str,
        branches: &Object<String, Value>,
        names: &Names,
    ) -> Vec<(Arc<str>, Node)> {
        if branches.is_empty() {
            self.problem(place, "there is no step; write at least one");
        }
        let mut read = Vec::new();
        for (name, step) in branches {
            let place = format!("{place}.{name}");
            self.check_name(&place, name);
            if let Some(mut step) = self.step(&place, step, names, Position::Parallel) {
                let name: Arc<str> = name.as_str().into();
                step.label = name.clone();
                read.push((name, step));
            }
        }
        read
    }

    fn switch(&mut self, place: &str, branches: &[Value], names: &Names) -> Vec<SwitchBranch> {
        if branches.is_empty() {
            self.problem(place, "there is no branch; write at least one");
        }
        let mut read = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        let mut ends_at = None;
        for (number, json) in branches.iter().enumerate() {
            let place = format!("{place}[{number}]");
            if let Some(end) = ends_at {
                let why = format!("branch [{end}] is always taken");
                self.problem(&place, format!("the branch is never reached, because {why}"));
            }
            let when = self.when(&place, json, names, &mut seen);
            let is_always = match &when {
                None => json.get("when").is_none(),
                Some(when) => when.constant() == Some(true),
            };
            if when.as_ref().and_then(Condition::constant) == Some(false) {
                self.problem(&place, "the branch is never reached, because its condition is false");
            }
            ends_at = ends_at.or(is_always.then_some(number));
            if let Some(step) = self.step(&place, json, names, Position::Switch) {
                read.push(SwitchBranch { when: when.map(Arc::new), step });
            }
        }
        read
    }

    fn when(
        &mut self,
        place: &str,
        branch: &Value,
        names: &Names,
        seen: &mut Vec<String>,
    ) -> Option<Condition> {
        let source = match branch.get("when")? {
            Value::String(source) => source,
            other => {
                self.problem(place, format!("`when` must be a condition in CEL, not {other}"));
                return None;
            }
        };
        if seen.contains(source) {
            self.problem(
                place,
                "the branch is never reached, because an earlier one has its condition",
            );
        }
        seen.push(source.clone());
        match Condition::read(source, |name| names.has(name)) {
            Ok(condition) => Some(condition),
            Err(problem) => {
                self.problem(place, problem);
                None
            }
        }
    }

    fn splitter(&mut self, place: &str, branches: &[Value], names: &Names) -> Splitter {
        let (mut weights, mut drawn, mut shadows) = (Vec::new(), Vec::new(), Vec::new());
        for (number, json) in branches.iter().enumerate() {
            let place = format!("{place}[{number}]");
            let step = self.step(&place, json, names, Position::Splitter);
            let share = json.get("shadow").and_then(|share| self.share(&place, share));
            if json.get("shadow").is_some() {
                if json.get("weight").is_some() {
                    self.problem(&place, "a branch has a `weight` or is a `shadow`, not both");
                }
                let shadow = step.zip(share);
                let room = ShadowRoom::default();
                let shadow =
                    shadow.map(|(step, share)| Shadow { share, room, step: Arc::new(step) });
                shadows.extend(shadow);
                continue;
            }
            let weight = self.weight(&place, json.get("weight"));
            if let Some((step, weight)) = step.zip(weight) {
                weights.push(weight);
                drawn.push(step);
            }
        }
        let is_shadow = |branch: &&Value| branch.get("shadow").is_some();
        if branches.iter().filter(is_shadow).count() == branches.len() {
            self.problem(place, "no branch has a weight, so no branch answers; write at least one");
        }
        Splitter { weights: Weights::new(weights), branches: drawn, shadows }
    }

    fn weight(&mut self, place: &str, given: Option<&Value>) -> Option<f64> {
        let Some(given) = given else {
            self.problem(place, "the branch has no `weight`; write a number greater than 0");
            return None;
        };
        match given.as_f64() {
            Some(weight) if weight > 0.0 && weight <= 1e15 => return Some(weight),
            Some(0.0) => {
                let advice = "give it a weight or leave it out";
                self.problem(
                    place,
                    format!("the branch is never reached, because its weight is 0; {advice}"),
                );
            }
            _ => {
                let rule = "a number greater than 0 and at most 1e15";
                self.problem(place, format!("`weight` must be {rule}, not {given}"));
            }
        }
        None
    }

    fn share(&mut self, place: &str, given: &Value) -> Option<f64> {
        let share = given.as_f64().filter(|share| *share > 0.0 && *share <= 1.0);
        if share.is_none() {
            let rule = "the share of requests that it gets, above 0 and at most 1";
            self.problem(place, format!("`shadow` must be {rule}, not {given}"));
        }
        share
    }

    fn map(
        &mut self,
        place: &str,
        step: &Value,
        fields: &Object<String, Value>,
        names: &Names,
    ) -> Option<Work> {
        let over = match fields.get("over") {
            None => Some(Path { name: RESPONSE.into(), segments: Vec::new() }),
            Some(Value::String(text)) => match Path::parse(text) {
                Ok(path) => {
                    let unknown = unknown_name(&path, names);
                    unknown.iter().for_each(|problem| self.problem(place, problem));
                    Some(path)
                }
                Err(problem) => {
                    self.problem(place, problem);
                    None
                }
            },
            Some(other) => {
                self.problem(place, format!("`over` must be the path of a list, not {other}"));
                None
            }
        };
        let in_flight = match fields.get("in_flight").map(|given| (given, given.as_u64())) {
            None => DEFAULT_IN_FLIGHT,
            Some((_, Some(items))) if (1..=MOST_IN_FLIGHT).contains(&items) => items as usize,
            Some((given, _)) => {
                let rule = format!("an integer from 1 to {MOST_IN_FLIGHT}");
                self.problem(place, format!("`in_flight` must be {rule}, not {given}"));
                DEFAULT_IN_FLIGHT
            }
        };
        let names = names.with(ITEM);
        let step = self.step(&format!("{place}.map"), step, &names, Position::Plain);
        Some(Work::Map(Box::new(Map { over: over?, in_flight, step: Arc::new(step?) })))
    }
}

/// Returns the names that a step makes visible: its own and, as they have all run, those of parallel
/// branches.
fn added_names(step: &Node) -> Vec<Arc<str>> {
    let is_hard = matches!(step.dependency, Dependency::Hard);
    let branches: Vec<_> = match &step.work {
        Work::Parallel(branches) if is_hard => {
            branches.iter().map(|(name, _)| name.clone()).collect()
        }
        _ => Vec::new(),
    };
    branches.into_iter().chain(step.name.iter().cloned()).collect()
}

fn unknown_name(path: &Path, names: &Names) -> Option<String> {
    if names.has(&path.name) {
        return None;
    }
    if path.name == ITEM {
        return Some(format!("`{path}`: there is an `$item` only inside of a map"));
    }
    let known: Vec<&str> = names.0.iter().map(|name| &**name).collect();
    let hint = match closest(&path.name, &known) {
        Some(name) => format!("did you mean `${name}`?"),
        None => {
            let known: Vec<_> = known.iter().map(|name| format!("`${name}`")).collect();
            format!("there are {}", known.join(", "))
        }
    };
    Some(format!("`{path}`: no step before it has the name `{}`; {hint}", path.name))
}

/// Returns the most similar word, if one is similar.
pub(crate) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let likeness = |known: &&&str| strsim::normalized_damerau_levenshtein(known, word);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) > 0.6).then_some(best)
}

/// Returns what a value is, in words.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(definition: &Value) -> Vec<String> {
        Graph::read(definition).err().unwrap_or_default()
    }

    #[test]
    fn every_kind_of_step_is_read() {
        let graph = Graph::read(&json!([
            {"name": "ocr", "call": "/ocr", "input": "$request.image", "timeout": 2.5},
            {"parallel": {"lang": "/lang", "ner": {"call": "/ner", "dependency": "soft"}}},
            {"map": {"call": "/embed", "input": "$item.text"}, "over": "$ocr.chunks"},
            {"switch": [
                {"when": "lang.code == 'de'", "call": "/de"},
                {"sequence": ["/a", {"call": "/b", "input": {"q": "$ner", "l": "$lang.code"}}]},
            ]},
            {"splitter": [
                {"weight": 9, "call": "/a"},
                {"weight": 0.5, "call": "/b"},
                {"shadow": 1, "call": "/c"},
            ]},
            {"value": {"answer": "$response", "text": "$ocr.text"}},
        ]));
        let graph = graph.unwrap();
        assert_eq!(graph.steps.len(), 6);
        let called = ["/ocr", "/lang", "/ner", "/embed", "/de", "/a", "/b", "/c"];
        assert_eq!(graph.endpoints(), called);
        assert_eq!(graph.calls[1].place, "steps[1].parallel.lang");
    }

    #[test]
    fn errors_have_their_place() {
        for (definition, expected) in [
            (json!({}), "expected a list of steps, got a table"),
            (json!([]), "steps: there is no step"),
            (json!([{}]), "steps[0]: the step has no kind; write one of `call`"),
            (json!([{"cal": "/a"}]), "steps[0]: the step has no kind; did you mean `call`?"),
            (json!([{"call": "/a", "value": 1}]), "one of `call` and `value`, not both"),
            (json!([{"call": "/a", "nmae": "x"}]), "no key `nmae`; did you mean `name`?"),
            (json!([{"call": "/a", "when": "x"}]), "only branches of a switch have a condition"),
            (json!([{"call": 1}]), "steps[0]: `call` must be the path or the name of an endpoint"),
            (json!([{"call": "/a", "name": "request"}]), "the name `request` is reserved"),
            (json!([{"call": "/a", "name": "a-b"}]), "invalid name `a-b`"),
            (json!([{"call": "/a", "timeout": 0}]), "`timeout` must be a number of seconds"),
            (json!([{"call": "/a", "default": 0}]), "`default` needs a soft dependency"),
            (json!([{"call": "/a", "dependency": "weak"}]), "must be \"hard\" or \"soft\""),
            (json!([{"call": "/a", "input": "$ocr.x"}]), "no step before it has the name `ocr`"),
            (json!([{"call": "/a", "input": ["$requst"]}]), "did you mean `$request`?"),
            (json!([{"call": "/a", "input": "$item"}]), "`$item` only inside of a map"),
            (json!([{"call": "/a", "input": "$a..b"}]), "steps[0]: invalid path `$a..b`"),
            (json!([{"parallel": {"x": 1}}]), "steps[0].parallel.x: expected a step, got a number"),
            (json!([{"parallel": {"x": {"call": "/a", "name": "y"}}}]), "leave `name` out"),
            (json!([{"parallel": {"x": "/a"}, "name": "x"}]), "a branch has the name `x`, too"),
            (json!([{"parallel": {}}]), "steps[0].parallel: there is no step"),
            (json!([{"switch": []}]), "steps[0].switch: there is no branch"),
            (json!([{"map": "/a", "over": "$a["}]), "steps[0]: invalid path"),
            (json!([{"map": "/a", "in_flight": 0}]), "`in_flight` must be an integer from 1"),
            (json!([{"map": {"call": 7}}]), "steps[0].map: `call` must be"),
            (json!([["/a", {"sequence": []}]]), "steps[0].sequence[1].sequence: there is no step"),
        ] {
            let found = problems(&definition);
            assert!(found.iter().any(|it| it.contains(expected)), "{definition}: {found:?}");
            assert_eq!(found.len(), 1, "{found:?}");
        }
    }

    #[test]
    fn all_errors_are_found_at_once() {
        let found = problems(&json!(["/a", {"cal": "/a"}, {"call": "/a", "timeout": -1}]));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn branches_that_are_never_reached_are_errors() {
        let reach = |branches: Value| problems(&json!([{"switch": branches}]));
        let after_default = reach(json!(["/a", {"when": "request.x == 1", "call": "/b"}]));
        assert!(after_default[0].starts_with("steps[0].switch[1]: the branch is never reached"));
        let twice = json!({"when": "request.x == 1", "call": "/b"});
        assert!(reach(json!([twice, twice]))[0].contains("an earlier one has its condition"));
        let never = json!([{"when": "1 > 2", "call": "/a"}, "/b"]);
        assert!(reach(never)[0].contains("its condition is false"));
        let always = json!([{"when": "true", "call": "/a"}, "/b"]);
        assert!(reach(always)[0].contains("branch [0] is always taken"));
        assert!(reach(json!([{"when": "request.x == 1", "call": "/a"}, "/b"])).is_empty());
    }

    #[test]
    fn weights_are_positive() {
        let split = |branches: Value| problems(&json!([{"splitter": branches}]));
        let weight = |weight: Value| json!({"weight": weight, "call": "/a"});
        assert!(split(json!([weight(json!(0))]))[0].contains("its weight is 0"));
        assert!(split(json!([weight(json!(-1))]))[0].contains("`weight` must be a number greater"));
        assert!(split(json!(["/a"]))[0].contains("has no `weight`"));
        assert!(split(json!([]))[0].contains("no branch has a weight"));
        let shadow = json!({"shadow": 1, "call": "/a"});
        assert!(split(json!([shadow]))[0].contains("no branch answers"));
        assert!(split(json!([{"shadow": 2, "call": "/a"}, weight(json!(1))]))[0].contains("share"));
        assert!(split(json!([weight(json!(1)), weight(json!(0.001)), shadow])).is_empty());
    }

    #[test]
    fn a_name_is_visible_where_its_value_always_exists() {
        let input = |name: &str| json!({"call": "/z", "input": format!("${name}")});
        let named = json!({"call": "/a", "name": "a"});
        let in_switch = json!([{"switch": [named]}, input("a")]);
        let in_map = json!([{"map": named}, input("a")]);
        let in_splitter = json!([{"splitter": [{"weight": 1, "sequence": [named]}]}, input("a")]);
        let soft = json!([{"parallel": {"a": "/a"}, "dependency": "soft"}, input("a")]);
        let beside = json!([{"parallel": {"a": "/a", "b": input("a")}}]);
        for hidden in [in_switch, in_map, in_splitter, soft, beside] {
            assert!(problems(&hidden)[0].contains("no step before it"), "{hidden}");
        }
        let inside = json!([named, {"switch": [[{"map": input("a")}, input("a")]]}]);
        let branches = json!([{"parallel": {"a": "/a", "b": "/b"}}, input("a"), input("b")]);
        for visible in [inside, branches] {
            assert!(problems(&visible).is_empty(), "{:?}", problems(&visible));
        }
        assert!(problems(&json!([named, named]))[0].contains("an earlier step has the name `a`"));
        // Keys of a parallel are those of its response, which must be free to repeat.
        let again = json!([named, {"parallel": {"a": {"value": "$a"}}}, input("a")]);
        assert!(problems(&again).is_empty(), "{:?}", problems(&again));
    }
}
