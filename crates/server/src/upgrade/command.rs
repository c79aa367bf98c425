//! The command that starts a program again.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file of this process's executable, also if another file has taken its path.
const RUNNING: &str = "/proc/self/exe";

/// The command that starts a program again. The path of its executable is followed when it starts: a file that
/// was replaced, or a link that leads to another version, counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartCommand {
    program: PathBuf,
    args: Vec<OsString>,
}

impl StartCommand {
    /// Returns the command with which this process was started.
    ///
    /// # Errors
    /// The system does not say where its executable is.
    pub fn this_process() -> std::io::Result<Self> {
        let mut args = env::args_os();
        let name = args.next().unwrap_or_default();
        Ok(Self { program: executable(&name)?, args: args.collect() })
    }

    /// Replaces the arguments.
    #[must_use]
    pub fn with_args(self, args: Vec<OsString>) -> Self {
        Self { args, ..self }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args);
        command
    }
}

impl fmt::Display for StartCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", arg.display()))
    }
}

/// Returns the path under which this process was started, given its name; a link stays one.
fn executable(name: &OsStr) -> std::io::Result<PathBuf> {
    let directories = if Path::new(name).components().count() > 1 {
        vec![env::current_dir().unwrap_or_default()]
    } else {
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
    };
    let mut paths = directories.into_iter().map(|directory| directory.join(name));
    match paths.find(|path| is_same(path, Path::new(RUNNING))) {
        Some(path) => Ok(path),
        // It was started under another name.
        None => env::current_exe(),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino()));
    matches!((file(one), file(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_the_executable_is_followed_when_it_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("litplex");
        std::os::unix::fs::symlink(env::current_exe().unwrap(), &link).unwrap();
        assert_eq!(executable(link.as_os_str()).unwrap(), link);
        let unknown = executable(OsStr::new("no-such-program")).unwrap();
        assert_eq!(unknown, env::current_exe().unwrap());
        let other = executable(OsStr::new("/bin/sh")).unwrap();
        assert_eq!(other, env::current_exe().unwrap(), "a name that is not the executable's own");
    }

    #[test]
    fn a_command_is_shown_with_its_arguments() {
        let command = StartCommand { program: "/bin/litplex".into(), args: Vec::new() };
        let command = command.with_args(vec!["serve".into(), "server.py".into()]);
        assert_eq!(command.to_string(), "/bin/litplex serve server.py");
    }
}
