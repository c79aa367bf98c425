//! `litplex config`: shows the options that a running server uses, and who may use it.

use clap::Args;
use litplex_admin::{Configuration, KeyHolders, KeyScope, Setting};
use serde_json::json;

use crate::say::{printable, say, say_json};
use crate::servers::ServerArgs;
use crate::table::columns;

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Config {
    /// Only this endpoint: its path, or its name where endpoints share the path
    endpoint: Option<String>,
    /// Show the options that have their defaults, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    server: ServerArgs,
}

const AFTER_HELP: &str = "\
Keys are shown by the names of their holders; certificates and environment variables of workers are not
shown. `litplex check FILE` shows the options of a file.

Examples:
  litplex config --all
  litplex config /ocr
  litplex config --json | jq '.keys.scopes[]'";

pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let client = config.server.client()?;
    let (mut options, keys) = (client.configuration()?, client.keys()?);
    if let Some(wanted) = &config.endpoint {
        // The server knows aliases, and says so if the endpoint is unknown.
        let label = client.endpoint(wanted)?.label;
        options.endpoints.retain(|endpoint| endpoint.endpoint == label);
        options.server.clear();
    }
    if config.server.json {
        let (server, endpoints) = (&options.server, &options.endpoints);
        return say_json(&json!({"server": server, "endpoints": endpoints, "keys": keys}));
    }
    let keys = config.endpoint.is_none().then_some(&keys);
    say(&printable(&describe(&options, keys, config.all)))
}

fn describe(options: &Configuration, keys: Option<&KeyHolders>, all: bool) -> String {
    let mut sections = Vec::new();
    if !options.server.is_empty() {
        sections.push(section("server", &options.server, all));
    }
    let endpoints = options.endpoints.iter();
    sections.extend(endpoints.map(|it| section(&it.endpoint, &it.options, all)));
    if let Some(keys) = keys {
        let rows = Vec::from_iter(keys.scopes.iter().map(holders));
        sections.push(format!("callers\n{}", columns(&rows)));
    }
    if !all {
        sections.push("all else is as by default; --all shows it\n".into());
    }
    sections.join("\n")
}

fn section(title: &str, options: &[Setting], all: bool) -> String {
    let shown = options.iter().filter(|option| all || !option.is_default);
    let rows = shown.map(|option| [format!("  {}", option.name), option.value.clone()]);
    format!("{title}\n{}", columns(&Vec::from_iter(rows)))
}

/// Says what a scope is, and who has it.
fn holders(scope: &KeyScope) -> [String; 2] {
    let what = match (scope.endpoint.as_deref(), scope.scope.as_str()) {
        (Some(endpoint), _) => endpoint.to_owned(),
        (None, "admin") => "admin API".into(),
        (None, "admin_read") => "admin API, only to read".into(),
        (None, other) => other.to_owned(),
    };
    let file = scope.file.as_ref().map(|file| format!("keys in {file}"));
    let with = match scope.token_scopes.as_slice() {
        [] => String::new(),
        scopes => format!(" with {}", scopes.join(" ")),
    };
    let tokens = scope.issuer.as_ref().map(|issuer| format!("tokens of {issuer}{with}"));
    let who = Vec::from_iter(scope.holders.iter().cloned().chain(file).chain(tokens));
    [format!("  {what}"), if scope.is_open { "public".into() } else { who.join(", ") }]
}

#[cfg(test)]
mod tests {
    use litplex_admin::EndpointSettings;

    use super::*;

    fn setting(name: &str, value: &str, is_default: bool) -> Setting {
        Setting { name: name.into(), value: value.into(), is_default }
    }

    #[test]
    fn options_that_differ_are_shown_and_the_holders_of_keys() {
        let options = Configuration {
            server: vec![setting("port", "9000", false), setting("grace", "30s", true)],
            endpoints: vec![EndpointSettings {
                endpoint: "/ocr".into(),
                options: vec![setting("timeout", "5s", false)],
            }],
        };
        let scope = KeyScope {
            scope: "server".into(),
            endpoint: None,
            is_open: false,
            holders: vec!["ann".into()],
            file: Some("/etc/keys".into()),
            issuer: None,
            token_scopes: Vec::new(),
        };
        let tokens = KeyScope {
            scope: "endpoint".into(),
            endpoint: Some("/ocr".into()),
            holders: Vec::new(),
            file: None,
            issuer: Some("https://id".into()),
            token_scopes: vec!["read".into()],
            ..scope.clone()
        };
        let keys = KeyHolders { scopes: vec![scope, tokens] };
        let text = describe(&options, Some(&keys), false);
        let wanted = "\
server
  port  9000

/ocr
  timeout  5s

callers
  server  ann, keys in /etc/keys
  /ocr    tokens of https://id with read

all else is as by default; --all shows it
";
        assert_eq!(text, wanted);
        let all = describe(&options, None, true);
        assert!(all.contains("  grace  30s") && !all.contains("callers"), "{all}");
    }
}
