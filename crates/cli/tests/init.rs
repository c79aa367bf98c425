//! The project that `litplex init --rust` writes: its sources are compiled here as they are, and its tests run.
//! The packages that it needs are those of this workspace, so that nothing is built twice.

#![allow(missing_docs, missing_debug_implementations, clippy::unwrap_used)]

// The name of the project, by which its files call its library.
extern crate self as words;

#[path = "../src/init/templates/rust/lib.rs"]
mod project;
#[allow(dead_code)]
#[path = "../src/init/templates/rust/main.rs"]
mod project_main;
#[path = "../src/init/templates/rust/server_test.rs"]
mod project_test;

use std::path::Path;
use std::process::Command;

pub use project::*;

#[test]
fn cargo_reads_the_manifest_and_finds_the_targets() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("words");
    let mut init = Command::new(env!("CARGO_BIN_EXE_litplex"));
    assert!(init.args(["init", "--rust"]).arg(&path).status().unwrap().success());
    let described = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(&path)
        .output()
        .unwrap();
    assert!(described.status.success(), "{}", String::from_utf8_lossy(&described.stderr));
    let described: serde_json::Value = serde_json::from_slice(&described.stdout).unwrap();
    let package = &described["packages"][0];
    let targets = package["targets"].as_array().unwrap().iter();
    let sources = targets.map(|target| target["src_path"].as_str().unwrap());
    let mut sources =
        Vec::from_iter(sources.map(|file| Path::new(file).strip_prefix(&path).unwrap()));
    sources.sort_unstable();
    assert_eq!(sources, ["src/lib.rs", "src/main.rs", "tests/server.rs"].map(Path::new));
    let packages = package["dependencies"].as_array().unwrap().iter();
    let packages = Vec::from_iter(packages.map(|package| package["name"].as_str().unwrap()));
    assert_eq!(packages, ["litplex", "serde", "serde_json", "tokio"]);
}
