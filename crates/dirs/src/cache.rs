//! The cache: files that litplex creates once and executes.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::{DirError, check_private, make_private, private, user};

/// The environment variable that names the directory of the cache.
const VARIABLE: &str = "LITPLEX_CACHE_DIR";

/// The directory of files that are created once and executed; no other user can write to it.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    /// The reasons why better locations are not used.
    passed_over: Vec<String>,
}

/// The error that no private directory exists for the files of this user.
#[derive(Debug, thiserror::Error)]
#[error(
    "no private directory for the files that litplex creates: {0}; set LITPLEX_CACHE_DIR to a directory of your own"
)]
pub struct NoCache(String);

impl Cache {
    /// Finds and creates the first location that only this user can write to: `$LITPLEX_CACHE_DIR`
    /// if it is set; otherwise `litplex` in `$XDG_CACHE_HOME` or in `.cache` of this user's home,
    /// or `litplex-<uid>/cache` in the directory for temporary files.
    ///
    /// # Errors
    /// No such location exists.
    pub fn locate() -> Result<Self, NoCache> {
        Self::among(places(
            env::var_os(VARIABLE),
            env::var_os("XDG_CACHE_HOME"),
            env::home_dir(),
            &env::temp_dir(),
        ))
    }

    fn among(places: Vec<PathBuf>) -> Result<Self, NoCache> {
        let mut passed_over = Vec::new();
        for place in places {
            match make_root(&place) {
                Ok(()) => return Ok(Self { root: place, passed_over }),
                Err(error) => passed_over.push(error.to_string()),
            }
        }
        Err(NoCache(passed_over.join("; ")))
    }

    /// Returns the cache in this directory, without a check.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), passed_over: Vec::new() }
    }

    /// Returns the directory of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the reasons why the cache is not in a better location, if there are any.
    pub fn passed_over(&self) -> Option<String> {
        (!self.passed_over.is_empty()).then(|| self.passed_over.join("; "))
    }

    /// Creates a directory in the cache and returns its path.
    ///
    /// # Errors
    /// See [`DirError`].
    pub fn directory(&self, name: &str) -> Result<PathBuf, DirError> {
        make_private(&self.root)?;
        let path = self.root.join(name);
        make_private(&path)?;
        Ok(path)
    }

    /// Checks that no other user can have changed the contents of a directory in the cache. The
    /// check covers the directory and its parents up to the root.
    ///
    /// # Errors
    /// See [`DirError`].
    pub fn check(&self, directory: &Path) -> Result<(), DirError> {
        let in_cache = directory.ancestors().take_while(|above| above.starts_with(&self.root));
        in_cache.into_iter().try_for_each(check_private)
    }
}

/// Returns the possible locations of the cache, the best one first.
fn places(
    chosen: Option<OsString>,
    caches: Option<OsString>,
    home: Option<PathBuf>,
    temporary: &Path,
) -> Vec<PathBuf> {
    if let Some(chosen) = chosen.filter(|chosen| !chosen.is_empty()) {
        return vec![std::path::absolute(&chosen).unwrap_or_else(|_| chosen.into())];
    }
    let caches = caches.map(PathBuf::from).filter(|caches| caches.is_absolute());
    let home = home.filter(|home| home.is_absolute()).map(|home| home.join(".cache"));
    let own = [caches, home].into_iter().flatten().map(|caches| caches.join("litplex"));
    // Another user may have created this directory first, since its name is predictable; the check
    // refuses it then.
    let temporary = temporary.join(format!("litplex-{}", user())).join("cache");
    own.chain([temporary]).collect()
}

fn make_root(place: &Path) -> Result<(), DirError> {
    if let Some(above) = place.parent().filter(|above| is_user_directory(above)) {
        make_private(above)?;
    }
    private::make_parents(place)?;
    make_private(place)?;
    access(place, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| DirError::System { path: place.to_owned(), source: error.into() })
}

/// Returns whether a path has the name of this user's directory for temporary files.
fn is_user_directory(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == format!("litplex-{}", user()).as_str())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn the_location_is_the_configured_one_the_users_own_or_a_temporary_one() {
        let temporary = format!("/tmp/litplex-{}/cache", user());
        let found = |chosen: &str, caches: &str, home: &str| {
            let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let home = set(home).map(PathBuf::from);
            let places = places(
                set(chosen).map(Into::into),
                set(caches).map(Into::into),
                home,
                "/tmp".as_ref(),
            );
            places.into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found("/c", "/x", "/h"), ["/c"]);
        assert_eq!(found("", "/x", "/h"), ["/x/litplex", "/h/.cache/litplex", &temporary]);
        assert_eq!(found("", "", "/h"), ["/h/.cache/litplex", &temporary]);
        assert_eq!(found("", "x", "/h"), ["/h/.cache/litplex", &temporary]);
        assert_eq!(found("", "", ""), [&*temporary]);
        assert_eq!(found("", "", "h"), [&*temporary]);
    }

    #[test]
    fn the_first_private_location_is_used_and_the_reasons_are_reported() {
        let outer = tempfile::tempdir().unwrap();
        let (file, own) = (outer.path().join("file"), outer.path().join("a/b/litplex"));
        fs::write(&file, "").unwrap();
        let below_file = file.join("litplex");
        let cache = Cache::among(vec![below_file.clone(), own.clone()]).unwrap();
        assert_eq!(cache.root(), own);
        assert!(cache.passed_over().unwrap().contains("file`: "));
        assert_eq!(mode_of(&own), 0o700);
        assert_eq!(mode_of(own.parent().unwrap()), 0o700, "a parent that was missing");
        let error = Cache::among(vec![below_file]).unwrap_err().to_string();
        assert!(error.ends_with("; set LITPLEX_CACHE_DIR to a directory of your own"), "{error}");
    }

    #[test]
    fn every_directory_below_the_root_is_checked() {
        let outer = tempfile::tempdir().unwrap();
        let cache = Cache::among(vec![outer.path().join("litplex")]).unwrap();
        let venvs = cache.directory("venvs").unwrap();
        let one = venvs.join("one");
        fs::create_dir(&one).unwrap();
        cache.check(&one).unwrap();
        for open in [&one, &venvs, cache.root()] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
            assert!(matches!(cache.check(&one), Err(DirError::Writable { .. })), "{open:?}");
            fs::set_permissions(open, fs::Permissions::from_mode(0o700)).unwrap();
        }
        assert!(cache.check(&venvs.join("two")).is_err(), "the directory does not exist");
    }
}
