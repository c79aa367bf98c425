//! `litplex events`: shows what happened to a server.

use clap::Args;
use litplex_admin::{Event, EventKind};

use crate::say::{printable, say};
use crate::servers::ServerArgs;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Events {
    /// Show the next events as they come
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
Events are changes of workers (ready, gone, restarted) and of what operators set. A server keeps the
last 1,000.";

pub(crate) fn run(events: &Events) -> anyhow::Result<()> {
    for event in events.server.client()?.events(events.follow)? {
        let event = event?;
        say(&if events.server.json { format!("{event}\n") } else { describe(&event) })?;
    }
    Ok(())
}

/// Describes an event for people. An event of a newer server is shown as it is.
fn describe(json: &str) -> String {
    let Ok(Event { timestamp, kind }) = serde_json::from_str(json) else {
        return format!("{}\n", printable(json));
    };
    let what = match kind {
        EventKind::Ready {} => "all endpoints serve".into(),
        EventKind::Stopping {} => "the server stops".into(),
        EventKind::Worker { endpoint, slot, state, reason } => {
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{endpoint}#{slot} is {state}{reason}")
        }
        EventKind::Scaled { endpoint, before, wanted } => {
            format!("{endpoint} is scaled from {before} to {wanted} workers")
        }
        EventKind::Mode { endpoint, mode } => format!("{endpoint} is {}", mode.word()),
        EventKind::Generation { endpoint, generation, state, reason, answers } => {
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let answers = answers.map(|answers| format!("; {answers}")).unwrap_or_default();
            format!("generation {generation} of {endpoint} is {}{reason}{answers}", state.word())
        }
        EventKind::Patched { endpoint, generation, files } => {
            format!("the hooks of generation {generation} of {endpoint} are patched: {files}")
        }
        EventKind::PatchFailed { endpoint, reason } => {
            format!("{endpoint} goes on with the code before: {reason}")
        }
        EventKind::Upgrade { state, pid, reason } => {
            let server = pid.map_or("the new server".into(), |pid| format!("process {pid}"));
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("upgrade: {server} is {}{reason}", state.word())
        }
        EventKind::Reload { endpoint, change, error: None } => {
            format!("{endpoint} is reloaded: {}", change.word())
        }
        EventKind::Reload { endpoint, change, error: Some(error) } => {
            format!("{endpoint} stays as it was ({}): {error}", change.word())
        }
        EventKind::LogLevel { level } => format!("the log level is {level}"),
    };
    format!("{timestamp}  {}\n", printable(&what))
}

#[cfg(test)]
mod tests {
    use litplex_admin::Mode;

    use super::*;

    #[test]
    fn events_are_sentences() {
        let endpoint = || "/a".to_owned();
        let gone = Some("killed by signal 9".to_owned());
        let state = |state: &str| state.to_owned();
        let kinds = [
            (EventKind::Ready {}, "all endpoints serve"),
            (
                EventKind::Worker {
                    endpoint: endpoint(),
                    slot: 1,
                    state: state("ready"),
                    reason: None,
                },
                "/a#1 is ready",
            ),
            (
                EventKind::Worker {
                    endpoint: endpoint(),
                    slot: 1,
                    state: state("backing off"),
                    reason: gone,
                },
                "/a#1 is backing off: killed by signal 9",
            ),
            (EventKind::Mode { endpoint: endpoint(), mode: Mode::Paused }, "/a is paused"),
        ];
        for (kind, said) in kinds {
            let event = Event { timestamp: "T".into(), kind };
            assert_eq!(describe(&serde_json::to_string(&event).unwrap()), format!("T  {said}\n"));
        }
        assert_eq!(describe("{\"event\":\"new\"}"), "{\"event\":\"new\"}\n");
    }
}
