//! `litplex reload`: replaces the workers of an endpoint.

use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use litplex_admin::{Client, GenerationState, GenerationStatus, ReloadOptions, Reloaded, Swap};

use crate::say::{say, say_json};
use crate::servers::ServerArgs;

/// The time between two looks at a canary.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Reload {
    /// Path or name of the endpoint, such as /embed
    endpoint: String,
    /// Share of the requests that the new workers get on trial, such as 5%
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "in_place")]
    canary: Option<f64>,
    /// With --canary: return once the trial has begun
    #[arg(long, requires = "canary")]
    detach: bool,
    /// Stop the old workers first; requests wait [default: if both do not fit, or as `swap` says]
    #[arg(long)]
    in_place: bool,
    /// Start the new workers beside the old ones, whatever their memory
    #[arg(long, conflicts_with = "in_place")]
    overlap: bool,
    /// Seconds that the new workers have to become ready
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u32,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
New workers start beside the old ones, import the code anew and load the model. Once all are ready and
have answered a warm-up request, they take the new requests; the old ones finish theirs, streams
included, and end. If the new workers do not become ready, the old ones go on. Both are in memory for a
while; where that is not possible, the old ones stop first, and requests wait.

A canary gets its share of the requests and is compared with the live workers, on failures and on
latency. It is promoted when it is no worse, and rolled back when it is; then requests that fail on it
are answered by the live workers, if the endpoint is idempotent. `litplex promote` and
`litplex rollback` end the trial earlier. Ctrl-C leaves it running.

Exit status: 1 when the new workers did not become ready, or the canary was rolled back.";

pub(crate) fn run(reload: &Reload) -> anyhow::Result<()> {
    let client = reload.server.client()?;
    if !reload.server.json {
        announce(&client, reload)?;
    }
    let options = ReloadOptions {
        limit: Duration::from_secs(reload.timeout.into()),
        canary: reload.canary,
        swap: match (reload.in_place, reload.overlap) {
            (true, _) => Some(Swap::InPlace),
            (_, true) => Some(Swap::Overlap),
            _ => None,
        },
    };
    let mut reloaded = client.reload(&reload.endpoint, &options)?;
    if reloaded.state == GenerationState::Canary && !reload.detach {
        if !reload.server.json {
            let Reloaded { endpoint, generation, .. } = &reloaded;
            warn(&format!("{endpoint}: generation {generation} is on trial"));
        }
        reloaded.state = trial_end(&client, &reloaded)?;
    }
    if reload.server.json {
        return say_json(&reloaded);
    }
    say(&described(&reloaded))
}

/// Says how the workers are replaced, before they are: loading may take minutes.
fn announce(client: &Client, reload: &Reload) -> anyhow::Result<()> {
    let next = client.generations(&reload.endpoint)?.next;
    let is_in_place = reload.in_place || (next.swap == Swap::InPlace && !reload.overlap);
    let expected = next.seconds.map(|it| format!(", about {it:.0} s")).unwrap_or_default();
    let how = if is_in_place {
        let reason = next.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("the old workers stop before new ones start{expected}; requests wait{reason}")
    } else {
        format!("new workers are starting{expected}; the old ones serve meanwhile")
    };
    warn(&format!("{}: {how}", reload.endpoint));
    Ok(())
}

/// Returns the text about a generation that takes requests.
pub(crate) fn described(reloaded: &Reloaded) -> String {
    let Reloaded { endpoint, generation, state, seconds, changes } = reloaded;
    let after = match seconds {
        0.0 => String::new(),
        seconds => format!(", which was ready after {seconds:.1} s"),
    };
    let changes = changes.as_ref().map(|changes| format!("; it changes {changes}"));
    let changes = changes.unwrap_or_default();
    match state {
        GenerationState::Canary => format!("{endpoint} tries generation {generation}{changes}\n"),
        _ => format!("{endpoint} is served by generation {generation}{after}{changes}\n"),
    }
}

/// Waits for the end of a canary's trial; an error if it was rolled back.
fn trial_end(client: &Client, reloaded: &Reloaded) -> anyhow::Result<GenerationState> {
    let Reloaded { endpoint, generation, .. } = reloaded;
    loop {
        sleep(LOOK);
        let generations = client.generations(endpoint)?.generations;
        let canary = generations.into_iter().find(|it| it.generation == *generation);
        match canary {
            Some(GenerationStatus { state: GenerationState::Canary, .. }) => {}
            Some(GenerationStatus { state: GenerationState::Failed, reason, .. }) => {
                let reason = reason.unwrap_or_default();
                bail!("generation {generation} of `{endpoint}` was rolled back: {reason}")
            }
            // Others may have replaced it since.
            Some(_) => return Ok(GenerationState::Live),
            None => bail!("generation {generation} of `{endpoint}` is no longer listed"),
        }
    }
}

/// Writes a line to standard error, which may be closed.
fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Reads a share: `5%` or `0.05`.
fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|percent: f64| percent / 100.0),
        None => text.parse(),
    };
    share
        .ok()
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| "expected a share above 0 and at most 1, such as `5%` or `0.05`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_as_a_percentage_or_a_number() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("0.5 %"), Ok(0.005));
        assert_eq!(share("0.05"), Ok(0.05));
        assert_eq!(share("1"), Ok(1.0));
        for wrong in ["0", "5", "-1%", "101%", "NaN", "five", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
