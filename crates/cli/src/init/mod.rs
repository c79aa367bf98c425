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
}

const AFTER_HELP: &str = "\
The project has a model that counts words, to be replaced: server.py, litplex.toml, test_server.py,
requirements.txt, requirements-test.txt, Dockerfile and .gitignore. Files that exist are not overwritten.

Example: litplex init words";

/// The files of a project.
const FILES: [(&str, &str); 7] = [
    ("server.py", include_str!("templates/server.py")),
    ("litplex.toml", include_str!("templates/litplex.toml")),
    ("test_server.py", include_str!("templates/test_server.py")),
    ("requirements.txt", include_str!("templates/requirements.txt")),
    ("requirements-test.txt", include_str!("templates/requirements-test.txt")),
    ("Dockerfile", include_str!("templates/Dockerfile")),
    (".gitignore", include_str!("templates/gitignore")),
];

pub(crate) fn run(init: &Init) -> anyhow::Result<()> {
    let directory = &init.directory;
    let existing = existing(directory);
    if !existing.is_empty() {
        let existing = existing.join("`, `");
        return Err(wrong(format!(
            "{} has `{existing}` already; nothing was written: choose another directory",
            directory.display()
        )));
    }
    write(directory)?;
    say(&next_steps(directory))
}

/// Returns the files that would be overwritten. A link without a target counts too.
fn existing(directory: &Path) -> Vec<&'static str> {
    let names = FILES.iter().map(|(name, _)| *name);
    names.filter(|name| directory.join(name).symlink_metadata().is_ok()).collect()
}

fn write(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("cannot create {shown}"))?;
    for (name, text) in FILES {
        let path = directory.join(name);
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        created
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn next_steps(directory: &Path) -> String {
    let names = Vec::from_iter(FILES.iter().map(|(name, _)| *name)).join(", ");
    let enter = match directory == Path::new(".") {
        true => String::new(),
        false => format!("  cd {}\n", directory.display()),
    };
    format!(
        "wrote {names}\n\nNext:\n{enter}  litplex check litplex.toml\n  litplex serve litplex.toml\n  \
         litplex call /words 'a fine day'      (in another terminal)\n  \
         pip install -r requirements-test.txt && pytest\n"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn files_that_exist_are_named_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let init = Init { directory: directory.path().to_owned() };
        fs::write(directory.path().join("server.py"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("Dockerfile")).unwrap();
        let message = run(&init).unwrap_err().to_string();
        assert!(message.contains("`server.py`, `Dockerfile` already"), "{message}");
        assert_eq!(fs::read_to_string(directory.path().join("server.py")).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_new_directory_has_every_file() {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path().join("a/b");
        write(&project).unwrap();
        assert_eq!(existing(&project).len(), FILES.len());
        assert!(next_steps(&project).contains("/a/b\n"));
        assert!(!next_steps(Path::new(".")).contains("cd "));
    }
}
