//! The options table and the files that are generated from it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::path::PathBuf;

use litplex_config::{Scope, keywords_python, problems, table_json, table_markdown};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    scope: String,
    options: Map<String, Value>,
    errors: Vec<String>,
}

/// The Python SDK is held to the same cases.
#[test]
fn messages_are_those_of_the_cases() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("cases.json")).unwrap();
    for case in cases {
        let scope = if case.scope == "server" { Scope::Server } else { Scope::Endpoint };
        assert_eq!(problems(scope, &case.options), case.errors, "{:?}", case.options);
    }
}

#[test]
fn generated_files_are_up_to_date() {
    check("python/litplex/_options.json", &table_json());
    check("python/litplex/_keywords.py", &keywords_python());
    check("docs/options.md", &table_markdown());
}

/// Compares a generated file, or writes it where `LITPLEX_GENERATE` is set (`make generate`).
fn check(name: &str, wanted: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    if std::env::var_os("LITPLEX_GENERATE").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{name} is not what the options table says; run `make generate`");
}
