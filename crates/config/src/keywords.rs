//! The options as typed keywords of Python, for editors and type checkers: the text of
//! `python/litplex/_keywords.py`.

use std::fmt::Write as _;

use crate::options::{CODINGS, Kind, OPTIONS, OptionDef, Scope};

const HEAD: &str = r#""""The options by name and type; generated from ``crates/config/src/options.rs``."""

from typing import Any, Literal, Optional, TypedDict, Union

Devices = Union[int, Literal["auto"], list[int], tuple[int, ...]]
Indices = Union[list[int], tuple[int, ...]]
Texts = Union[list[str], tuple[str, ...]]
"#;

/// The options that are named arguments in Python, beside `**options`.
const ARGUMENTS: [&str; 5] = ["host", "port", "path", "api", "pipeline"];

const WIDTH: usize = 100;

/// Returns the classes that type the keywords of `LitServer(…)` and `run_servers(…)`.
pub fn keywords_python() -> String {
    let server = class(
        "ServerOptions",
        Scope::Server,
        "Options of the whole server, beside ``host`` and ``port``: keywords of ``run_servers`` and \
         ``start``.",
    );
    let endpoint = class(
        "EndpointOptions",
        Scope::Endpoint,
        "Options of an endpoint, beside ``path``: keywords of ``LitServer``.",
    );
    format!("{HEAD}\n\n{server}\n\n{endpoint}")
}

fn class(name: &str, scope: Scope, summary: &str) -> String {
    let is_keyword =
        |option: &&OptionDef| option.scope == scope && !ARGUMENTS.contains(&option.name);
    let mut text = format!("class {name}(TypedDict, total=False):\n");
    wrap(&format!("\"\"\"{summary}"), "    ", "    ", &mut text);
    text += "\n    Attributes:\n";
    for option in OPTIONS.iter().filter(is_keyword) {
        wrap(&described(option), "        ", "            ", &mut text);
    }
    text += "    \"\"\"\n\n";
    for option in OPTIONS.iter().filter(is_keyword) {
        let _ = writeln!(text, "    {}: {}", option.name, python_type(option));
    }
    text
}

fn described(option: &OptionDef) -> String {
    let OptionDef { name, doc, expects, default, .. } = option;
    let doc = doc.replace('`', "``");
    let default = if default.is_empty() { "none" } else { *default };
    format!("{name}: {doc} Value: {expects}. Default: {}.", default.replace('`', "``"))
}

fn python_type(option: &OptionDef) -> String {
    let words = |words: &[&str]| {
        let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        format!("Literal[{}]", quoted.join(", "))
    };
    match option.kind {
        // Programs written for LitServe give each API its own number, or leave the choice open.
        Kind::Integer(..) if option.name == "workers_per_device" => {
            "Union[int, list[int], tuple[int, ...], dict[str, int]]".into()
        }
        Kind::Choice(choices) if option.name == "accelerator" => {
            format!("Optional[{}]", words(choices))
        }
        Kind::Choice(choices) => words(choices),
        Kind::Integer(..) => "int".into(),
        Kind::Seconds
        | Kind::PositiveSeconds
        | Kind::PositiveNumber
        | Kind::Fraction
        | Kind::Share => "float".into(),
        Kind::CountOrFalse => "Union[int, Literal[False]]".into(),
        Kind::SecondsOrFalse => "Union[float, Literal[False]]".into(),
        Kind::SecondsOr(choices) => format!("Union[float, {}]", words(choices)),
        Kind::Path | Kind::String | Kind::Name | Kind::Cost | Kind::Rate => "str".into(),
        Kind::PathOrFalse => "Union[str, Literal[False]]".into(),
        Kind::Boolean => "bool".into(),
        Kind::Devices => "Devices".into(),
        Kind::Bytes => "Union[int, str]".into(),
        Kind::Cores => "Indices".into(),
        Kind::Texts | Kind::Names | Kind::Origins | Kind::Hosts | Kind::Networks => "Texts".into(),
        Kind::Codings => {
            let coding = words(&CODINGS);
            format!("Union[bool, list[{coding}]]")
        }
        Kind::Strings | Kind::ApiKeys => "dict[str, str]".into(),
        Kind::Table => "dict[str, Any]".into(),
        Kind::Steps => "list[Any]".into(),
    }
}

/// Adds a paragraph whose lines fit.
fn wrap(paragraph: &str, first: &str, rest: &str, text: &mut String) {
    let mut line = first.to_owned();
    for word in paragraph.split(' ') {
        let is_begun = !line.trim_start().is_empty();
        if is_begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
            *text += &line;
            text.push('\n');
            line = rest.to_owned();
        } else if is_begun {
            line.push(' ');
        }
        line += word;
    }
    *text += &line;
    text.push('\n');
}
