//! `litplex stop`: stops a server.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use litplex_admin::{AskError, Client};

use crate::say::{say, say_json};
use crate::servers::{Running, ServerArgs};

/// The time between two looks whether the server has ended.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Stop {
    #[command(flatten)]
    server: ServerArgs,
    /// Return at once, while the server answers the requests in progress
    #[arg(long)]
    no_wait: bool,
}

const AFTER_HELP: &str = "\
The server takes no new requests, answers those in progress within `grace`, and ends its workers.";

pub(crate) fn run(stop: &Stop) -> anyhow::Result<()> {
    let Running { client, status } = stop.server.running()?;
    client.stop()?;
    if !stop.server.json {
        say(&format!("{} (pid {}) stops\n", status.url, status.pid))?;
    }
    if !stop.no_wait {
        wait_for_end(&client)?;
    }
    if stop.server.json {
        let stopped = !stop.no_wait;
        return say_json(&serde_json::json!({"pid": status.pid, "stopped": stopped}));
    }
    if stop.no_wait { Ok(()) } else { say("stopped\n") }
}

fn wait_for_end(client: &Client) -> Result<(), AskError> {
    loop {
        match client.ps() {
            Err(AskError::Gone) => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => sleep(LOOK),
        }
    }
}
