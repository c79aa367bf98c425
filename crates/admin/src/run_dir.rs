//! The run directory of a server, which holds its sockets and is removed with it.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use litplex_dirs::{DirError, make_private, user};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// The longest path of a Unix socket in bytes: `sun_path` without its terminating zero.
const MAX_SOCKET_PATH: usize = 107;

/// The longest name of a socket in a run directory, in bytes.
const MAX_SOCKET_NAME: usize = 32;

/// The longest name of a run directory between its slashes: a process id, a dash, six random
/// letters.
const MAX_NAME: usize = "/4194304-abcdef/".len();

/// The longest path of the parent of run directories, in bytes.
const MAX_ROOT: usize = MAX_SOCKET_PATH - MAX_SOCKET_NAME - MAX_NAME;

/// The directory of a running server for its sockets; only its user can enter it.
///
/// The directory is locked until the server ends, however it ends, and is removed when dropped.
#[derive(Debug)]
pub struct RunDir {
    // The field order matters: the directory is removed before its lock is released.
    directory: TempDir,
    // The lock is on the directory itself, which cleaners of temporary files respect too.
    _lock: File,
}

/// The reason why there is no directory for sockets.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another user could replace the sockets, or the system refused the directory.
    #[error(
        "no private directory for sockets: {0}; remove it, or set `XDG_RUNTIME_DIR` or \
         `TMPDIR` to a directory of your own"
    )]
    NotPrivate(#[from] DirError),
    /// The path of a socket would exceed the limit of the system.
    #[error(
        "`{path}` is too long a path for sockets: expected at most {MAX_ROOT} bytes; set `TMPDIR` or \
         `XDG_RUNTIME_DIR` to a shorter path"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot create a directory for sockets in `{path}`: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl RunDir {
    /// Creates a directory for this server where clients find it: in `$XDG_RUNTIME_DIR/litplex` if
    /// this user owns `$XDG_RUNTIME_DIR`, and otherwise in `litplex-<uid>` in the directory for
    /// temporary files.
    ///
    /// # Errors
    /// See [`RunDirError`].
    pub fn create() -> Result<Self, RunDirError> {
        Self::create_in(&choose(roots()))
    }

    /// Creates a directory for this server in `root`, which is created if it is missing, and
    /// removes the directories of servers that have ended.
    ///
    /// # Errors
    /// See [`RunDirError`].
    pub fn create_in(root: &Path) -> Result<Self, RunDirError> {
        if !is_short(root) {
            return Err(RunDirError::TooLong { path: root.to_owned() });
        }
        make_private(root)?;
        let create = || {
            // A server that starts at the same time must not remove this directory before it is
            // locked.
            let _alone = lock(File::open(root)?)?;
            remove_left_over(root);
            let directory = tempfile::Builder::new()
                .prefix(&format!("{}-", std::process::id()))
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(root)?;
            let lock = lock(File::open(directory.path())?)?;
            Ok(Self { directory, _lock: lock })
        };
        create().map_err(|source| RunDirError::System { path: root.to_owned(), source })
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the path of the socket with this name of at most 32 bytes.
    pub fn socket(&self, name: &str) -> PathBuf {
        debug_assert!(name.len() <= MAX_SOCKET_NAME, "`{name}` is too long for a socket");
        self.path().join(name)
    }
}

/// Returns the directories of this user's servers; some of them may have ended.
pub(crate) fn run_dirs() -> Vec<PathBuf> {
    let is_ours = |root: &PathBuf| {
        fs::symlink_metadata(root).is_ok_and(|root| root.is_dir() && root.uid() == user())
    };
    roots().iter().filter(|root| is_ours(root)).flat_map(|root| inside(root)).collect()
}

/// Returns the possible parents of run directories, the best one first.
fn roots() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    roots_among(runtime, &std::env::temp_dir())
}

fn roots_among(runtime: Option<PathBuf>, temporary: &Path) -> Vec<PathBuf> {
    // After `su`, `$XDG_RUNTIME_DIR` may still be that of the previous user.
    let is_ours = |runtime: &PathBuf| {
        let metadata = fs::metadata(runtime);
        runtime.is_absolute() && metadata.is_ok_and(|it| it.is_dir() && it.uid() == user())
    };
    let runtime = runtime.filter(is_ours).map(|runtime| runtime.join("litplex"));
    let temporary = temporary.join(format!("litplex-{}", user()));
    runtime.into_iter().chain([temporary]).collect()
}

/// Returns the first parent that is short enough, or else the last.
fn choose(mut roots: Vec<PathBuf>) -> PathBuf {
    let fit = roots.iter().position(|root| is_short(root));
    roots.swap_remove(fit.unwrap_or(roots.len() - 1))
}

fn is_short(root: &Path) -> bool {
    root.as_os_str().len() <= MAX_ROOT
}

/// Waits for the lock on a file, which is held until the file is closed.
fn lock(file: File) -> io::Result<File> {
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn remove_left_over(root: &Path) {
    for directory in inside(root).into_iter().filter(|directory| is_left_over(directory)) {
        if let Err(error) = fs::remove_dir_all(&directory) {
            tracing::debug!("cannot remove `{}`: {error}", directory.display());
        }
    }
}

/// Returns the run directories in a root.
fn inside(root: &Path) -> Vec<PathBuf> {
    let has_name = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.split_once('-').is_some_and(|(pid, _)| pid.parse::<u32>().is_ok())
    };
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(has_name).collect()
}

/// Returns whether no server holds the lock of a run directory.
fn is_left_over(directory: &Path) -> bool {
    File::open(directory)
        .is_ok_and(|directory| flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_run_directory_is_private_and_removed_with_its_server() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("litplex");
        let (one, two) = (RunDir::create_in(&root).unwrap(), RunDir::create_in(&root).unwrap());
        assert_ne!(one.path(), two.path(), "a process may run two servers");
        assert_eq!((mode_of(&root), mode_of(one.path())), (0o700, 0o700));
        let path = one.path().to_owned();
        fs::write(one.socket("worker.sock"), "").unwrap();
        drop(one);
        assert!(!path.exists() && two.path().exists());
    }

    #[test]
    fn only_directories_of_killed_servers_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let left_over = root.path().join("123-abcdef");
        let unrelated = root.path().join("notes");
        fs::create_dir(&left_over).unwrap();
        fs::write(left_over.join("admin.sock"), "").unwrap();
        fs::create_dir(&unrelated).unwrap();
        let alive = RunDir::create_in(root.path()).unwrap();
        let _other = RunDir::create_in(root.path()).unwrap();
        assert!(!left_over.exists());
        assert!(alive.path().exists() && unrelated.exists());
    }

    #[test]
    fn a_root_that_others_can_enter_is_closed_to_them() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("litplex");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
        let _dir = RunDir::create_in(&root).unwrap();
        assert_eq!(mode_of(&root), 0o700);
    }

    #[test]
    fn a_root_that_is_a_link_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("litplex");
        std::os::unix::fs::symlink(outer.path(), &root).unwrap();
        let error = RunDir::create_in(&root).unwrap_err().to_string();
        assert!(error.contains("is not a directory; remove it, or set"), "{error}");
    }

    #[test]
    fn the_root_belongs_to_the_user_and_is_short_enough() {
        let runtime = tempfile::tempdir().unwrap();
        let temporary = Path::new("/tmp").join(format!("litplex-{}", user()));
        let chosen =
            |runtime: &Path| choose(roots_among(Some(runtime.to_owned()), Path::new("/tmp")));
        assert_eq!(chosen(runtime.path()), runtime.path().join("litplex"));
        let long = runtime.path().join("x".repeat(MAX_ROOT));
        fs::create_dir(&long).unwrap();
        for unfit in [long.as_path(), Path::new("run"), Path::new("/no/such/directory")] {
            assert_eq!(chosen(unfit), temporary, "{unfit:?}");
        }
        let nowhere = choose(roots_among(None, &long));
        let error = RunDir::create_in(&nowhere).unwrap_err().to_string();
        assert!(error.contains("too long a path for sockets: expected at most"), "{error}");
    }
}
