//! `litplex env`: lists and removes the environments of `requirements`.

use std::time::SystemTime;

use anyhow::Context;
use clap::{Args, Subcommand};
use litplex::{Cache, Environment, environments, remove_environment};
use litplex_core::size_in_words;

use crate::say::say;
use crate::table::{columns, duration};

/// The seconds of a day.
const DAY: f64 = 86_400.0;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Env {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Show the environments that were made from `requirements`, their size and last use
    List,
    /// Remove the environments that no running server uses
    Prune {
        /// Only those that were last used more than this many days ago
        #[arg(long, value_name = "DAYS", default_value_t = 0)]
        unused_for: u32,
    },
}

const AFTER_HELP: &str = "\
Examples:
  litplex env list                     what was made, and what it takes
  litplex env prune --unused-for 30    remove what was not used for a month

They are in the cache of this user: $LITPLEX_CACHE_DIR, or litplex in $XDG_CACHE_HOME or ~/.cache.
An environment that was removed is made again when a server needs it.";

pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    let cache = Cache::locate()?;
    let named = || format!("cannot read {}", cache.root().display());
    let found = environments(&cache).with_context(named)?;
    match env.verb {
        Verb::List => say(&table(&found))?,
        Verb::Prune { unused_for } => {
            let old = found.into_iter().filter(|it| days_since_use(it) >= f64::from(unused_for));
            say(&prune(old)?)?;
        }
    }
    Ok(())
}

fn table(environments: &[Environment]) -> String {
    let head = ["ENVIRONMENT", "SIZE", "LAST USED", "IN USE", "REQUIREMENTS"].map(str::to_owned);
    let row = |it: &Environment| {
        let made_from = it.requirements.as_ref().map(|file| file.display().to_string());
        [
            it.directory.display().to_string(),
            size_in_words(it.bytes),
            format!("{} ago", duration(days_since_use(it) * DAY)),
            if it.is_in_use { "yes" } else { "no" }.to_owned(),
            made_from.unwrap_or_else(|| "not complete".into()),
        ]
    };
    columns(&std::iter::once(head).chain(environments.iter().map(row)).collect::<Vec<_>>())
}

/// Removes those that can be removed, and says which.
fn prune(environments: impl Iterator<Item = Environment>) -> anyhow::Result<String> {
    let (mut said, mut removed, mut bytes) = (String::new(), 0, 0);
    for environment in environments.filter(|it| !it.is_in_use) {
        let named = || format!("cannot remove {}", environment.directory.display());
        if remove_environment(&environment).with_context(named)? {
            said += &format!("removed {}\n", environment.directory.display());
            (removed, bytes) = (removed + 1, bytes + environment.bytes);
        }
    }
    let plural = if removed == 1 { "" } else { "s" };
    Ok(format!("{said}{removed} environment{plural} removed, {}\n", size_in_words(bytes)))
}

/// Returns the days since the last use; an unknown last use counts as very long ago.
fn days_since_use(environment: &Environment) -> f64 {
    let used = environment.last_used.unwrap_or(SystemTime::UNIX_EPOCH);
    SystemTime::now().duration_since(used).unwrap_or_default().as_secs_f64() / DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_environment() {
        let one = Environment {
            key: "00ff".into(),
            directory: "/c/venvs/00ff".into(),
            requirements: Some("/srv/requirements.txt".into()),
            bytes: 712_345_678,
            last_used: Some(SystemTime::now()),
            is_in_use: true,
        };
        let other = Environment { requirements: None, is_in_use: false, ..one.clone() };
        let wanted = "\
ENVIRONMENT    SIZE      LAST USED  IN USE  REQUIREMENTS
/c/venvs/00ff  712.3 MB  0s ago     yes     /srv/requirements.txt
/c/venvs/00ff  712.3 MB  0s ago     no      not complete
";
        assert_eq!(table(&[one, other]), wanted);
    }
}
