//! Where the Python side of the protocol lies.

use std::env;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

/// The package as it was when this program was built, so that both sides always fit.
static PACKAGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../python/litmux");

/// Returns the directory of the `litmux` Python package that belongs to this program: it is
/// written once into the user's cache, under a name that changes with its content.
///
/// # Errors
/// The cache directory cannot be written.
pub fn sdk_directory() -> io::Result<PathBuf> {
    let directory = cache_directory().join("litmux").join(format!("sdk-{:016x}", digest(&PACKAGE)));
    let package = directory.join("litmux");
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
    };
    if !package.is_dir() {
        write_once(&directory).map_err(named)?;
    }
    // Where others may write, as in the system's temporary directory, they may have been first.
    let owner = std::fs::symlink_metadata(&directory).map_err(named)?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(named(io::Error::other("it belongs to somebody else; set XDG_CACHE_HOME")));
    }
    Ok(package)
}

/// Returns the interpreter of those who name none: the one beside this program, when it was
/// installed as a Python package, else that of the active virtual environment, else `python3`.
pub fn default_interpreter() -> PathBuf {
    let beside = env::current_exe().ok().map(|program| program.with_file_name("python"));
    let active = env::var_os("VIRTUAL_ENV").map(|venv| Path::new(&venv).join("bin/python"));
    let found = [beside, active].into_iter().flatten().find(|python| python.exists());
    found.unwrap_or_else(|| "python3".into())
}

fn cache_directory() -> PathBuf {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(env::temp_dir)
}

/// Writes beside the final name and renames, so that programs that start at once do not meet
/// half a package.
fn write_once(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    std::fs::create_dir_all(parent)?;
    let fresh = tempfile::Builder::new().prefix("sdk-new-").tempdir_in(parent)?;
    let package = fresh.path().join("litmux");
    write_directory(&PACKAGE, &package)?;
    match std::fs::rename(fresh.path(), directory) {
        Err(_) if directory.is_dir() => Ok(()),
        result => result,
    }
}

fn write_directory(source: &Dir<'_>, target: &Path) -> io::Result<()> {
    std::fs::create_dir_all(target)?;
    for file in source.files().filter(|file| is_source(file.path())) {
        let name = file.path().file_name().expect("a file has a name");
        std::fs::write(target.join(name), file.contents())?;
    }
    for directory in source.dirs().filter(|directory| !directory.path().ends_with("__pycache__")) {
        let name = directory.path().file_name().expect("a directory has a name");
        write_directory(directory, &target.join(name))?;
    }
    Ok(())
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py" || extension == "json")
}

/// FNV-1a over names and contents: it tells versions apart, it does not protect.
fn digest(directory: &Dir<'_>) -> u64 {
    fn feed(hash: &mut u64, bytes: &[u8]) {
        for byte in bytes {
            *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for file in directory.files().filter(|file| is_source(file.path())) {
        feed(&mut hash, file.path().as_os_str().as_encoded_bytes());
        feed(&mut hash, file.contents());
    }
    for directory in directory.dirs() {
        feed(&mut hash, &digest(directory).to_le_bytes());
    }
    hash
}
