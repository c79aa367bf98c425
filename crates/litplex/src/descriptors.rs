//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for any machine; workers inherit it, and some programs visit every number below theirs.
const MOST: u64 = 65_536;

/// Takes as many as it is entitled to, up to a sensible number. The limit that a process starts
/// with, often 1024, is kept low for programs of old that cannot deal with more.
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MOST).min(MOST);
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Returns how many connections there is room for; the rest is for workers and files, and with an app
/// host for two sockets more of each request.
pub(crate) fn for_connections(has_app_host: bool) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(MOST);
    let quarters = if has_app_host { 1 } else { 3 };
    usize::try_from(limit / 4 * quarters).unwrap_or(usize::MAX).max(1)
}
