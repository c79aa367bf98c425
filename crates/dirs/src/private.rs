//! Private directories: their creation, and the check that no other user can change them.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::getegid;

use crate::user;

/// The mode of a directory that only its owner can enter.
const OWNER_ONLY: u32 = 0o700;

/// The permissions that allow the group and others to add, rename and remove entries.
const OTHERS_WRITE: u32 = 0o022;

/// The bit of a directory in which only the owner of an entry can rename or remove it.
const STICKY: u32 = 0o1000;

/// The reason why a directory cannot be trusted or created.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another user owns the directory and can replace its contents.
    #[error("`{path}` belongs to user {owner}")]
    NotOurs {
        /// The directory or one of its parents.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Other users can replace the contents of the directory.
    #[error("other users can write to `{path}` (its mode is {mode:o})")]
    Writable {
        /// The directory or one of its parents.
        path: PathBuf,
        /// The permissions of the directory.
        mode: u32,
    },
    /// The path is a file or a symbolic link.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("`{path}`: {source}")]
    System {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// Creates a directory that only this user can enter, inside an existing one. An existing directory
/// of this user is closed to others.
///
/// # Errors
/// See [`DirError`]; the parents are checked too.
pub fn make_private(path: &Path) -> Result<(), DirError> {
    let path = check_parents(path)?;
    let failed = |source| DirError::System { path: path.clone(), source };
    match DirBuilder::new().mode(OWNER_ONLY).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = trusted_directory(&path)?;
    if found.mode() & !OWNER_ONLY & 0o777 != 0 && found.uid() == user() {
        fs::set_permissions(&path, Permissions::from_mode(OWNER_ONLY)).map_err(failed)?;
    }
    Ok(())
}

/// Checks that no other user can write to a directory or replace it.
///
/// # Errors
/// See [`DirError`].
pub fn check_private(path: &Path) -> Result<(), DirError> {
    let path = check_parents(path)?;
    let found = trusted_directory(&path)?;
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(DirError::Writable { path, mode: found.mode() & 0o7777 });
    }
    Ok(())
}

/// Creates the missing parents of a directory.
pub(crate) fn make_parents(path: &Path) -> Result<(), DirError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(parent);
    made.map_err(|source| DirError::System { path: parent.to_owned(), source })
}

/// Returns the metadata of a directory that this user or the system owns.
fn trusted_directory(path: &Path) -> Result<Metadata, DirError> {
    let found = fs::symlink_metadata(path)
        .map_err(|source| DirError::System { path: path.to_owned(), source })?;
    if !found.is_dir() {
        return Err(DirError::NotADirectory { path: path.to_owned() });
    }
    if !is_trusted(found.uid()) {
        return Err(DirError::NotOurs { path: path.to_owned(), owner: found.uid() });
    }
    Ok(found)
}

/// Checks that no other user can rename a parent of this path. Returns the path without symbolic
/// links in its parents.
fn check_parents(path: &Path) -> Result<PathBuf, DirError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path.to_owned());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = fs::canonicalize(parent)
        .map_err(|source| DirError::System { path: parent.to_owned(), source })?;
    for above in parent.ancestors() {
        let found = trusted_directory(above)?;
        let is_sticky = found.mode() & STICKY != 0;
        if !is_sticky && found.mode() & OTHERS_WRITE & !own_group(&found) != 0 {
            let mode = found.mode() & 0o7777;
            return Err(DirError::Writable { path: above.to_owned(), mode });
        }
    }
    Ok(parent.join(name))
}

fn is_trusted(owner: u32) -> bool {
    owner == user() || owner == 0
}

/// Returns the group's permissions if the group has no member but this user: systems with a group
/// per user give it the user's id and write permission.
fn own_group(found: &Metadata) -> u32 {
    let is_own = found.gid() == user() && getegid().as_raw() == user() && found.uid() == user();
    if is_own { 0o070 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_is_created_for_its_owner_and_closed_to_others() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("own");
        for before in [0o700, 0o777, 0o755] {
            make_private(&path).unwrap();
            assert_eq!(mode_of(&path), 0o700);
            check_private(&path).unwrap();
            set_mode(&path, before);
        }
        set_mode(&path, 0o770);
        assert!(matches!(check_private(&path), Err(DirError::Writable { .. })));
    }

    #[test]
    fn a_link_or_a_file_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let (link, file) = (outer.path().join("link"), outer.path().join("file"));
        symlink(outer.path(), &link).unwrap();
        fs::write(&file, "").unwrap();
        for path in [&link, &file] {
            assert!(matches!(make_private(path), Err(DirError::NotADirectory { .. })));
            assert!(matches!(check_private(path), Err(DirError::NotADirectory { .. })));
        }
    }

    #[test]
    fn a_parent_where_others_can_rename_entries_is_refused_unless_it_is_sticky() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("own");
        make_private(&path).unwrap();
        set_mode(outer.path(), 0o777);
        for checked in [make_private(&path), check_private(&path)] {
            let error = checked.unwrap_err();
            assert!(matches!(&error, DirError::Writable { mode: 0o777, .. }), "{error}");
        }
        set_mode(outer.path(), 0o1777);
        check_private(&path).unwrap();
        set_mode(outer.path(), 0o700);
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        if user() != 0 {
            return;
        }
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("own");
        make_private(&path).unwrap();
        for owned in [&path, outer.path()] {
            std::os::unix::fs::chown(owned, Some(65534), None).unwrap();
            for checked in [make_private(&path), check_private(&path)] {
                assert!(matches!(checked, Err(DirError::NotOurs { owner: 65534, .. })));
            }
            std::os::unix::fs::chown(owned, Some(0), None).unwrap();
        }
    }
}
