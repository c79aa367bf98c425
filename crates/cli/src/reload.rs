//! `litplex reload`: applies what has changed in a program, or replaces the workers of an endpoint.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;
use clap::{ArgGroup, Args};
use litplex_admin::{
    Client, EndpointReloaded, GenerationState, GenerationStatus, PlannedChange, PlannedEndpoint,
    PlannedOption, ProgramReloaded, ReloadOptions, ReloadPlan, Reloaded, Swap,
};

use crate::say::{printable, say, say_json};
use crate::servers::ServerArgs;

/// The time between two looks at a trial.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Args)]
#[command(after_help = AFTER_HELP, group = ArgGroup::new("trial").args(["canary", "shadow"]))]
pub(crate) struct Reload {
    /// Path or name of an endpoint, such as /embed [default: what has changed in the whole program]
    endpoint: Option<String>,
    /// Print what would change in the whole program, and change nothing
    #[arg(long, conflicts_with = "endpoint")]
    dry_run: bool,
    /// Share of the requests that the new workers get on trial, such as 5%
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "in_place", requires = "endpoint")]
    canary: Option<f64>,
    /// Share of the requests of which the new workers get copies, whose answers are compared and dropped
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with_all = ["in_place", "canary"], requires = "endpoint")]
    shadow: Option<f64>,
    /// With --shadow: copy requests of an endpoint that is not idempotent, too
    #[arg(long, requires = "shadow")]
    allow_effects: bool,
    /// With --canary or --shadow: return once the trial has begun
    #[arg(long, requires = "trial")]
    detach: bool,
    /// Stop the old workers first; requests wait [default: if both do not fit, or as `swap` says]
    #[arg(long, requires = "endpoint")]
    in_place: bool,
    /// Start the new workers beside the old ones, whatever their memory
    #[arg(long, conflicts_with = "in_place", requires = "endpoint")]
    overlap: bool,
    /// Seconds that the new workers have to become ready
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u32,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
Without an endpoint, the server reads its TOML file again, or runs its Python program again up to the call
that serves, and applies what differs: options, models, endpoints that are new or gone. Options such as
`queue_timeout` apply to the workers that run; for the others new workers start, and also where a source
file has changed since workers have loaded it. Endpoints without a change are left alone. SIGHUP does the
same.

New workers start beside the old ones, import the code anew and load the model. Once all are ready and
have answered a warm-up request, they take the new requests; the old ones finish theirs, streams
included, and end. If the new workers do not become ready, the old ones go on. Both are in memory for a
while; where that is not possible, the old ones stop first, and requests wait.

A canary gets its share of the requests and is compared with the live workers, on failures and on
latency. It is promoted when it is no worse, and rolled back when it is; then requests that fail on it
are answered by the live workers, if the endpoint is idempotent. `litplex promote` and
`litplex rollback` end the trial earlier. Ctrl-C leaves it running.

A shadow gets copies of its share of the requests. The live workers answer all of them, and the answers of
the shadow are dropped, after the comparison: `litplex generations` shows how many differ. It is promoted
and rolled back by the same rule.

Exit status: 1 when a part could not be changed, which then is as it was, or the new workers were rolled
back.";

pub(crate) fn run(reload: &Reload) -> anyhow::Result<()> {
    let client = reload.server.client()?;
    match &reload.endpoint {
        Some(endpoint) => reload_endpoint(&client, endpoint, reload),
        None => {
            let limit = Duration::from_secs(reload.timeout.into());
            reload_program(&client, reload.dry_run, limit, reload.server.json)
        }
    }
}

fn reload_endpoint(client: &Client, endpoint: &str, reload: &Reload) -> anyhow::Result<()> {
    if !reload.server.json {
        announce(client, endpoint, reload)?;
    }
    let options = ReloadOptions {
        limit: Duration::from_secs(reload.timeout.into()),
        canary: reload.canary,
        shadow: reload.shadow,
        allow_effects: reload.allow_effects,
        swap: match (reload.in_place, reload.overlap) {
            (true, _) => Some(Swap::InPlace),
            (_, true) => Some(Swap::Overlap),
            _ => None,
        },
    };
    let mut reloaded = client.reload(endpoint, &options)?;
    if is_on_trial(reloaded.state) && !reload.detach {
        if !reload.server.json {
            let Reloaded { endpoint, generation, .. } = &reloaded;
            warn(&format!("{endpoint}: generation {generation} is on trial"));
        }
        reloaded.state = trial_end(client, &reloaded)?;
    }
    if reload.server.json {
        return say_json(&reloaded);
    }
    say(&described(&reloaded))
}

/// Says how the workers are replaced, before they are: loading may take minutes.
fn announce(client: &Client, endpoint: &str, reload: &Reload) -> anyhow::Result<()> {
    let next = client.generations(endpoint)?.next;
    let is_in_place = reload.in_place || (next.swap == Swap::InPlace && !reload.overlap);
    let expected = next.seconds.map(|it| format!(", about {it:.0} s")).unwrap_or_default();
    let how = if is_in_place {
        let reason = next.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("the old workers stop before new ones start{expected}; requests wait{reason}")
    } else {
        format!("new workers are starting{expected}; the old ones serve meanwhile")
    };
    warn(&format!("{endpoint}: {how}"));
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
        state if is_on_trial(*state) => {
            format!("{endpoint} tries generation {generation}{changes}\n")
        }
        _ => format!("{endpoint} is served by generation {generation}{after}{changes}\n"),
    }
}

fn is_on_trial(state: GenerationState) -> bool {
    matches!(state, GenerationState::Canary | GenerationState::Shadow)
}

/// Waits for the end of a trial; an error if it was rolled back.
fn trial_end(client: &Client, reloaded: &Reloaded) -> anyhow::Result<GenerationState> {
    let Reloaded { endpoint, generation, .. } = reloaded;
    loop {
        sleep(LOOK);
        let generations = client.generations(endpoint)?.generations;
        match generations.into_iter().find(|it| it.generation == *generation) {
            Some(GenerationStatus { state, .. }) if is_on_trial(state) => {}
            Some(GenerationStatus { state: GenerationState::Failed, reason, answers, .. }) => {
                let reason = reason.unwrap_or_default();
                let answers = answers.map(|answers| format!("; {answers}")).unwrap_or_default();
                bail!("generation {generation} of `{endpoint}` was rolled back: {reason}{answers}")
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

fn reload_program(
    client: &Client,
    dry_run: bool,
    limit: Duration,
    json: bool,
) -> anyhow::Result<()> {
    if !json {
        // The plan comes first: the changes may take minutes.
        let plan = client.reload_program(true, limit)?.plan;
        say(&printable(&describe(&plan)))?;
        if dry_run || plan.is_empty() {
            return Ok(());
        }
    }
    let reloaded = client.reload_program(dry_run, limit)?;
    if json {
        say_json(&reloaded)?;
    } else {
        say(&printable(&results(&reloaded)))?;
    }
    if !reloaded.is_success() {
        bail!("some of it could not be changed, and is as it was");
    }
    Ok(())
}

/// Returns the plan, a line for each endpoint and each changed option.
fn describe(plan: &ReloadPlan) -> String {
    let mut text = String::new();
    let changes = |it: &&PlannedEndpoint| it.change != PlannedChange::Unchanged;
    for planned in plan.endpoints.iter().filter(changes) {
        let _ = writeln!(text, "{:<10} {}", planned.change.word(), planned.endpoint);
        planned.options.iter().for_each(|option| text.push_str(&option_line(option)));
        planned.files.iter().for_each(|file| text.push_str(&file_line(file)));
    }
    if plan.app {
        text.push_str("reload     the program's app and middlewares\n");
        plan.app_files.iter().for_each(|file| text.push_str(&file_line(file)));
    }
    for option in &plan.restart {
        let owner = option.endpoint.as_deref().unwrap_or("the server");
        let _ = writeln!(text, "restart    {owner}: only a start of the server applies this");
        text.push_str(&option_line(option));
    }
    if plan.is_empty() {
        text.push_str(
            "nothing changes; `litplex reload ENDPOINT` loads the code of an endpoint anew\n",
        );
    }
    text
}

fn file_line(file: &str) -> String {
    format!("             {file} has changed\n")
}

fn option_line(PlannedOption { option, before, after, .. }: &PlannedOption) -> String {
    format!("             {option}: {before} → {after}\n")
}

/// Returns a line for each endpoint that changed, or stays as it was.
fn results(reloaded: &ProgramReloaded) -> String {
    reloaded.results.iter().map(result_line).collect()
}

fn result_line(result: &EndpointReloaded) -> String {
    let EndpointReloaded { endpoint, change, generation, seconds, error } = result;
    if let Some(error) = error {
        return format!("{endpoint} stays as it was: {error}\n");
    }
    match (change, generation, seconds) {
        (PlannedChange::Removed, ..) => format!("{endpoint} is removed\n"),
        (PlannedChange::Options, ..) => format!("{endpoint} has its new options\n"),
        (_, Some(generation), Some(seconds)) => format!(
            "{endpoint} is served by generation {generation}, which was ready after {seconds:.1} s\n"
        ),
        _ => format!("{endpoint} is served\n"),
    }
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

    fn option(endpoint: Option<&str>, option: &str) -> PlannedOption {
        let endpoint = endpoint.map(str::to_owned);
        PlannedOption { endpoint, option: option.into(), before: "1".into(), after: "2".into() }
    }

    fn planned(endpoint: &str, change: PlannedChange) -> PlannedEndpoint {
        let (endpoint, options, files) = (endpoint.to_owned(), Vec::new(), Vec::new());
        PlannedEndpoint { endpoint, change, options, files }
    }

    #[test]
    fn a_plan_names_what_changes() {
        let reload = PlannedEndpoint {
            options: vec![option(None, "max_batch_size")],
            files: vec!["/srv/requirements.txt".into()],
            ..planned("/b", PlannedChange::Reload)
        };
        let endpoints = vec![
            planned("/a", PlannedChange::Unchanged),
            reload,
            planned("/c", PlannedChange::Added),
        ];
        let restart = vec![option(None, "port"), option(Some("/a"), "log_level")];
        let app_files = vec!["/srv/app.py".into()];
        let text = describe(&ReloadPlan { endpoints, restart, app: true, app_files });
        assert_eq!(
            text,
            "reload     /b\n             max_batch_size: 1 → 2\n             \
             /srv/requirements.txt has changed\nadded      /c\nreload     the program's app and \
             middlewares\n             /srv/app.py has changed\nrestart    the server: only a start of the server applies this\n             \
             port: 1 → 2\nrestart    /a: only a start of the server applies this\n             \
             log_level: 1 → 2\n"
        );
        let none = ReloadPlan {
            endpoints: vec![planned("/a", PlannedChange::Unchanged)],
            ..Default::default()
        };
        assert!(describe(&none).starts_with("nothing changes"), "{}", describe(&none));
    }

    #[test]
    fn results_name_what_has_changed_and_what_has_not() {
        let result = |change, generation: Option<u64>, error: Option<&str>| {
            let seconds = generation.map(|_| 1.25);
            let error = error.map(str::to_owned);
            result_line(&EndpointReloaded {
                endpoint: "/a".into(),
                change,
                generation,
                seconds,
                error,
            })
        };
        for (line, expected) in [
            (
                result(PlannedChange::Added, Some(1), None),
                "/a is served by generation 1, which was ready after 1.2 s\n",
            ),
            (result(PlannedChange::Options, None, None), "/a has its new options\n"),
            (result(PlannedChange::Removed, None, None), "/a is removed\n"),
            (
                result(PlannedChange::Reload, None, Some("no weights")),
                "/a stays as it was: no weights\n",
            ),
        ] {
            assert_eq!(line, expected);
        }
    }
}
