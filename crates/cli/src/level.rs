//! `litplex log-level`: shows or sets the level of a server's log.

use clap::Args;

use crate::say::{say, say_json};
use crate::servers::ServerArgs;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Level {
    /// The new level [default: show the present one]
    level: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
The level holds until the server ends; an endpoint's `log_level` has precedence.

Examples:
  litplex log-level
  litplex log-level debug
  litplex log-level info,litplex_workers=debug";

pub(crate) fn run(level: &Level) -> anyhow::Result<()> {
    let client = level.server.client()?;
    let level_now = match &level.level {
        Some(level) => client.set_log_level(level)?,
        None => client.log_level()?,
    };
    if level.server.json { say_json(&level_now) } else { say(&format!("{}\n", level_now.level)) }
}
