//! The plan of a reload as operators see it.

use std::path::PathBuf;

use litplex_admin::{PlannedChange, PlannedEndpoint, PlannedOption, ReloadPlan};
use litplex_config::{Change, Diff, EndpointDiff, OptionChange, RestartOption};

/// Returns the plan of a difference.
pub(crate) fn plan(diff: &Diff) -> ReloadPlan {
    let restart = diff.restart.iter();
    let restart =
        restart.map(|RestartOption { endpoint, change }| option(endpoint.clone(), change));
    ReloadPlan {
        endpoints: diff.endpoints.iter().map(endpoint).collect(),
        restart: restart.collect(),
        app: diff.app_host,
        app_files: shown(&diff.app_files),
    }
}

/// Returns the kind of a change.
pub(crate) fn kind(change: &Change) -> PlannedChange {
    match change {
        Change::Unchanged => PlannedChange::Unchanged,
        Change::Options(_) => PlannedChange::Options,
        Change::Reload { .. } => PlannedChange::Reload,
        Change::Added => PlannedChange::Added,
        Change::Removed => PlannedChange::Removed,
    }
}

fn endpoint(diff: &EndpointDiff) -> PlannedEndpoint {
    let (options, files) = match &diff.change {
        Change::Options(options) => (&options[..], &[][..]),
        Change::Reload { options, files } => (&options[..], &files[..]),
        Change::Unchanged | Change::Added | Change::Removed => (&[][..], &[][..]),
    };
    PlannedEndpoint {
        endpoint: diff.label.clone(),
        change: kind(&diff.change),
        options: options.iter().map(|change| option(None, change)).collect(),
        files: shown(files),
    }
}

fn shown(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| file.display().to_string()).collect()
}

fn option(endpoint: Option<String>, change: &OptionChange) -> PlannedOption {
    let OptionChange { option, before, after } = change;
    let (before, after) = (before.clone(), after.clone());
    PlannedOption { endpoint, option: (*option).to_owned(), before, after }
}
