//! `litplex init`: writes the files of a new project.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::say::say;
use crate::wrong::wrong;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Init {
    /// The directory of the project; it is created if it does not exist
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// Write a program in Rust with a model in Rust, which needs cargo
    #[arg(long)]
    rust: bool,
}

const AFTER_HELP: &str = "\
The project has a model that counts words, to be replaced.
  In Python: server.py, litplex.toml, test_server.py, requirements.txt, requirements-test.txt, Dockerfile
             and .gitignore.
  In Rust:   Cargo.toml, src/lib.rs, src/main.rs, tests/server.rs, Dockerfile, .dockerignore and .gitignore.
Files that exist are not overwritten.

Examples:
  litplex init words
  litplex init --rust words";

/// The files of a project, and the first commands in it.
struct Project {
    files: &'static [(&'static str, &'static str)],
    steps: &'static str,
}

const PYTHON: Project = Project {
    files: &[
        ("server.py", include_str!("templates/python/server.py")),
        ("litplex.toml", include_str!("templates/python/litplex.toml")),
        ("test_server.py", include_str!("templates/python/test_server.py")),
        ("requirements.txt", include_str!("templates/python/requirements.txt")),
        ("requirements-test.txt", include_str!("templates/python/requirements-test.txt")),
        ("Dockerfile", include_str!("templates/python/Dockerfile")),
        (".gitignore", include_str!("templates/python/gitignore")),
    ],
    steps: "  litplex check litplex.toml
  litplex serve litplex.toml
  litplex call /words 'a fine day'      (in another terminal)
  pip install -r requirements-test.txt && pytest
",
};

const RUST: Project = Project {
    files: &[
        ("Cargo.toml", include_str!("templates/rust/Cargo.toml")),
        ("src/lib.rs", include_str!("templates/rust/lib.rs")),
        ("src/main.rs", include_str!("templates/rust/main.rs")),
        ("tests/server.rs", include_str!("templates/rust/server_test.rs")),
        ("Dockerfile", include_str!("templates/rust/Dockerfile")),
        (".dockerignore", include_str!("templates/rust/dockerignore")),
        (".gitignore", include_str!("templates/rust/gitignore")),
    ],
    steps: "  cargo run
  litplex call /words 'a fine day'      (in another terminal)
  cargo test
",
};

pub(crate) fn run(init: &Init) -> anyhow::Result<()> {
    let (directory, project) = (&init.directory, if init.rust { &RUST } else { &PYTHON });
    let existing = existing(project, directory);
    if !existing.is_empty() {
        let existing = existing.join("`, `");
        return Err(wrong(format!(
            "{} has `{existing}` already; nothing was written: choose another directory",
            directory.display()
        )));
    }
    write(project, directory)?;
    say(&next_steps(project, directory))
}

/// Returns the files that would be overwritten. A link without a target counts too.
fn existing(project: &Project, directory: &Path) -> Vec<&'static str> {
    let names = project.files.iter().map(|(name, _)| *name);
    names.filter(|name| directory.join(name).symlink_metadata().is_ok()).collect()
}

fn write(project: &Project, directory: &Path) -> anyhow::Result<()> {
    for (name, text) in project.files {
        let path = directory.join(name);
        let folder = path.parent().unwrap_or(directory);
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        created
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn next_steps(project: &Project, directory: &Path) -> String {
    let names = Vec::from_iter(project.files.iter().map(|(name, _)| *name)).join(", ");
    let enter = match directory == Path::new(".") {
        true => String::new(),
        false => format!("  cd {}\n", directory.display()),
    };
    format!("wrote {names}\n\nNext:\n{enter}{}", project.steps)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_that_exist_are_named_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let init = Init { directory: directory.path().to_owned(), rust: false };
        fs::write(directory.path().join("server.py"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("Dockerfile")).unwrap();
        let message = run(&init).unwrap_err().to_string();
        assert!(message.contains("`server.py`, `Dockerfile` already"), "{message}");
        assert_eq!(fs::read_to_string(directory.path().join("server.py")).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_new_directory_has_every_file() {
        for project in [&PYTHON, &RUST] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a/b");
            write(project, &path).unwrap();
            assert_eq!(existing(project, &path).len(), project.files.len());
            assert!(next_steps(project, &path).contains("/a/b\n"));
            assert!(!next_steps(project, Path::new(".")).contains("cd "));
        }
    }

    #[test]
    fn a_rust_project_depends_on_the_repository_and_the_rust_of_this_version() {
        let (_, manifest) = RUST.files[0];
        let git = concat!("git = \"", env!("CARGO_PKG_REPOSITORY"), "\"");
        let rust = concat!("rust-version = \"", env!("CARGO_PKG_RUST_VERSION"), "\"");
        assert!(manifest.contains(git) && manifest.contains(rust), "{manifest}");
        let (_, dockerfile) = RUST.files[4];
        assert!(dockerfile.contains(concat!(
            "FROM rust:",
            env!("CARGO_PKG_RUST_VERSION"),
            "-slim"
        )));
    }
}
