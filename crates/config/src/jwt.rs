//! The configuration of tokens: the issuer, the audience and the issuer's keys.

use std::path::{Path, PathBuf};

use litplex_tls::Pem;
use serde_json::{Map, Value};

use crate::read::text;

const TOGETHER: [&str; 3] = ["jwt_issuer", "jwt_audience", "jwt_jwks"];

/// The JSON Web Tokens that are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The issuer of the tokens: claim `iss`.
    pub issuer: String,
    /// The audience of the tokens: claim `aud`, or one of its values.
    pub audience: String,
    /// The source of the issuer's keys.
    pub jwks: Jwks,
}

/// The source of an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jwks {
    /// A file, which may change while the server runs.
    File(PathBuf),
    /// The URL at which the issuer publishes its keys.
    Url {
        /// The URL, with `http://` or `https://`.
        url: String,
        /// The authorities that may sign the issuer's certificate, if not the public ones.
        ca: Option<Pem>,
    },
}

impl Jwks {
    fn of(options: &Map<String, Value>, directory: &Path) -> Option<Self> {
        let jwks = text(options, "jwt_jwks")?;
        Some(if jwks.starts_with("https://") || jwks.starts_with("http://") {
            let ca = text(options, "jwt_ca").map(|text| Pem::new(text, directory));
            Self::Url { url: jwks.to_owned(), ca }
        } else {
            Self::File(directory.join(jwks))
        })
    }
}

impl Jwt {
    /// Reads the options of a checked server.
    pub(crate) fn of(options: &Map<String, Value>, directory: &Path) -> Option<Self> {
        let named = |name| text(options, name).map(str::to_owned);
        let (issuer, audience) = (named("jwt_issuer")?, named("jwt_audience")?);
        Some(Self { issuer, audience, jwks: Jwks::of(options, directory)? })
    }
}

/// Yields an error for each option that is missing beside the given ones.
pub(crate) fn contradictions(options: &Map<String, Value>) -> impl Iterator<Item = String> {
    let is_given = |name: &str| options.contains_key(name);
    let some_are = TOGETHER.iter().any(|name| is_given(name));
    let missing = TOGETHER.iter().filter(move |name| some_are && !is_given(name)).map(|name| {
        format!("`{name}` is missing: `jwt_issuer`, `jwt_audience` and `jwt_jwks` go together")
    });
    let is_https = text(options, "jwt_jwks").is_some_and(|jwks| jwks.starts_with("https://"));
    let is_useless = is_given("jwt_ca") && !is_https;
    let useless = "`jwt_ca` needs a `jwt_jwks` that begins with \"https://\"";
    missing.chain(is_useless.then(|| useless.to_owned()))
}

/// Yields an error for each endpoint with scopes if the server accepts no tokens.
pub(crate) fn scopes_without_tokens<'a>(
    server: &Map<String, Value>,
    endpoints: &'a [Map<String, Value>],
) -> impl Iterator<Item = String> + use<'a> {
    let lacks_tokens = !TOGETHER.iter().any(|name| server.contains_key(*name));
    let asking = endpoints.iter().filter(|endpoint| endpoint.contains_key("jwt_scopes"));
    asking.filter(move |_| lacks_tokens).map(|endpoint| {
        let path = text(endpoint, "path").unwrap_or_default();
        format!(
            "endpoint `{path}`: `jwt_scopes` needs `jwt_issuer`, `jwt_audience` and `jwt_jwks` of \
             the server"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Origin, parse_toml, resolve};

    const ISSUED: &str = "jwt_issuer = \"https://id\"\njwt_audience = \"models\"\n";

    fn resolved(server: &str, endpoint: &str) -> Result<crate::Program, crate::ConfigError> {
        let text = format!("{server}\n[[endpoint]]\npath = \"/a\"\napi = \"a:A\"\n{endpoint}");
        resolve(parse_toml(&text)?, &Origin::File("/etc/litplex/litplex.toml".into()))
    }

    #[test]
    fn keys_are_in_a_file_or_behind_a_url() {
        let jwks = |jwks| {
            let program = resolved(&format!("{ISSUED}jwt_jwks = \"{jwks}\""), "").unwrap();
            program.jwt.unwrap().jwks
        };
        assert_eq!(jwks("keys.json"), Jwks::File("/etc/litplex/keys.json".into()));
        for url in ["http://id/keys", "https://id/keys"] {
            assert_eq!(jwks(url), Jwks::Url { url: url.into(), ca: None });
        }
    }

    #[test]
    fn scopes_need_tokens_that_could_have_them() {
        let endpoint = "jwt_scopes = [\"read\"]";
        let error = resolved("", endpoint).unwrap_err();
        assert!(error.0[0].starts_with("endpoint `/a`: `jwt_scopes` needs"), "{error}");
        let program = resolved(&format!("{ISSUED}jwt_jwks = \"k\""), endpoint).unwrap();
        assert_eq!(program.endpoints[0].jwt_scopes.as_deref(), Some(&["read".to_owned()][..]));
        assert_eq!(resolved("", "").unwrap().endpoints[0].jwt_scopes, None);
    }
}
