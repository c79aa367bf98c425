//! Configurations: each resolves, or gives errors with a text.
#![no_main]

use std::str;

use libfuzzer_sys::fuzz_target;
use litplex_config::{ConfigError, Origin, Program, parse_json, parse_toml, resolve};
use litplex_fuzz::bounded;

fuzz_target!(|data: &[u8]| bounded(data, config));

fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(raw) = parse_toml(text).map_err(says_something) {
        check(resolve(raw, &Origin::File("/srv/litplex.toml".into())));
    }
    for origin in [Origin::Sdk, Origin::Builder] {
        if let Ok(raw) = parse_json(text).map_err(says_something) {
            check(resolve(raw, &origin));
        }
    }
}

fn check(resolved: Result<Program, ConfigError>) {
    match resolved {
        Ok(program) => assert!(!program.endpoints.is_empty()),
        Err(error) => says_something(error),
    }
}

fn says_something(error: ConfigError) {
    assert!(!error.0.is_empty() && error.0.iter().all(|mistake| !mistake.is_empty()));
    assert!(!error.to_string().is_empty());
}
