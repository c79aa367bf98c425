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

/// What each worker takes: its connections, its output, and what starts it.
const OF_A_WORKER: u64 = 8;

/// What the server takes beside: its sockets, files and runtimes.
const OF_THE_SERVER: u64 = 32;

/// Returns how many connections there is room for beside so many workers. With an app host each
/// request takes two sockets more.
pub(crate) fn for_connections(has_app_host: bool, workers: usize) -> usize {
    connections(getrlimit(Resource::Nofile).current.unwrap_or(MOST), has_app_host, workers)
}

fn connections(limit: u64, has_app_host: bool, workers: usize) -> usize {
    let taken = OF_THE_SERVER + OF_A_WORKER * workers as u64;
    let quarters = if has_app_host { 1 } else { 3 };
    usize::try_from(limit.saturating_sub(taken) / 4 * quarters).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_have_their_descriptors_first() {
        assert_eq!(connections(1024, false, 0), 744);
        assert_eq!(connections(1024, true, 4), 240);
        // Thirteen endpoints, and what they need beside the connections.
        let room = connections(256, false, 13);
        assert!(room > 0 && room as u64 + 13 * OF_A_WORKER + OF_THE_SERVER <= 256);
        assert_eq!(connections(32, false, 3), 1);
    }
}
