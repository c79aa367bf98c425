//! The guards of a server: built from the configuration, with the keys in files followed as they
//! change. What a guard decides is the business of `litplex_access`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use litplex_access::{Browsers, Digest, Guard, Issuer, Keys, digest};
use litplex_admin::AdminGuard;
use litplex_config::{AdminAccess, ApiKey, ApiKeys, ConfigError, Endpoint, Jwt, Program};
use litplex_tls::WatchedFiles;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::exposed::Exposure;
use crate::jwks;
use crate::key_error::KeyError;

/// The key of the whole server, as programs written for LitServe know it.
pub(crate) const LIT_SERVER_API_KEY: &str = "LIT_SERVER_API_KEY";

/// The owner of the server's keys, as messages name it.
const SERVER: &str = "server";

/// The option with the keys of callers.
const API_KEYS: &str = "api_keys";

/// The guards of a server, and the tasks that follow the files of their keys.
pub(crate) struct Access {
    pub(crate) guards: Guards,
    pub(crate) following: JoinSet<()>,
}

/// The guards of a server.
pub(crate) struct Guards {
    /// The guards of endpoints, in the order of the configuration.
    pub(crate) endpoints: Vec<EndpointGuard>,
    /// The maker of guards for further endpoints.
    pub(crate) maker: GuardMaker,
    /// The guard of the server's own routes.
    pub(crate) server: Guard,
    /// The guard of the routes that bypass the app host, which checks this key for all others.
    pub(crate) bypass: Arc<Guard>,
    /// The keys of operators, if the admin API is on a port.
    pub(crate) operators: Option<OperatorKeys>,
}

/// The keys of operators, as they are at the time.
pub(crate) struct OperatorKeys {
    operators: watch::Receiver<Keys>,
    readers: watch::Receiver<Keys>,
    allowed_hosts: Vec<String>,
}

impl OperatorKeys {
    /// Returns the guard of the admin API on a port of this host.
    pub(crate) fn guard(&self, host: &str) -> AdminGuard {
        let (allowed_hosts, host) = (self.allowed_hosts.clone(), host.to_owned());
        let browsers = Browsers { allowed_hosts, host, ..Browsers::default() };
        AdminGuard::new(self.operators.clone(), self.readers.clone(), browsers)
    }
}

/// The guard of an endpoint, and the tasks that follow the files of its keys. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct EndpointGuard {
    pub(crate) guard: Arc<Guard>,
    /// The tasks end with the last clone.
    _following: Arc<JoinSet<()>>,
}

/// The keys and tokens of the server, which endpoints without keys of their own accept.
#[derive(Default)]
pub(crate) struct GuardMaker {
    server_keys: Option<watch::Receiver<Keys>>,
    issuer: Option<Issuer>,
}

impl GuardMaker {
    /// Returns the guard of an endpoint.
    ///
    /// # Errors
    /// The keys that are missing or invalid.
    pub(crate) fn guard(&self, endpoint: &Endpoint) -> Result<EndpointGuard, ConfigError> {
        let mut reader = Reader::default();
        let guard = reader.guard(endpoint, self.server_keys.as_ref(), self.issuer.as_ref());
        let Reader { following, mistakes } = reader;
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        Ok(EndpointGuard { guard: Arc::new(guard), _following: Arc::new(following) })
    }
}

impl Access {
    /// Reads all keys, and follows those of the issuer of tokens.
    ///
    /// # Errors
    /// The keys that are missing or invalid.
    pub(crate) fn load(config: &Program) -> Result<Self, ConfigError> {
        let mut reader = Reader::default();
        let server_key = reader.server_key();
        // If there is an app host, it checks this key.
        let (more, app_key) = match config.app_host {
            Some(_) => (None, server_key),
            None => (server_key, None),
        };
        let server_keys = server_keys(config, more)
            .map(|(keys, more)| reader.follow(SERVER, API_KEYS, &keys, more));
        let issuer = config.jwt.as_ref().and_then(|jwt| reader.issuer(jwt));
        let maker = GuardMaker { server_keys: server_keys.clone(), issuer: issuer.clone() };
        let mut endpoints = Vec::new();
        for endpoint in &config.endpoints {
            match maker.guard(endpoint) {
                Ok(guard) => endpoints.push(guard),
                Err(ConfigError(wrong)) => reader.mistakes.extend(wrong),
            }
        }
        let operators = config.admin.as_ref().map(|admin| reader.operators(admin, config));
        let Reader { following, mistakes } = reader;
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        let server = Guard::new(server_keys).or_tokens(issuer, Vec::new());
        let bypass = Guard::new(app_key.map(|key| watch::channel(Keys::from_iter([key])).1));
        let bypass = Arc::new(bypass);
        Ok(Self { guards: Guards { endpoints, maker, server, bypass, operators }, following })
    }
}

/// The name of a key's holder, and the digest of the key.
type Hashed = (String, Digest);

/// Returns the source of the server's keys, and the key that is not in the configuration.
fn server_keys(config: &Program, more: Option<Hashed>) -> Option<(ApiKeys, Vec<Hashed>)> {
    if config.api_keys.is_none() && more.is_none() {
        return None;
    }
    Some((config.api_keys.clone().unwrap_or_default(), more.into_iter().collect()))
}

/// Returns the key in an environment variable; `None` if the variable is not set. White space around
/// the key is removed: files and shells leave it there, and no header can carry it.
///
/// # Errors
/// The variable is empty, not UTF-8, or has a control character.
pub(crate) fn key_in(variable: &str) -> Result<Option<String>, KeyError> {
    let Some(value) = env::var_os(variable) else { return Ok(None) };
    let value = value.to_str().ok_or_else(|| KeyError::NotUtf8(variable.to_owned()))?;
    match value.trim() {
        "" => Err(KeyError::Empty(variable.to_owned())),
        key if key.contains(char::is_control) => {
            Err(KeyError::ControlCharacter(variable.to_owned()))
        }
        key => Ok(Some(key.to_owned())),
    }
}

/// Reads keys, follows their files, and collects errors.
#[derive(Default)]
struct Reader {
    following: JoinSet<()>,
    mistakes: Vec<String>,
}

impl Reader {
    /// Returns the key of `LIT_SERVER_API_KEY`. An empty variable is an error: an operator who sets it
    /// means to restrict access.
    fn server_key(&mut self) -> Option<Hashed> {
        match key_in(LIT_SERVER_API_KEY) {
            Ok(key) => key.map(|key| (LIT_SERVER_API_KEY.to_owned(), digest(key))),
            Err(mistake) => {
                self.mistakes.push(format!("server: {mistake}, or unset it to ask for none"));
                None
            }
        }
    }

    /// Returns the guard of an endpoint. The endpoint's own keys replace the server's keys and tokens,
    /// unless the endpoint names scopes.
    fn guard(
        &mut self,
        endpoint: &Endpoint,
        server_keys: Option<&watch::Receiver<Keys>>,
        issuer: Option<&Issuer>,
    ) -> Guard {
        let owner = format!("endpoint `{}`", endpoint.label());
        let own = endpoint.api_keys.as_ref();
        let own = own.map(|keys| self.follow(&owner, API_KEYS, keys, Vec::new()));
        let takes_tokens = own.is_none() || endpoint.jwt_scopes.is_some();
        let issuer = issuer.filter(|_| takes_tokens).cloned();
        Guard::new(own.or_else(|| server_keys.cloned()))
            .or_tokens(issuer, endpoint.jwt_scopes.clone().unwrap_or_default())
            .limit(endpoint.rate_limit, endpoint.max_requests_per_caller)
            .with_batch_callers(endpoint.batch_callers.clone())
    }

    /// Returns the keys of operators, which are no keys of callers.
    fn operators(&mut self, admin: &AdminAccess, config: &Program) -> OperatorKeys {
        let mut follow = |option, keys: Option<&ApiKeys>| match keys {
            Some(keys) => self.follow(SERVER, option, keys, Vec::new()),
            None => watch::channel(Keys::default()).1,
        };
        OperatorKeys {
            operators: follow("admin_keys", admin.keys.as_ref()),
            readers: follow("admin_read_keys", admin.read_keys.as_ref()),
            allowed_hosts: config.allowed_hosts.clone(),
        }
    }

    fn issuer(&mut self, jwt: &Jwt) -> Option<Issuer> {
        let issuer = jwks::follow(jwt, &mut self.following);
        issuer.map_err(|mistake| self.mistakes.push(format!("server: {mistake}"))).ok()
    }

    /// Returns the keys of an option such as `api_keys` and of its file, as they are at the time.
    fn follow(
        &mut self,
        owner: &str,
        option: &str,
        keys: &ApiKeys,
        mut more: Vec<Hashed>,
    ) -> watch::Receiver<Keys> {
        for (holder, key) in &keys.named {
            match digest_of(key) {
                Ok(digest) => more.push((holder.clone(), digest)),
                Err(mistake) => self.mistakes.push(format!("{owner}: `{option}`: {mistake}")),
            }
        }
        let Some(file) = &keys.file else { return watch::channel(more.into_iter().collect()).1 };
        let watched = WatchedFiles::new([file.clone()]);
        let known = read(file, &more).unwrap_or_else(|mistake| {
            self.mistakes.push(format!("{owner}: `{option}_file`: {mistake}"));
            Keys::default()
        });
        if known.is_empty() && self.mistakes.is_empty() {
            let file = file.display();
            tracing::warn!(
                "{owner}: `{option}_file`: {file} has no key, so that every request is refused; \
                 `litplex key NAME >> {file}` adds one"
            );
        }
        Exposure::Write.warn(&format!("{option}_file"), file);
        let (sender, receiver) = watch::channel(known);
        self.following.spawn(reread(watched, file.clone(), more, sender));
        receiver
    }
}

fn digest_of(key: &ApiKey) -> Result<Digest, KeyError> {
    match key {
        ApiKey::Sha256(digest) => Ok(*digest),
        ApiKey::Environment(name) => {
            key_in(name)?.map(digest).ok_or_else(|| KeyError::Unset(name.clone()))
        }
    }
}

/// Returns the fixed keys and those of a file.
fn read(file: &Path, fixed: &[Hashed]) -> Result<Keys, KeyError> {
    let text = fs::read_to_string(file)
        .map_err(|source| KeyError::Read { file: file.to_owned(), source })?;
    let file_keys = ApiKeys::parse_file(&text)
        .map_err(|reason| KeyError::Line { file: file.to_owned(), reason })?;
    Ok(file_keys.into_iter().chain(fixed.iter().cloned()).collect())
}

/// Reads a file of keys again after each change, until it is dropped. The keys stay as they are while
/// the file cannot be read.
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
