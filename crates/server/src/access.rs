//! Who may call what: from a configuration to guards, and the keys of files that change.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use litplex_access::{Digest, Guard, Issuer, Keys, Rate, digest};
use litplex_config::{ApiKey, ApiKeys, ConfigError, Endpoint, Jwt, Program};
use litplex_tls::WatchedFiles;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::jwks;

/// The key of the whole server, as programs written for LitServe know it.
const LIT_SERVER_API_KEY: &str = "LIT_SERVER_API_KEY";

/// The guards of a server. Those that read a file read it again for as long as this is kept.
pub(crate) struct Access {
    /// In the order of the configuration.
    pub(crate) of_endpoints: Vec<Arc<Guard>>,
    /// Of what is no endpoint.
    pub(crate) of_the_rest: Guard,
    /// What the app host would ask for at the paths that it has no part in.
    pub(crate) of_probes: Guard,
    _following: JoinSet<()>,
}

impl Access {
    /// Reads all keys, and follows those of the issuer of tokens.
    ///
    /// # Errors
    /// Those that are not there.
    pub(crate) fn of(config: &Program) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        let litserve_key = reader.litserve_key();
        // Where there is an app host, that asks for this one where LitServe does.
        let (more, of_the_app) = match config.app_host {
            Some(_) => (None, litserve_key),
            None => (litserve_key, None),
        };
        let of_the_server = of_the_server(config, more);
        let of_the_server = of_the_server.map(|(keys, more)| reader.follow("server", &keys, more));
        let issuer = config.jwt.as_ref().and_then(|jwt| reader.issuer(jwt));
        let mut guard_of = |endpoint: &Endpoint| {
            let whose = format!("endpoint `{}`", endpoint.path);
            let own = endpoint.api_keys.as_ref();
            let own = own.map(|keys| reader.follow(&whose, keys, Vec::new()));
            // Keys of its own replace all by which the server lets in, unless it says scopes.
            let takes_tokens = own.is_none() || endpoint.jwt_scopes.is_some();
            let issuer = issuer.clone().filter(|_| takes_tokens);
            let guard = Guard::new(own.or_else(|| of_the_server.clone()))
                .or_tokens(issuer, endpoint.jwt_scopes.clone().unwrap_or_default());
            let rate = endpoint.rate_limit.map(rate);
            Arc::new(guard.limit(rate, endpoint.max_requests_per_caller))
        };
        let of_endpoints = config.endpoints.iter().map(&mut guard_of).collect();
        let Reader { following, mistakes } = reader;
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        let of_the_rest = Guard::new(of_the_server).or_tokens(issuer, Vec::new());
        let of_probes = Guard::new(of_the_app.map(|key| watch::channel(Keys::from_iter([key])).1));
        Ok(Self { of_endpoints, of_the_rest, of_probes, _following: following })
    }
}

type Hashed = (String, Digest);

/// Returns where the keys of the whole server are, and one that is not in the configuration.
fn of_the_server(config: &Program, more: Option<Hashed>) -> Option<(ApiKeys, Vec<Hashed>)> {
    if config.api_keys.is_none() && more.is_none() {
        return None;
    }
    Some((config.api_keys.clone().unwrap_or_default(), more.into_iter().collect()))
}

/// Returns the key in an environment variable, without the white space around it, which no header
/// can carry and which files and shells leave there. None: the variable is not set.
///
/// # Errors
/// There is nothing but white space in it.
pub(crate) fn key_in(variable: &str) -> Result<Option<String>, String> {
    let Some(value) = env::var_os(variable) else { return Ok(None) };
    let value = value.to_str().ok_or_else(|| {
        format!("the environment variable {variable} is not UTF-8; set it to a key")
    })?;
    match value.trim() {
        "" => Err(format!("the environment variable {variable} is empty; set it to a key")),
        key if key.contains(char::is_control) => Err(format!(
            "the environment variable {variable} has a line break or another control character \
             within its key; set it to one key"
        )),
        key => Ok(Some(key.to_owned())),
    }
}

fn rate(litplex_config::Rate { requests, per, burst }: litplex_config::Rate) -> Rate {
    Rate { requests, per, burst }
}

/// Reads keys, follows the files that they are in, and notes mistakes.
#[derive(Default)]
struct Reader {
    following: JoinSet<()>,
    mistakes: Vec<String>,
}

impl Reader {
    /// Returns the key of `LIT_SERVER_API_KEY`. Somebody who sets it wants a key, so that an empty one
    /// opens nothing.
    fn litserve_key(&mut self) -> Option<Hashed> {
        match key_in(LIT_SERVER_API_KEY) {
            Ok(key) => key.map(|key| (LIT_SERVER_API_KEY.to_owned(), digest(key))),
            Err(mistake) => {
                self.mistakes.push(format!("server: {mistake}, or unset it to ask for none"));
                None
            }
        }
    }

    fn issuer(&mut self, jwt: &Jwt) -> Option<Issuer> {
        let issuer = jwks::follow(jwt, &mut self.following);
        issuer.map_err(|mistake| self.mistakes.push(format!("server: {mistake}"))).ok()
    }

    fn follow(
        &mut self,
        whose: &str,
        keys: &ApiKeys,
        mut more: Vec<Hashed>,
    ) -> watch::Receiver<Keys> {
        for (holder, key) in &keys.named {
            match digest_of(key) {
                Ok(digest) => more.push((holder.clone(), digest)),
                Err(mistake) => self.mistakes.push(format!("{whose}: `api_keys`: {mistake}")),
            }
        }
        let Some(file) = &keys.file else { return watch::channel(more.into_iter().collect()).1 };
        let watched = WatchedFiles::new([file.clone()]);
        let known = read(file, &more).unwrap_or_else(|mistake| {
            self.mistakes.push(format!("{whose}: `api_keys_file`: {mistake}"));
            Keys::default()
        });
        if known.is_empty() && self.mistakes.is_empty() {
            let file = file.display();
            tracing::warn!(
                "{whose}: `api_keys_file`: {file} has no key, so that every request is refused; \
                 `litplex key NAME >> {file}` adds one"
            );
        }
        let (sender, receiver) = watch::channel(known);
        self.following.spawn(reread(watched, file.clone(), more, sender));
        receiver
    }
}

fn digest_of(key: &ApiKey) -> Result<Digest, String> {
    match key {
        ApiKey::Sha256(digest) => Ok(*digest),
        ApiKey::Environment(name) => key_in(name)?
            .map(digest)
            .ok_or_else(|| format!("the environment variable {name} is not set")),
    }
}

/// Returns these keys and those of a file.
fn read(file: &Path, fixed: &[Hashed]) -> Result<Keys, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let of_the_file =
        ApiKeys::parse_file(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(of_the_file.into_iter().chain(fixed.iter().cloned()).collect())
}

/// Reads a file of keys whenever it has changed, for as long as it is polled. What cannot be read
/// changes nothing.
async fn reread(
    mut watched: WatchedFiles,
    file: PathBuf,
    fixed: Vec<Hashed>,
    keys: watch::Sender<Keys>,
) {
    loop {
        watched.changed().await;
        match read(&file, &fixed) {
            Ok(known) => {
                tracing::info!("read the keys in {} again: {known:?}", file.display());
                keys.send_replace(known);
            }
            Err(error) => tracing::warn!("the keys stay as they were: {error}"),
        }
    }
}
