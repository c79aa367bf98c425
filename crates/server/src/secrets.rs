//! The environment variables that hold keys of callers. Processes that run models do not get them.

use std::collections::BTreeSet;

use litplex_config::{ApiKey, Program};

/// The variable of the server's key, which programs for LitServe set too.
pub(crate) const SERVER_KEY: &str = "LIT_SERVER_API_KEY";

/// The variable of the key with which a client may stop the server.
pub(crate) const SHUTDOWN_KEY: &str = "LIT_SHUTDOWN_API_KEY";

/// The variable of a key with which the `litplex` command uses an admin API.
const OPERATOR_KEY: &str = "LITPLEX_ADMIN_KEY";

/// Returns the names of the variables that workers do not get.
pub(crate) fn hidden_from_models(config: &Program) -> Vec<String> {
    let endpoint_keys = config.endpoints.iter().filter_map(|endpoint| endpoint.api_keys.as_ref());
    let admin = config.admin.iter().flat_map(|admin| admin.keys.iter().chain(&admin.read_keys));
    let all_keys = config.api_keys.iter().chain(endpoint_keys).chain(admin);
    let named = all_keys.flat_map(|keys| keys.named.values());
    let variables = named.filter_map(|key| match key {
        ApiKey::Environment(name) => Some(name.as_str()),
        ApiKey::Sha256(_) => None,
    });
    let all: BTreeSet<_> = variables.chain([SERVER_KEY, SHUTDOWN_KEY, OPERATOR_KEY]).collect();
    all.into_iter().map(str::to_owned).collect()
}

/// Returns the names of the variables that the app host does not get. It gets the server's key,
/// which it checks itself.
pub(crate) fn hidden_from_app_host(config: &Program) -> Vec<String> {
    hidden_from_models(config).into_iter().filter(|name| name != SERVER_KEY).collect()
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, parse_toml, resolve};

    use super::*;

    #[test]
    fn every_variable_with_a_key_is_hidden() {
        let text = "api_keys = { ann = \"env:ANN\" }\nadmin_port = 1\nadmin_keys = { op = \"env:OP\" }\n\
                    admin_read_keys = { look = \"env:LOOK\" }\n[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n\
                    api_keys = { bob = \"env:BOB\", eve = \"env:ANN\" }";
        let config = resolve(parse_toml(text).unwrap(), &Origin::File("l.toml".into())).unwrap();
        assert_eq!(
            hidden_from_models(&config),
            ["ANN", "BOB", OPERATOR_KEY, SERVER_KEY, SHUTDOWN_KEY, "LOOK", "OP"]
        );
        assert_eq!(
            hidden_from_app_host(&config),
            ["ANN", "BOB", OPERATOR_KEY, SHUTDOWN_KEY, "LOOK", "OP"]
        );
    }
}
