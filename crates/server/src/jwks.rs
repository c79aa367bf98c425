//! The keys of a token issuer: read from a file or a URL, and followed while the server runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_access::{Issuer, IssuerKeys, KnownKeys};
use litplex_config::{Jwks, Jwt, Pem};
use litplex_tls::WatchedFiles;
use litplex_traces::proxy_of;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::exposed::Exposure;
use crate::key_error::{FetchError, JwksError};

/// The time between two fetches. It bounds how long a withdrawn key is trusted.
const FETCH_INTERVAL: Duration = Duration::from_secs(300);

/// The shortest time between two fetches, whatever tokens come.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// The time that an issuer has to send its keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of a key set; more than any issuer has.
const MOST_BYTES: u64 = 1 << 20;

/// Returns an issuer, and spawns the task that follows its keys in `following`.
///
/// # Errors
/// The file of keys or of certificates is invalid. A failed fetch is no error: the next may succeed.
pub(crate) fn follow(jwt: &Jwt, following: &mut JoinSet<()>) -> Result<Issuer, JwksError> {
    let wanted = Arc::new(Notify::new());
    let known = match &jwt.jwks {
        Jwks::File(file) => {
            let watched = WatchedFiles::new([file.clone()]);
            let keys = read(file)?;
            if keys.is_empty() {
                return Err(JwksError::File { file: file.clone(), reason: NO_KEY.into() });
            }
            Exposure::Write.warn("jwt_jwks", file);
            let (sender, known) = watch::channel(KnownKeys { keys, again: None });
            following.spawn(reread(watched, file.clone(), sender));
            known
        }
        Jwks::Url { url, ca } => {
            let agent = agent(url, ca.as_ref())?;
            let again = Some(Instant::now());
            let (sender, known) = watch::channel(KnownKeys { again, ..KnownKeys::default() });
            following.spawn(refetch(agent, url.clone(), wanted.clone(), sender));
            known
        }
    };
    Ok(Issuer::new(&jwt.issuer, &jwt.audience, known, wanted))
}

/// The reason for which a key set accepts no token.
const NO_KEY: &str = "it has no public key for signatures: RSA, P-256, P-384 or Ed25519";

fn read(file: &Path) -> Result<IssuerKeys, JwksError> {
    let text =
        fs::read(file).map_err(|source| JwksError::Read { file: file.to_owned(), source })?;
    IssuerKeys::parse(&text).map_err(|reason| JwksError::File { file: file.to_owned(), reason })
}

/// Reads a file of keys again after each change, until it is dropped. The keys stay as they are while
/// the file cannot be read; a set without keys withdraws all.
async fn reread(mut watched: WatchedFiles, file: PathBuf, known: watch::Sender<KnownKeys>) {
    loop {
        watched.changed().await;
        match read(&file) {
            Ok(keys) => {
                let file = file.display();
                if keys.is_empty() {
                    tracing::warn!("every token is refused: {file}: {NO_KEY}");
                } else {
                    tracing::info!("read the issuer's keys in {file} again: {keys:?}");
                }
                known.send_replace(KnownKeys { keys, again: None });
            }
            Err(error) => tracing::warn!("the issuer's keys stay as they were: {error}"),
        }
    }
}

/// Fetches keys at intervals, and when a token names an unknown key, until it is dropped. The keys stay
/// as they are while fetches fail.
async fn refetch(agent: Agent, url: String, wanted: Arc<Notify>, known: watch::Sender<KnownKeys>) {
    let mut last_error = None;
    loop {
        let fetched = fetch_off_thread(agent.clone(), url.clone()).await;
        let again = Instant::now() + FETCH_PAUSE;
        let pause = if fetched.is_ok() { FETCH_INTERVAL } else { FETCH_PAUSE };
        known.send_modify(|known| known.again = Some(again));
        last_error = note_fetched(&url, fetched, &known, last_error.as_deref());
        tokio::select! {
            () = sleep(pause) => {}
            () = async { sleep_until(again).await; wanted.notified().await } => {}
        }
    }
}

/// Publishes fetched keys, or logs why there are none, once for each reason. Returns the reason.
fn note_fetched(
    url: &str,
    fetched: Result<IssuerKeys, FetchError>,
    known: &watch::Sender<KnownKeys>,
    last_error: Option<&str>,
) -> Option<String> {
    let keys = match fetched {
        Ok(keys) => keys,
        Err(error) => {
            let error = error.to_string();
            if last_error != Some(&*error) {
                tracing::warn!("the issuer's keys cannot be fetched from {url}: {error}");
            }
            return Some(error);
        }
    };
    tracing::debug!("fetched the issuer's keys: {keys:?}");
    // An issuer may have withdrawn the last key.
    if keys.is_empty() {
        tracing::warn!("every token is refused: {url}: {NO_KEY}");
    }
    known.send_modify(|known| known.keys = keys);
    None
}

/// Returns a client that trusts these certificates, or by default those that browsers trust.
fn agent(url: &str, ca: Option<&Pem>) -> Result<Agent, JwksError> {
    let mut tls = TlsConfig::builder();
    if let Some(ca) = ca {
        let trusted = ca.certificates().map_err(JwksError::Certificates)?;
        let trusted = trusted.iter().map(|of| Certificate::from_der(of).to_owned());
        tls = tls.root_certs(RootCerts::from(trusted));
    }
    let config = Agent::config_builder().timeout_global(Some(FETCH_TIMEOUT));
    let proxy = proxy_of(url)?;
    let config = config.proxy(proxy);
    // Keys come only from the URL in the configuration.
    Ok(config.max_redirects(0).tls_config(tls.build()).build().new_agent())
}

async fn fetch_off_thread(agent: Agent, url: String) -> Result<IssuerKeys, FetchError> {
    spawn_blocking(move || fetch(&agent, &url)).await?
}

fn fetch(agent: &Agent, url: &str) -> Result<IssuerKeys, FetchError> {
    let mut response = agent.get(url).call()?;
    if response.status() != 200 {
        return Err(FetchError::Status(response.status()));
    }
    let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec()?;
    IssuerKeys::parse(&text).map_err(FetchError::KeySet)
}
