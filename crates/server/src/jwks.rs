//! The keys of an issuer of tokens: from a file or a URL, for as long as the server runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use litplex_access::{Issuer, IssuerKeys, KnownKeys};
use litplex_config::{Jwks, Jwt, Pem};
use litplex_core::is_loopback;
use litplex_tls::WatchedFiles;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use crate::tls;

/// How often keys are fetched, so that those that an issuer withdraws are not trusted for long.
const FETCH_INTERVAL: Duration = Duration::from_secs(300);

/// How long keys are not fetched again, whatever tokens come.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// How long an issuer may take to send its keys.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// More than any set of keys has.
const MOST_BYTES: u64 = 1 << 20;

/// Makes an issuer whose keys are followed by a task of `following`.
///
/// # Errors
/// The file of keys cannot be used, or the one of certificates. Keys that cannot be fetched are no error: they may come yet.
pub(crate) fn follow(jwt: &Jwt, following: &mut JoinSet<()>) -> Result<Issuer, String> {
    let wanted = Arc::new(Notify::new());
    let known = match &jwt.jwks {
        Jwks::File(file) => {
            let watched = WatchedFiles::new([file.clone()]);
            let keys = read(file).map_err(|error| format!("`jwt_jwks`: {error}"))?;
            if keys.is_empty() {
                return Err(format!("`jwt_jwks`: {}: {NO_KEY}", file.display()));
            }
            let (sender, known) = watch::channel(KnownKeys { keys, again: None });
            following.spawn(reread(watched, file.clone(), sender));
            known
        }
        Jwks::Url { url, ca } => {
            let agent = agent(url, ca.as_ref()).map_err(|error| format!("`jwt_ca`: {error}"))?;
            let again = Some(Instant::now());
            let (sender, known) = watch::channel(KnownKeys { again, ..KnownKeys::default() });
            following.spawn(refetch(agent, url.clone(), wanted.clone(), sender));
            known
        }
    };
    Ok(Issuer::new(&jwt.issuer, &jwt.audience, known, wanted))
}

/// What is wrong with a set that lets nobody in.
const NO_KEY: &str = "it has no public key for signatures: RSA, P-256, P-384 or Ed25519";

fn read(file: &Path) -> Result<IssuerKeys, String> {
    let named = |error: String| format!("{}: {error}", file.display());
    let text = fs::read(file).map_err(|error| named(error.to_string()))?;
    IssuerKeys::parse(&text).map_err(named)
}

/// Reads a file of keys whenever it has changed, for as long as it is polled. What cannot be read
/// changes nothing; a set without keys withdraws those that were there.
async fn reread(mut watched: WatchedFiles, file: PathBuf, known: watch::Sender<KnownKeys>) {
    loop {
        watched.changed().await;
        match read(&file) {
            Ok(keys) => {
                let file = file.display();
                if keys.is_empty() {
                    tracing::warn!("nobody is let in by a token: {file}: {NO_KEY}");
                } else {
                    tracing::info!("read the issuer's keys in {file} again: {keys:?}");
                }
                known.send_replace(KnownKeys { keys, again: None });
            }
            Err(error) => tracing::warn!("the issuer's keys stay as they were: {error}"),
        }
    }
}

/// Fetches keys now and then, and when one is wanted that is not known, for as long as it is polled.
/// What cannot be fetched changes nothing.
async fn refetch(agent: Agent, url: String, wanted: Arc<Notify>, known: watch::Sender<KnownKeys>) {
    let mut last_error = None;
    loop {
        let (agent, asked) = (agent.clone(), url.clone());
        let fetched = spawn_blocking(move || fetch(&agent, &asked)).await;
        let fetched = fetched.unwrap_or_else(|error| Err(error.to_string()));
        let again = Instant::now() + FETCH_PAUSE;
        let pause = if fetched.is_ok() { FETCH_INTERVAL } else { FETCH_PAUSE };
        known.send_modify(|known| known.again = Some(again));
        match fetched {
            Ok(keys) => {
                tracing::debug!("fetched the issuer's keys: {keys:?}");
                // An issuer may have withdrawn the last one.
                if keys.is_empty() {
                    tracing::warn!("no token is let in by the keys of {url}: {NO_KEY}");
                }
                known.send_modify(|known| known.keys = keys);
                last_error = None;
            }
            Err(error) => {
                if last_error.as_ref() != Some(&error) {
                    tracing::warn!("the issuer's keys cannot be fetched from {url}: {error}");
                }
                last_error = Some(error);
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = async { sleep_until(again).await; wanted.notified().await } => {}
        }
    }
}

/// Returns what asks issuers that these certificates vouch for, or else those that browsers know.
fn agent(url: &str, ca: Option<&Pem>) -> Result<Agent, String> {
    let mut tls = TlsConfig::builder();
    if let Some(ca) = ca {
        let trusted = tls::pem(ca.clone()).certificates()?;
        let trusted = trusted.iter().map(|of| Certificate::from_der(of).to_owned());
        tls = tls.root_certs(RootCerts::from(trusted));
    }
    let config = Agent::config_builder().timeout_global(Some(FETCH_TIMEOUT));
    // No proxy could reach this machine itself.
    let host = url.parse::<Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    let proxy = Proxy::try_from_env().filter(|_| !host.as_deref().is_some_and(is_loopback));
    let config = config.proxy(proxy);
    // Keys are taken from whom the configuration names, and nobody else.
    Ok(config.max_redirects(0).tls_config(tls.build()).build().new_agent())
}

fn fetch(agent: &Agent, url: &str) -> Result<IssuerKeys, String> {
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    if response.status() != 200 {
        return Err(format!("it answers {}", response.status()));
    }
    let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec();
    IssuerKeys::parse(&text.map_err(|error| error.to_string())?)
}
