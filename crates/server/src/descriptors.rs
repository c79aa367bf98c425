//! The limit of open files and sockets of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit that is enough for any machine. Workers inherit the limit, and some programs close every
/// number below it.
const MOST: u64 = 65_536;

/// Raises the limit as far as the process may, up to `MOST`. Processes start with a low limit, often
/// 1024, for programs that use select(2).
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MOST).min(MOST);
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// The descriptors of each worker: its connections, its output, and its start.
const PER_WORKER: u64 = 8;

/// The descriptors of the server itself: its sockets, files and runtimes.
const RESERVED: u64 = 32;

/// Returns the number of connections for which descriptors are left beside `workers` workers. With an
/// app host each request takes two more sockets.
pub(crate) fn for_connections(has_app_host: bool, workers: usize) -> usize {
    connections(getrlimit(Resource::Nofile).current.unwrap_or(MOST), has_app_host, workers)
}

fn connections(limit: u64, has_app_host: bool, workers: usize) -> usize {
    let taken = RESERVED + PER_WORKER * workers as u64;
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
        assert!(room > 0 && room as u64 + 13 * PER_WORKER + RESERVED <= 256);
        assert_eq!(connections(32, false, 3), 1);
    }
}
