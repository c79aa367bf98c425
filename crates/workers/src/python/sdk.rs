//! Where the Python side of the protocol lies.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use super::cache::{Digest, cache_directory, check_owner};

/// The package as it was when this program was built, so that both sides always fit.
static PACKAGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../python/litplex");

/// Returns the directory of the `litplex` Python package that belongs to this program: it is
/// written once into the user's cache, under a name that changes with its content.
///
/// # Errors
/// The cache directory cannot be written.
pub fn sdk_directory() -> io::Result<PathBuf> {
    let directory = cache_directory().join(format!("sdk-{:016x}", digest(&PACKAGE)));
    let package = directory.join("litplex");
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
    };
    if !package.is_dir() {
        write_once(&directory).map_err(named)?;
    }
    check_owner(&directory).map_err(named)?;
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

/// Writes beside the final name and renames, so that programs that start at once do not meet
/// half a package.
fn write_once(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    std::fs::create_dir_all(parent)?;
    let fresh = tempfile::Builder::new().prefix("sdk-new-").tempdir_in(parent)?;
    let package = fresh.path().join("litplex");
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

/// Over names and contents.
fn digest(directory: &Dir<'_>) -> u64 {
    let mut digest = Digest::new();
    for file in directory.files().filter(|file| is_source(file.path())) {
        digest.feed(file.path().as_os_str().as_encoded_bytes());
        digest.feed(file.contents());
    }
    for directory in directory.dirs() {
        digest.feed(&self::digest(directory).to_le_bytes());
    }
    digest.0
}
