use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use litplex_dirs::{DirError, make_private, user};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// The longest path of a Unix socket: `sun_path` without the zero at its end.
const LONGEST_SOCKET_PATH: usize = 107;

/// The longest name that a socket in a run directory may have.
const LONGEST_SOCKET_NAME: usize = 32;

/// What a run directory is called, between its slashes: a process id, a dash, six random letters.
const LONGEST_NAME: usize = "/4194304-abcdef/".len();

/// The longest path that run directories may be kept in.
const LONGEST_ROOT: usize = LONGEST_SOCKET_PATH - LONGEST_SOCKET_NAME - LONGEST_NAME;

/// The directory of one running server, where it keeps its sockets; nobody else can enter it.
///
/// It is locked for as long as the server lives, however that ends. Dropped, it is removed.
#[derive(Debug)]
pub struct RunDir {
    // It is removed before its lock is given up.
    directory: TempDir,
    // The directory itself: those who clean up old temporary files look for that too.
    _lock: File,
}

/// Why there is no place for sockets.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another user could put other sockets there, or the system refused it.
    #[error(
        "there is no private directory for sockets: {0}; remove it, or set `XDG_RUNTIME_DIR` or \
         `TMPDIR` to a directory of your own"
    )]
    NotPrivate(#[from] DirError),
    /// The system has a limit on the path of a socket.
    #[error(
        "`{path}` is too long a path to keep sockets in; set `TMPDIR` or `XDG_RUNTIME_DIR` to a \
         shorter one, so that it has at most {LONGEST_ROOT} bytes"
    )]
    TooLong {
        /// The place.
        path: PathBuf,
    },
    /// The system refused it.
    #[error("cannot keep sockets in `{path}`: {source}")]
    System {
        /// The place.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl RunDir {
    /// Makes a directory for this server where clients look for it: in
    /// `$XDG_RUNTIME_DIR/litplex` where that is a directory of this user's, and else in
    /// `litplex-<uid>` among the temporary files.
    ///
    /// # Errors
    /// See [`RunDirError`].
    pub fn create() -> Result<Self, RunDirError> {
        Self::create_in(&choose(roots()))
    }

    /// Makes a directory for this server in `root`, which is made where it is missing, and removes
    /// those of servers that are gone.
    ///
    /// # Errors
    /// See [`RunDirError`].
    pub fn create_in(root: &Path) -> Result<Self, RunDirError> {
        if !is_short(root) {
            return Err(RunDirError::TooLong { path: root.to_owned() });
        }
        make_private(root)?;
        let create = || {
            // Another server that starts now must not take what has no lock yet for left over.
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

    /// Returns its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the path of the socket of this name, which has at most 32 bytes.
    pub fn socket(&self, name: &str) -> PathBuf {
        debug_assert!(name.len() <= LONGEST_SOCKET_NAME, "`{name}` is too long for a socket");
        self.path().join(name)
    }
}

/// Returns the directories of this user's servers, and of some that may be gone.
pub(crate) fn run_dirs() -> Vec<PathBuf> {
    let is_ours = |root: &PathBuf| {
        fs::symlink_metadata(root).is_ok_and(|root| root.is_dir() && root.uid() == user())
    };
    roots().iter().filter(|root| is_ours(root)).flat_map(|root| inside(root)).collect()
}

/// Returns where run directories may be, the best place first.
fn roots() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    roots_among(runtime, &std::env::temp_dir())
}

fn roots_among(runtime: Option<PathBuf>, temporary: &Path) -> Vec<PathBuf> {
    // After `su` it may still be that of the user before.
    let is_ours = |runtime: &PathBuf| {
        let metadata = fs::metadata(runtime);
        runtime.is_absolute() && metadata.is_ok_and(|it| it.is_dir() && it.uid() == user())
    };
    let runtime = runtime.filter(is_ours).map(|runtime| runtime.join("litplex"));
    let temporary = temporary.join(format!("litplex-{}", user()));
    runtime.into_iter().chain([temporary]).collect()
}

/// Returns the best of the places that are short enough, or else the last.
fn choose(mut roots: Vec<PathBuf>) -> PathBuf {
    let fit = roots.iter().position(|root| is_short(root));
    roots.swap_remove(fit.unwrap_or(roots.len() - 1))
}

fn is_short(root: &Path) -> bool {
    root.as_os_str().len() <= LONGEST_ROOT
}

/// Waits for the lock on a file; it is held until the file is closed.
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

/// Tells whether nobody holds the lock of a run directory.
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
    fn it_is_private_and_lives_as_long_as_its_server() {
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
    fn what_killed_servers_left_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let left_over = root.path().join("123-abcdef");
        let somebodys = root.path().join("notes");
        fs::create_dir(&left_over).unwrap();
        fs::write(left_over.join("admin.sock"), "").unwrap();
        fs::create_dir(&somebodys).unwrap();
        let alive = RunDir::create_in(root.path()).unwrap();
        let _other = RunDir::create_in(root.path()).unwrap();
        assert!(!left_over.exists());
        assert!(alive.path().exists() && somebodys.exists());
    }

    #[test]
    fn a_place_that_others_can_enter_is_closed_to_them() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("litplex");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
        let _dir = RunDir::create_in(&root).unwrap();
        assert_eq!(mode_of(&root), 0o700);
    }

    #[test]
    fn a_place_that_somebody_else_may_have_made_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("litplex");
        std::os::unix::fs::symlink(outer.path(), &root).unwrap();
        let error = RunDir::create_in(&root).unwrap_err().to_string();
        assert!(error.contains("is not a directory; remove it, or set"), "{error}");
    }

    #[test]
    fn the_place_is_the_users_own_and_short_enough() {
        let runtime = tempfile::tempdir().unwrap();
        let temporary = Path::new("/tmp").join(format!("litplex-{}", user()));
        let chosen =
            |runtime: &Path| choose(roots_among(Some(runtime.to_owned()), Path::new("/tmp")));
        assert_eq!(chosen(runtime.path()), runtime.path().join("litplex"));
        let long = runtime.path().join("x".repeat(LONGEST_ROOT));
        fs::create_dir(&long).unwrap();
        for unfit in [long.as_path(), Path::new("run"), Path::new("/no/such/directory")] {
            assert_eq!(chosen(unfit), temporary, "{unfit:?}");
        }
        let nowhere = choose(roots_among(None, &long));
        let error = RunDir::create_in(&nowhere).unwrap_err().to_string();
        assert!(error.contains("too long a path to keep sockets in; set `TMPDIR`"), "{error}");
    }
}
