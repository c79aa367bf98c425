//! The import of `KServe`'s `InferenceGraph`.
//!
//! Semantics that differ are translated, such as the condition of a step in a sequence, or told in a
//! note. What a pipeline cannot do is refused.

use serde_json::{Map, Value, json};

use crate::Graph;
use crate::path::is_name;
use crate::read::RESERVED;

/// A pipeline that was made of an `InferenceGraph`.
#[derive(Debug)]
pub struct Imported {
    /// The endpoint as a table of `litplex.toml`: its `path`, `timeout` and `pipeline`.
    pub endpoint: Value,
    /// What differs from the graph, and what the operator must provide.
    pub notes: Vec<String>,
}

/// Makes a pipeline of an `InferenceGraph`, which was read from YAML.
///
/// # Errors
/// Everything in the graph that a pipeline cannot do, each with its place.
pub fn import(graph: &Value) -> Result<Imported, Vec<String>> {
    if graph["kind"] != "InferenceGraph" {
        let kind = graph["kind"].as_str().unwrap_or("none");
        return Err(vec![format!(
            "expected a document of kind `InferenceGraph`, got kind `{kind}`"
        )]);
    }
    let spec = &graph["spec"];
    let mut import = Import::new(&spec["nodes"]);
    import.note_spec(spec);
    let steps = import.node("root", &mut Vec::new(), true);
    if !import.problems.is_empty() {
        return Err(import.problems);
    }
    // A pipeline is a sequence itself.
    let steps = match steps.get("sequence") {
        Some(steps) => steps.clone(),
        None => json!([steps]),
    };
    if let Err(problems) = Graph::read(&steps) {
        let problems = problems.iter().map(|it| format!("the pipeline that it becomes: {it}"));
        return Err(problems.collect());
    }
    let name = graph["metadata"]["name"].as_str().unwrap_or("graph");
    let mut endpoint = json!({"path": format!("/{name}"), "pipeline": steps});
    match &spec["timeout"] {
        Value::Null => {}
        Value::Number(timeout) if timeout.as_u64().is_some_and(|seconds| seconds > 0) => {
            endpoint["timeout"] = timeout.clone().into();
        }
        wrong => {
            let rule = "a number of seconds, greater than 0";
            return Err(vec![format!("`timeout` must be {rule}, not {wrong}")]);
        }
    }
    import.services.sort();
    import.services.dedup();
    for service in &import.services {
        let note = format!("the service `{service}` is called at `/{service}`: serve it there");
        import.notes.push(note);
    }
    Ok(Imported { endpoint, notes: import.notes })
}

struct Import<'g> {
    nodes: &'g Value,
    services: Vec<String>,
    /// The names that steps of the pipeline have.
    names: Vec<String>,
    notes: Vec<String>,
    problems: Vec<String>,
}

type Step = Map<String, Value>;

impl<'g> Import<'g> {
    fn new(nodes: &'g Value) -> Self {
        let (services, names, notes, problems) = Default::default();
        Self { nodes, services, names, notes, problems }
    }

    /// Returns this name of a step or, if another step has it, one with a number.
    fn unique(&mut self, name: String) -> String {
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let mut names = [name.clone()].into_iter().chain(numbered);
        let unique = names.find(|name| !self.names.contains(name)).unwrap_or(name);
        self.names.push(unique.clone());
        unique
    }

    fn note_spec(&mut self, spec: &Value) {
        let known = ["nodes", "timeout"];
        let other = spec.as_object().into_iter().flat_map(Map::keys);
        let other: Vec<_> = other.filter(|key| !known.contains(&key.as_str())).cloned().collect();
        if !other.is_empty() {
            let other = other.join("`, `");
            self.notes.push(format!("`{other}`: a pipeline has no deployment of its own"));
        }
    }

    /// Returns a node as a step; `trail` has the nodes around it.
    fn node(&mut self, name: &str, trail: &mut Vec<String>, is_root: bool) -> Step {
        let node = self.nodes[name].clone();
        if trail.iter().any(|outer| outer == name) {
            let cycle = trail.join(" → ");
            self.problems.push(format!("the node `{name}` contains itself: {cycle} → {name}"));
            return Step::new();
        }
        trail.push(name.to_owned());
        let steps = node["steps"].as_array().cloned().unwrap_or_default();
        let made = match node["routerType"].as_str() {
            Some("Sequence") => self.sequence(name, &steps, trail, is_root),
            Some("Switch") => step("switch", self.switch(name, &steps, trail)),
            Some("Ensemble") => step("parallel", self.ensemble(name, &steps, trail)),
            Some("Splitter") => step("splitter", self.splitter(name, &steps, trail)),
            Some(other) => {
                let kinds = "Sequence, Switch, Ensemble and Splitter";
                self.problems.push(format!(
                    "node `{name}`: unknown `routerType` `{other}`; there are {kinds}"
                ));
                Step::new()
            }
            None => {
                self.problems.push(format!("there is no node `{name}` with a `routerType`"));
                Step::new()
            }
        };
        trail.pop();
        made
    }

    fn sequence(
        &mut self,
        name: &str,
        steps: &[Value],
        trail: &mut Vec<String>,
        is_root: bool,
    ) -> Step {
        // `$request` of a node is the input of the node.
        let is_input = |(number, step): (usize, &Value)| number > 0 && step["data"] != "$response";
        let mut input = "request".to_owned();
        let mut made = Vec::new();
        if !is_root && steps.iter().enumerate().any(is_input) {
            input = self.unique(format!("{}_input", identifier(name)));
            made.push(json!({"name": input, "value": "$response"}));
        }
        if steps.first().is_some_and(|first| first["condition"].is_string()) {
            self.problems.push(format!(
                "node `{name}`, step 0: its condition is about the response of a step before it, and \
                 there is none; remove it, or make the node a Switch"
            ));
        }
        self.rest(name, steps, 0, &input, trail, made)
    }

    /// Returns the steps from this one on, after those that are made already.
    fn rest(
        &mut self,
        name: &str,
        steps: &[Value],
        from: usize,
        input: &str,
        trail: &mut Vec<String>,
        mut made: Vec<Value>,
    ) -> Step {
        for (number, given) in steps.iter().enumerate().skip(from) {
            let place = format!("node `{name}`, step {number}");
            let is_new = given["condition"].is_string() && number > from;
            if is_new && let Some(when) = self.condition(&place, given) {
                let mut taken = self.rest(name, steps, number, input, trail, Vec::new());
                taken.insert("when".into(), when.into());
                made.push(json!({"switch": [taken, {"value": "$response"}]}));
                return step("sequence", made.into());
            }
            let mut step = self.step(&place, given, trail);
            if number > 0 && given["data"] != "$response" {
                step.insert("input".into(), format!("${input}").into());
            }
            made.push(step.into());
        }
        step("sequence", made.into())
    }

    fn switch(&mut self, name: &str, steps: &[Value], trail: &mut Vec<String>) -> Value {
        let mut branches = Vec::new();
        for (number, given) in steps.iter().enumerate() {
            let place = format!("node `{name}`, step {number}");
            let mut step = self.step(&place, given, trail);
            if let Some(when) = self.condition(&place, given) {
                step.insert("when".into(), when.into());
            }
            branches.push(Value::from(step));
        }
        branches.into()
    }

    fn ensemble(&mut self, name: &str, steps: &[Value], trail: &mut Vec<String>) -> Value {
        let mut branches = Map::new();
        for (number, given) in steps.iter().enumerate() {
            let place = format!("node `{name}`, step {number}");
            let given_name = given["name"].as_str().map(str::to_owned);
            let key = given_name.unwrap_or_else(|| number.to_string());
            let branch = identifier(&key);
            if branch != key {
                let note = format!("{place}: the key `{key}` of the response is `{branch}`");
                self.notes.push(note);
            }
            let mut step = self.step(&place, given, trail);
            step.remove("name");
            branches.insert(branch, step.into());
        }
        branches.into()
    }

    fn splitter(&mut self, name: &str, steps: &[Value], trail: &mut Vec<String>) -> Value {
        let mut branches = Vec::new();
        for (number, given) in steps.iter().enumerate() {
            let place = format!("node `{name}`, step {number}");
            if given["weight"] == 0 {
                self.notes.push(format!("{place}: left out, because its weight is 0"));
                continue;
            }
            let mut step = self.step(&place, given, trail);
            match (&given["weight"], given["weight"].as_u64()) {
                (_, Some(weight)) => drop(step.insert("weight".into(), weight.into())),
                (Value::Null, _) => self.problems.push(format!("{place}: it has no `weight`")),
                (wrong, _) => {
                    let rule = "an integer, 0 or greater";
                    self.problems.push(format!("{place}: `weight` must be {rule}, not {wrong}"));
                }
            }
            branches.push(Value::from(step));
        }
        branches.into()
    }

    fn step(&mut self, place: &str, given: &Value, trail: &mut Vec<String>) -> Step {
        let mut made = match (given["serviceName"].as_str(), given["nodeName"].as_str()) {
            (Some(service), _) => {
                self.services.push(service.to_owned());
                step("call", format!("/{service}").into())
            }
            (None, Some(node)) => self.node(node, trail, false),
            (None, None) if given["serviceUrl"].is_string() => {
                let url = &given["serviceUrl"];
                self.problems.push(format!(
                    "{place}: `serviceUrl` {url} is outside of this server, and a pipeline calls \
                     endpoints of its own server; serve the model here and write `serviceName`"
                ));
                Step::new()
            }
            (None, None) => {
                self.problems.push(format!("{place}: it has no `serviceName` and no `nodeName`"));
                Step::new()
            }
        };
        let is_call = made.contains_key("call");
        if let Some(name) = given["name"].as_str().filter(|_| is_call) {
            let name = self.unique(identifier(name));
            made.insert("name".into(), name.into());
        }
        if ![Value::Null, "$request".into(), "$response".into()].contains(&given["data"]) {
            let data = &given["data"];
            self.problems
                .push(format!("{place}: `data` must be \"$request\" or \"$response\", not {data}"));
        }
        match &given["dependency"] {
            Value::String(dependency) if dependency == "Soft" => {
                made.insert("dependency".into(), "soft".into());
                self.note(
                    "a soft step that failed has the value null; KServe has the error as value",
                );
            }
            Value::String(dependency) if dependency == "Hard" => {}
            Value::Null => {
                self.note(
                    "a failed step fails the request; KServe goes on with the error as value",
                );
            }
            wrong => self
                .problems
                .push(format!("{place}: `dependency` must be \"Hard\" or \"Soft\", not {wrong}")),
        }
        made
    }

    /// Adds a note, once.
    fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.into());
        }
    }

    /// Returns the condition of a step in CEL, if it has one that can be translated.
    fn condition(&mut self, place: &str, given: &Value) -> Option<String> {
        let condition = given["condition"].as_str()?;
        let translated = translate(condition);
        if translated.is_none() {
            self.problems.push(format!(
                "{place}: the GJSON condition `{condition}` cannot be translated; expected a path, \
                 `[@this].#(key==value)` or `path.#(key==value)`; write the condition in CEL"
            ));
        }
        translated
    }
}

fn step(kind: &str, value: Value) -> Step {
    Step::from_iter([(kind.to_owned(), value)])
}

/// Returns a name that steps may have.
fn identifier(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(allowed).collect();
    if is_name(&name) && !RESERVED.contains(&name.as_str()) { name } else { format!("_{name}") }
}

/// Translates a GJSON path, whose existence `KServe` tests, into CEL.
fn translate(condition: &str) -> Option<String> {
    let Some((list, query)) = condition.split_once("#(") else {
        let (guard, _) = field("response", condition)?;
        return Some(guard);
    };
    let query = query.strip_suffix(')')?;
    let list = list.strip_suffix('.').unwrap_or(list);
    if list == "[@this]" {
        return comparison("response", query);
    }
    let (guard, list) = if list.is_empty() {
        (String::new(), "response".to_owned())
    } else {
        let (guard, list) = field("response", list)?;
        (format!("{guard} && "), list)
    };
    Some(format!("{guard}{list}.exists(it, {})", comparison("it", query)?))
}

/// Translates `key.path==value`.
fn comparison(of: &str, query: &str) -> Option<String> {
    let at = query.find(['=', '!', '<', '>'])?;
    let (path, rest) = query.split_at(at);
    let operator =
        ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|it| rest.starts_with(it))?;
    let value: Value = serde_json::from_str(rest[operator.len()..].trim()).ok()?;
    if value.is_array() || value.is_object() {
        return None;
    }
    let (guard, field) = field(of, path.trim())?;
    Some(format!("{guard} && {field} {operator} {value}"))
}

/// Returns the test of the existence of a field, and the field.
fn field(of: &str, path: &str) -> Option<(String, String)> {
    let (mut guards, mut expression) = (Vec::new(), of.to_owned());
    for key in path.split('.') {
        if key.is_empty() || key.contains(['#', '@', '*', '?', '|', '[', '{', '\\', '!', '(']) {
            return None;
        }
        if let Ok(index) = key.parse::<usize>() {
            guards.push(format!("size({expression}) > {index}"));
            expression = format!("{expression}[{index}]");
        } else if is_name(key) {
            expression = format!("{expression}.{key}");
            guards.push(format!("has({expression})"));
        } else {
            let key = Value::from(key);
            guards.push(format!("{key} in {expression}"));
            expression = format!("{expression}[{key}]");
        }
    }
    Some((guards.join(" && "), expression))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Graph;

    fn imported(nodes: &Value) -> Result<Imported, Vec<String>> {
        import(&json!({
            "kind": "InferenceGraph",
            "metadata": {"name": "dogs"},
            "spec": {"nodes": nodes, "timeout": 20, "minReplicas": 1},
        }))
    }

    /// Returns the steps, which are a valid definition.
    fn steps(nodes: &Value) -> Value {
        let imported = imported(nodes).unwrap();
        let steps = imported.endpoint["pipeline"].clone();
        Graph::read(&steps).unwrap();
        steps
    }

    #[test]
    fn every_kind_of_node_is_translated() {
        let nodes = json!({
            "root": {"routerType": "Sequence", "steps": [
                {"serviceName": "classifier", "name": "class-ifier", "dependency": "Hard"},
                {"nodeName": "both", "data": "$response"},
                {"nodeName": "split", "data": "$request"},
            ]},
            "both": {"routerType": "Ensemble", "steps": [
                {"serviceName": "a", "name": "x"},
                {"serviceName": "b", "dependency": "Soft"},
            ]},
            "split": {"routerType": "Splitter", "steps": [
                {"serviceName": "a", "weight": 90},
                {"nodeName": "pick", "weight": 10},
                {"serviceName": "c", "weight": 0},
            ]},
            "pick": {"routerType": "Switch", "steps": [
                {"serviceName": "dog", "condition": "[@this].#(predictions.0==\"dog\")"},
                {"serviceName": "cat", "condition": "instances.#(modelId==1)"},
                {"serviceName": "any", "condition": "a.b-c"},
            ]},
        });
        assert_eq!(
            steps(&nodes),
            json!([
                {"call": "/classifier", "name": "class_ifier"},
                {"parallel": {"x": {"call": "/a"}, "_1": {"call": "/b", "dependency": "soft"}}},
                {"input": "$request", "splitter": [
                    {"call": "/a", "weight": 90},
                    {"weight": 10, "switch": [
                        {"call": "/dog", "when": "has(response.predictions) && \
                            size(response.predictions) > 0 && response.predictions[0] == \"dog\""},
                        {"call": "/cat", "when": "has(response.instances) && \
                            response.instances.exists(it, has(it.modelId) && it.modelId == 1)"},
                        {"call": "/any", "when": "has(response.a) && \"b-c\" in response.a"},
                    ]},
                ]},
            ])
        );
        let imported = imported(&nodes).unwrap();
        assert_eq!(imported.endpoint["path"], "/dogs");
        assert_eq!(imported.endpoint["timeout"], 20);
        let notes = imported.notes.join("\n");
        for expected in
            ["`minReplicas`", "its weight is 0", "`_1`", "`/classifier`", "KServe goes on"]
        {
            assert!(notes.contains(expected), "{expected}: {notes}");
        }
    }

    #[test]
    fn the_condition_of_a_step_in_a_sequence_ends_it() {
        let nodes = json!({"root": {"routerType": "Sequence", "steps": [
            {"nodeName": "inner"},
        ]}, "inner": {"routerType": "Sequence", "steps": [
            {"serviceName": "pet"},
            {"serviceName": "breed", "condition": "dog"},
            {"serviceName": "last", "data": "$response"},
        ]}});
        assert_eq!(
            steps(&nodes),
            json!([{"sequence": [
                {"name": "inner_input", "value": "$response"},
                {"call": "/pet"},
                {"switch": [
                    {"when": "has(response.dog)", "sequence": [
                        {"call": "/breed", "input": "$inner_input"},
                        {"call": "/last"},
                    ]},
                    {"value": "$response"},
                ]},
            ]}])
        );
    }

    #[test]
    fn names_that_repeat_get_numbers() {
        let twice = json!({"routerType": "Sequence", "steps": [
            {"serviceName": "a", "name": "x"},
            {"serviceName": "b", "name": "x"},
        ]});
        let nodes = json!({
            "root": {"routerType": "Sequence", "steps": [
                {"nodeName": "twice", "data": "$response"},
                {"nodeName": "twice", "data": "$response"},
                {"nodeName": "both", "data": "$response"},
                {"nodeName": "both", "data": "$response"},
            ]},
            "twice": twice,
            "both": {"routerType": "Ensemble", "steps": [{"serviceName": "c"}, {"serviceName": "d"}]},
        });
        let steps = steps(&nodes);
        assert_eq!(steps[0]["sequence"][0]["name"], "twice_input");
        assert_eq!(steps[0]["sequence"][2]["name"], "x_2");
        assert_eq!(steps[1]["sequence"][1]["name"], "x_3");
        assert_eq!(steps[1]["sequence"][2]["input"], "$twice_input_2");
        assert_eq!(steps[2], steps[3], "keys of responses are kept");
    }

    #[test]
    fn what_cannot_be_carried_over_is_refused_with_its_place() {
        let switch = |step: Value| json!({"root": {"routerType": "Switch", "steps": [step]}});
        let sequence = |step: Value| json!({"root": {"routerType": "Sequence", "steps": [step]}});
        for (nodes, expected) in [
            (switch(json!({"serviceName": "a", "condition": "a.#(b%\"x*\")"})), "GJSON condition"),
            (
                sequence(json!({"serviceUrl": "http://x/y"})),
                "`serviceUrl` \"http://x/y\" is outside",
            ),
            (sequence(json!({"nodeName": "root"})), "the node `root` contains itself: root → root"),
            (sequence(json!({"nodeName": "x"})), "there is no node `x`"),
            (sequence(json!({})), "node `root`, step 0: it has no `serviceName`"),
            (json!({}), "there is no node `root`"),
            (json!({"root": {"routerType": "Loop"}}), "unknown `routerType` `Loop`"),
            (json!({"root": {"routerType": "Ensemble"}}), "steps[0].parallel: there is no step"),
            (sequence(json!({"serviceName": "a", "condition": "x"})), "a step before it"),
            (sequence(json!({"serviceName": "a", "data": "$respons"})), "not \"$respons\""),
            (sequence(json!({"serviceName": "a", "dependency": "Weak"})), "not \"Weak\""),
            (
                json!({"root": {"routerType": "Splitter", "steps": [
                    {"serviceName": "a", "weight": -1}]}}),
                "`weight` must be an integer, 0 or greater, not -1",
            ),
        ] {
            let problems = imported(&nodes).unwrap_err();
            assert!(problems[0].contains(expected), "{problems:?}");
        }
        let mut graph = json!({"kind": "InferenceGraph", "spec": {"timeout": "2s", "nodes":
            {"root": {"routerType": "Sequence", "steps": [{"serviceName": "a"}]}}}});
        assert!(import(&graph).unwrap_err()[0].contains("`timeout` must be a number of seconds"));
        graph["spec"]["timeout"] = 2.into();
        assert_eq!(import(&graph).unwrap().endpoint["timeout"], 2);
        assert!(import(&json!({"kind": "Pod"})).unwrap_err()[0].contains("got kind `Pod`"));
    }
}
