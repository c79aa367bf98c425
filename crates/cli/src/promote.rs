//! `litplex promote`: makes a canary or a shadow the live generation.

use clap::Args;

use crate::reload::described;
use crate::say::{say, say_json};
use crate::servers::ServerArgs;

#[derive(Args)]
#[command(
    after_help = "A canary or a shadow is started by `litplex reload` with --canary or --shadow."
)]
pub(crate) struct Promote {
    /// Path or name of the endpoint, such as /embed
    endpoint: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) fn run(promote: &Promote) -> anyhow::Result<()> {
    let promoted = promote.server.client()?.promote(&promote.endpoint)?;
    if promote.server.json {
        return say_json(&promoted);
    }
    say(&described(&promoted))
}
