//! The graph as text, for `litplex check` and the description of the endpoint.

use std::fmt;

use crate::graph::{Dependency, Graph, Node, Shadow, SwitchBranch, Work};
use crate::template::{RESPONSE, Template};

impl fmt::Display for Graph {
    /// Writes a line for each step, as a tree.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.steps.iter().map(|step| (String::new(), step)).collect();
        write_all(f, "", &lines)
    }
}

/// Writes steps below each other, each with the label of its branch.
fn write_all(f: &mut fmt::Formatter<'_>, indent: &str, steps: &[(String, &Node)]) -> fmt::Result {
    for (number, (label, step)) in steps.iter().enumerate() {
        let is_last = number + 1 == steps.len();
        let (branch, below) = if is_last { ("└─", "   ") } else { ("├─", "│  ") };
        writeln!(f, "{indent}{branch} {label}{}", line(step))?;
        write_all(f, &format!("{indent}{below}"), &inner(step))?;
    }
    Ok(())
}

fn line(step: &Node) -> String {
    let mut line = String::new();
    if let Some(name) = &step.name {
        line.push_str(&format!("{name}: "));
    }
    match &step.work {
        Work::Call(endpoint) => line.push_str(endpoint),
        Work::Value => line.push_str(&format!("value {}", shown(&step.input))),
        Work::Map(map) => line.push_str(&format!("map over {}", map.over)),
        work => line.push_str(work.kind()),
    }
    let is_default = matches!(&*step.input, Template::Path(path) if path.name == RESPONSE && path.segments.is_empty());
    if !is_default && !matches!(step.work, Work::Value) {
        line.push_str(&format!(" ← {}", shown(&step.input)));
    }
    if let Dependency::Soft(default) = &step.dependency {
        line.push_str(&format!(", soft: {}", String::from_utf8_lossy(default)));
    }
    if let Some(timeout) = step.timeout {
        line.push_str(&format!(", at most {timeout:?}"));
    }
    line
}

fn inner(step: &Node) -> Vec<(String, &Node)> {
    let plain = |step| (String::new(), step);
    match &step.work {
        Work::Call(_) | Work::Value => Vec::new(),
        Work::Sequence(steps) => steps.iter().map(plain).collect(),
        Work::Parallel(branches) => {
            branches.iter().map(|(name, step)| (format!("{name}: "), step)).collect()
        }
        Work::Switch(branches) => {
            let label = |when: Option<&str>| match when {
                Some(source) => format!("if {source}: "),
                None => "otherwise: ".into(),
            };
            let condition = |branch: &SwitchBranch| {
                label(branch.when.as_ref().map(|when| when.source.as_str()))
            };
            branches.iter().map(|branch| (condition(branch), &branch.step)).collect()
        }
        Work::Splitter(splitter) => {
            let shares = splitter.weights.shares().map(|share| format!("{}: ", percent(share)));
            let drawn = shares.zip(&splitter.branches);
            let shadow = |shadow: &Shadow| format!("shadow of {}: ", percent(shadow.share));
            let shadows = splitter.shadows.iter().map(|it| (shadow(it), &*it.step));
            drawn.chain(shadows).collect()
        }
        Work::Map(map) => vec![plain(&map.step)],
    }
}

/// Returns a share in percent, rounded to four digits after the point.
fn percent(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

fn shown(template: &Template) -> String {
    match template {
        Template::Path(path) => path.to_string(),
        Template::Literal(text) => String::from_utf8_lossy(text).into_owned(),
        Template::List(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        Template::Object(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|(key, field)| format!("{key}: {}", shown(field))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_steps_that_call_are_found_at_any_depth() {
        let graph = Graph::read(&json!([
            {"name": "ocr", "call": "/ocr"},
            {"parallel": {"lang": "/lang", "parts": {"map": ["/embed", {"value": 1}], "over": "$ocr"}}},
            {"switch": [{"when": "lang == 'de'", "call": "/de"}, "/en"]},
            {"splitter": [{"weight": 1, "call": "/x"}, {"shadow": 0.5, "sequence": ["/y"]}]},
        ]));
        let graph = graph.unwrap();
        let found: Vec<_> =
            graph.calling_steps().iter().map(|it| (it.endpoint, it.step, it.is_shadow)).collect();
        let plain = |endpoint| (endpoint, endpoint, false);
        let first =
            [("/ocr", "ocr", false), ("/lang", "lang", false), plain("/embed"), plain("/de")];
        let expected = [&first[..], &[plain("/en"), plain("/x"), ("/y", "/y", true)]].concat();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_graph_is_shown_as_a_tree() {
        let graph = Graph::read(&json!([
            {"name": "ocr", "call": "/ocr", "input": "$request.image", "timeout": 2.5},
            {"parallel": {
                "lang": {"call": "/lang", "dependency": "soft", "default": {"code": "en"}},
                "parts": {"map": "/embed", "over": "$ocr.chunks"},
            }},
            {"switch": [{"when": "lang.code == 'de'", "call": "/de"}, ["/a", "/b"]]},
            {"splitter": [{"weight": 3, "call": "/x"}, {"weight": 1, "call": "/y"},
                          {"shadow": 0.5, "call": "/z"}]},
            {"value": {"q": ["$request.q", 1]}},
        ]));
        assert_eq!(
            graph.unwrap().to_string(),
            r#"├─ ocr: /ocr ← $request.image, at most 2.5s
├─ parallel
│  ├─ lang: /lang, soft: {"code":"en"}
│  └─ parts: map over $ocr.chunks
│     └─ /embed
├─ switch
│  ├─ if lang.code == 'de': /de
│  └─ otherwise: sequence
│     ├─ /a
│     └─ /b
├─ splitter
│  ├─ 75 %: /x
│  ├─ 25 %: /y
│  └─ shadow of 50 %: /z
└─ value {"q": [$request.q, 1]}
"#
        );
    }
}
