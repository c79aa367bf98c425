//! Warnings about files that every user of the machine can read or write, though they decide who may
//! call the server. They are warnings, because containers often have a single user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The access of every user to a file that only its owner should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposure {
    /// Read a secret.
    Read,
    /// Write the keys that let callers in.
    Write,
}

impl Exposure {
    /// Logs a warning if the file of an option is exposed in this way.
    pub(crate) fn warn(self, option: &str, file: &Path) {
        if !self.is_there(file) {
            return;
        }
        let (verb, change) = match self {
            Self::Read => ("read", "o-rw"),
            Self::Write => ("write", "o-w"),
        };
        let file = file.display();
        tracing::warn!("`{option}`: every user can {verb} {file}; `chmod {change} {file}`");
    }

    /// Returns whether a file that exists has the permission for all users.
    fn is_there(self, file: &Path) -> bool {
        let bit = match self {
            Self::Read => 0o004,
            Self::Write => 0o002,
        };
        fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_exposed_by_the_permissions_of_all_users() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys");
        fs::write(&file, "").unwrap();
        for (mode, can_read, can_write) in [
            (0o600, false, false),
            (0o660, false, false),
            (0o644, true, false),
            (0o602, false, true),
        ] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(Exposure::Read.is_there(&file), can_read, "{mode:o}");
            assert_eq!(Exposure::Write.is_there(&file), can_write, "{mode:o}");
        }
        assert!(!Exposure::Read.is_there(Path::new("/dev/null")), "not a file");
        assert!(!Exposure::Read.is_there(&directory.path().join("missing")));
    }
}
