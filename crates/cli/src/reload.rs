//! `litplex reload`: replaces the workers of an endpoint.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;

use crate::say::{say, say_json};
use crate::servers::ServerArgs;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Reload {
    /// Path or name of the endpoint, such as /embed
    endpoint: String,
    /// Seconds that the new workers have to become ready
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u32,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
New workers start beside the old ones, import the code anew and load the model. Once all are ready,
they take the new requests; the old ones finish theirs, streams included, and end. If the new workers
do not become ready, the old ones go on. Both are in memory for a while.

Exit status: 1 when the new workers did not become ready.";

pub(crate) fn run(reload: &Reload) -> anyhow::Result<()> {
    let client = reload.server.client()?;
    let limit = Duration::from_secs(reload.timeout.into());
    if !reload.server.json {
        // Loading may take minutes. Standard error may be closed.
        let starting = "new workers are starting; the old ones serve meanwhile";
        let _ = writeln!(io::stderr(), "{}: {starting}", reload.endpoint);
    }
    let reloaded = client.reload(&reload.endpoint, limit)?;
    if reload.server.json {
        return say_json(&reloaded);
    }
    say(&format!(
        "{} is served by generation {}, which was ready after {:.1} s\n",
        reloaded.endpoint, reloaded.generation, reloaded.seconds
    ))
}
