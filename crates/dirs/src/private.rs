use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::getegid;

use crate::user;

/// The mode of a directory that nobody else can enter.
const OWNER_ONLY: u32 = 0o700;

/// The permissions by which the group and others can add, rename and remove entries.
const OTHERS_WRITE: u32 = 0o022;

/// The bit of a directory in which only the owner of an entry can rename or remove it.
const STICKY: u32 = 0o1000;

/// Why a directory cannot be trusted or made.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Its owner can replace what is in it.
    #[error("`{path}` belongs to user {owner}")]
    NotOurs {
        /// The directory, or one above it.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Other users can replace what is in it.
    #[error("other users can write to `{path}` (its mode is {mode:o})")]
    Writable {
        /// The directory, or one above it.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is a file or a symbolic link.
    #[error("`{path}` is not a directory")]
    NotADirectory {
        /// The place.
        path: PathBuf,
    },
    /// The system refused it.
    #[error("`{path}`: {source}")]
    System {
        /// The place.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Makes a directory that only this user can enter, in one that exists, and closes it to others where
/// it was open to them.
///
/// # Errors
/// See [`DirError`]; the directories above it are looked at too.
pub fn make_private(path: &Path) -> Result<(), DirError> {
    let path = check_above(path)?;
    let failed = |source| DirError::System { path: path.clone(), source };
    match DirBuilder::new().mode(OWNER_ONLY).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = look_at(&path)?;
    if found.mode() & !OWNER_ONLY & 0o777 != 0 && found.uid() == user() {
        fs::set_permissions(&path, Permissions::from_mode(OWNER_ONLY)).map_err(failed)?;
    }
    Ok(())
}

/// Checks that no other user can write to a directory, nor put another in its place.
///
/// # Errors
/// See [`DirError`].
pub fn check_private(path: &Path) -> Result<(), DirError> {
    let path = check_above(path)?;
    let found = look_at(&path)?;
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(DirError::Writable { path, mode: found.mode() & 0o7777 });
    }
    Ok(())
}

/// Makes the directories above this one where they are missing.
pub(crate) fn make_above(path: &Path) -> Result<(), DirError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(parent);
    made.map_err(|source| DirError::System { path: parent.to_owned(), source })
}

/// Returns what is at a path, which must be a directory of ours or of the system's.
fn look_at(path: &Path) -> Result<Metadata, DirError> {
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

/// Checks that no other user can rename what is above a path, and returns the path without links
/// above its last part.
fn check_above(path: &Path) -> Result<PathBuf, DirError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path.to_owned());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = fs::canonicalize(parent)
        .map_err(|source| DirError::System { path: parent.to_owned(), source })?;
    for above in parent.ancestors() {
        let found = look_at(above)?;
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

/// Returns the group's permissions where the group has this user alone: systems that give each user a
/// group of its own give it the user's number, and let it write.
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
    fn it_is_made_for_its_owner_alone_and_closed_to_others() {
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
    fn a_place_where_others_can_rename_entries_is_refused_unless_entries_stay_their_owners() {
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
    fn what_another_user_owns_is_refused() {
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
