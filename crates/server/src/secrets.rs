//! The environment variables that hold keys of callers: processes that run models do not get them.

use std::collections::BTreeSet;

use litplex_config::{ApiKey, Program};

/// The key of the whole server, as programs written for LitServe know it.
pub(crate) const SERVER_KEY: &str = "LIT_SERVER_API_KEY";

/// The key of those who may stop the server.
pub(crate) const SHUTDOWN_KEY: &str = "LIT_SHUTDOWN_API_KEY";

/// Returns the names of the variables that no model gets.
pub(crate) fn of_models(config: &Program) -> Vec<String> {
    let of_endpoints = config.endpoints.iter().filter_map(|endpoint| endpoint.api_keys.as_ref());
    let named = config.api_keys.iter().chain(of_endpoints).flat_map(|keys| keys.named.values());
    let variables = named.filter_map(|key| match key {
        ApiKey::Environment(name) => Some(name.as_str()),
        ApiKey::Sha256(_) => None,
    });
    let all: BTreeSet<_> = variables.chain([SERVER_KEY, SHUTDOWN_KEY]).collect();
    all.into_iter().map(str::to_owned).collect()
}

/// Returns the names of the variables that the app host does not get: it asks for the server's key
/// itself.
pub(crate) fn of_app_host(config: &Program) -> Vec<String> {
    of_models(config).into_iter().filter(|name| name != SERVER_KEY).collect()
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, parse_toml, resolve};

    use super::*;

    #[test]
    fn they_are_those_that_any_key_is_in() {
        let text = "api_keys = { ann = \"env:ANN\" }\n[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n\
                    api_keys = { bob = \"env:BOB\", eve = \"env:ANN\" }";
        let config = resolve(parse_toml(text).unwrap(), &Origin::File("l.toml".into())).unwrap();
        assert_eq!(of_models(&config), ["ANN", "BOB", SERVER_KEY, SHUTDOWN_KEY]);
        assert_eq!(of_app_host(&config), ["ANN", "BOB", SHUTDOWN_KEY]);
    }
}
