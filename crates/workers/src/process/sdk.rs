//! The `litplex` Python package: the Python side of the protocol, on the disk.

use std::env;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use litplex_dirs::{Cache, Digest, DirError, make_private};

use crate::Error;

/// The package as it was when this program was built, so that both sides always fit.
static PACKAGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../python/litplex");

/// The `litplex` Python package that workers run.
#[derive(Debug, Clone, Default)]
pub struct Sdk {
    package: PathBuf,
    /// The cache into which the package is unpacked; `None` if it was installed.
    cache: Option<Cache>,
}

impl Sdk {
    /// Returns the package that was installed in this directory.
    pub fn installed(package: PathBuf) -> Self {
        Self { package, cache: None }
    }

    /// Returns the package that is part of this program. It is written once into the cache, under a name
    /// that changes with its content.
    pub fn unpacked(cache: Cache) -> Self {
        let directory = cache.root().join(format!("sdk-{}", digest(&PACKAGE)));
        Self { package: directory.join("litplex"), cache: Some(cache) }
    }

    /// Returns the directory of the package, once it exists and no other user can have changed it. Called
    /// before each start of a process, because the cache may be emptied while the server runs.
    pub(super) fn package(&self) -> Result<&Path, Error> {
        if let Some(cache) = &self.cache {
            self.unpack(cache).map_err(Error::Unpack)?;
        }
        Ok(&self.package)
    }

    fn unpack(&self, cache: &Cache) -> Result<(), DirError> {
        if !self.package.is_dir() {
            let directory = self.package.parent().unwrap_or(&self.package);
            make_private(cache.root())?;
            write_once(directory)
                .map_err(|source| DirError::System { path: directory.to_owned(), source })?;
        }
        cache.check(&self.package)
    }
}

/// Returns the default interpreter: the one beside this program, if it was installed as a Python
/// package, else that of the active virtual environment, else `python3`.
pub fn default_interpreter() -> PathBuf {
    let beside = env::current_exe().ok().map(|program| program.with_file_name("python"));
    let active = env::var_os("VIRTUAL_ENV").map(|venv| Path::new(&venv).join("bin/python"));
    let found = [beside, active].into_iter().flatten().find(|python| python.exists());
    found.unwrap_or_else(|| "python3".into())
}

/// Writes beside the final name and renames, so that programs that start at the same time do not find
/// half a package.
fn write_once(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    let fresh = tempfile::Builder::new().prefix("sdk-new-").tempdir_in(parent)?;
    let package = fresh.path().join("litplex");
    write_directory(&PACKAGE, &package)?;
    match std::fs::rename(fresh.path(), directory) {
        Err(_) if directory.is_dir() => Ok(()),
        result => result,
    }
}

fn write_directory(source: &Dir<'_>, target: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(target)?;
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

/// Returns the digest of the names and contents.
fn digest(directory: &Dir<'_>) -> Digest {
    let mut digest = Digest::new();
    for file in directory.files().filter(|file| is_source(file.path())) {
        digest.feed(file.path().as_os_str().as_encoded_bytes());
        digest.feed(file.contents());
    }
    for directory in directory.dirs() {
        digest.feed(&self::digest(directory).to_bytes());
    }
    digest
}
