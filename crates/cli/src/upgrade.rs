//! `litplex upgrade`: replaces a server by a new process of its program.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use litplex_admin::{Status, WorkerStatus};
use litplex_core::size_in_words;

use crate::say::{say, say_json};
use crate::servers::{Running, ServerArgs};

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Upgrade {
    /// Seconds that the new server has to become ready
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u32,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
The program is started again as it was started, from the files that are there now: the litplex
executable, server.py or litplex.toml, the models. The new server gets the sockets of the old one. Once
all its endpoints are ready, it takes the new requests; the old one finishes its own, streams included,
and ends. If the new server does not become ready, the old one goes on. Both are in memory for a while.

Exit status: 1 when the new server did not become ready.";

pub(crate) fn run(upgrade: &Upgrade) -> anyhow::Result<()> {
    let Running { client, status } = upgrade.server.running()?;
    if !upgrade.server.json {
        // Loading may take minutes. Standard error may be closed.
        let _ = writeln!(io::stderr(), "{}", starting(&status));
    }
    let upgraded = client.upgrade(Duration::from_secs(upgrade.limit.into()))?;
    if upgrade.server.json {
        return say_json(&upgraded);
    }
    say(&format!(
        "{} is served by process {} (litplex {}), which was ready after {:.1} s; process {} finishes its \
         requests\n",
        status.url, upgraded.pid, upgraded.version, upgraded.seconds, upgraded.before
    ))
}

/// Returns what happens, and the memory that it takes.
fn starting(status: &Status) -> String {
    let Status { url, pid, .. } = status;
    let begin = format!("{url}: a new server starts; process {pid} serves meanwhile");
    let workers = || status.endpoints.iter().flat_map(|endpoint| &endpoint.workers);
    let sum = |used: fn(&WorkerStatus) -> Option<u64>| workers().filter_map(used).sum::<u64>();
    let used = [(sum(|it| it.memory), "memory"), (sum(|it| it.gpu_memory), "GPU memory")];
    let used = used.into_iter().filter(|(used, _)| *used > 0);
    let used: Vec<_> =
        used.map(|(used, kind)| format!("{} of {kind}", size_in_words(used))).collect();
    if used.is_empty() {
        return begin;
    }
    format!("{begin}. Its workers use {}, which two servers need for a while", used.join(" and "))
}

#[cfg(test)]
mod tests {
    use litplex_admin::mock::MockAdmin;

    use super::*;

    #[test]
    fn the_memory_of_both_servers_is_said_before_the_start() {
        let mut status = MockAdmin::new(8000).shown();
        let begin = "http://127.0.0.1:8000: a new server starts; process 7 serves meanwhile";
        assert_eq!(starting(&status), begin);
        let worker = |memory| WorkerStatus {
            slot: 0,
            state: "ready".into(),
            pid: None,
            device: "cpu".into(),
            threads: None,
            in_flight: 0,
            restarts: 0,
            ready_for: None,
            starting_for: None,
            reason: None,
            last_line: None,
            memory: Some(memory),
            gpu_memory: None,
        };
        status.endpoints[0].workers = vec![worker(1_000_000), worker(2_000_000)];
        let said = starting(&status);
        assert!(said.ends_with(" of memory, which two servers need for a while"), "{said}");
        assert!(said.contains(&size_in_words(3_000_000)), "{said}");
    }
}
