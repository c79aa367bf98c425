//! The user's cache: what is there is made once, under a name that changes with its content.

use std::env;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Returns the directory of this program in the user's cache.
pub(super) fn cache_directory() -> PathBuf {
    let caches = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(env::temp_dir);
    caches.join("litplex")
}

/// Makes sure that a directory is this user's: where others may write, as in the system's temporary
/// directory, they may have been first.
pub(super) fn check_owner(directory: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(directory)?.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other("it belongs to somebody else; set XDG_CACHE_HOME"))
}

/// FNV-1a: it tells contents apart, it does not protect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Digest(pub(super) u64);

impl Digest {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
