//! `litplex rollback`: ends a trial, or returns to an earlier generation.

use std::time::Duration;

use clap::Args;

use crate::reload::described;
use crate::say::{say, say_json};
use crate::servers::ServerArgs;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Rollback {
    /// Path or name of the endpoint, such as /embed
    endpoint: String,
    /// Number of an earlier generation [default: the canary or shadow ends; without one, the generation before]
    generation: Option<u64>,
    /// Seconds that the workers have to become ready
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u32,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
A canary, a shadow, or a generation that is starting, ends, and the live one has all requests. Otherwise workers
with the options and the environment of an earlier generation start, as at a reload. They import the
code that is in the files now: restore the files first if it is the code that is wrong.
`litplex generations` lists the generations.

Exit status: 1 when the workers did not become ready.";

pub(crate) fn run(rollback: &Rollback) -> anyhow::Result<()> {
    let client = rollback.server.client()?;
    let limit = Duration::from_secs(rollback.timeout.into());
    let live = client.rollback(&rollback.endpoint, rollback.generation, limit)?;
    if rollback.server.json {
        return say_json(&live);
    }
    say(&described(&live))
}
