//! Admission of callers: keys, tokens and limits.
//!
//! A [`Guard`] decides on the headers of a request alone, before its body is read. It returns the
//! headers that a response gets, and knows neither responses nor connections. [`Browsers`] refuses what
//! pages of other sites may have a browser send. Reading key files and
//! fetching the keys of issuers is left to `server`.

mod browsers;
mod issuer_keys;
mod keys;
mod limits;
mod signatures;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use litplex_core::{ErrorCause, ServeError};
use tokio::sync::watch;

pub use browsers::{Browsers, RouteKind};
pub use issuer_keys::IssuerKeys;
pub use keys::{Digest, Keys, digest};
pub use limits::{Admission, InFlightPermit, Rate, Refusal};
use limits::{Caller, Limits, RateLimitStatus};
pub use tokens::{Issuer, KnownKeys};

/// The guard of a route: which callers may use it, and how much.
#[derive(Debug, Default)]
pub struct Guard {
    /// The accepted keys; `None` where no key is accepted. Without keys and tokens every caller is.
    keys: Option<watch::Receiver<Keys>>,
    tokens: Option<Tokens>,
    limits: Limits,
    /// The callers whose requests are in the class `batch`.
    batch_callers: Vec<String>,
}

/// A caller, and the scopes of its token, if it has one.
type KnownCaller = (Caller, Option<Arc<[String]>>);

/// The accepted tokens.
#[derive(Debug)]
struct Tokens {
    issuer: Issuer,
    /// The scopes that each of them must have.
    scopes: Vec<String>,
}

impl Guard {
    /// Creates a guard that accepts the keys of this channel, as they are at the time. Without keys
    /// and tokens it admits every caller.
    pub fn new(keys: Option<watch::Receiver<Keys>>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Accepts also the tokens of this issuer that have all of these scopes.
    #[must_use]
    pub fn or_tokens(self, issuer: Option<Issuer>, scopes: Vec<String>) -> Self {
        Self { tokens: issuer.map(|issuer| Tokens { issuer, scopes }), ..self }
    }

    /// Sets the limits of each caller: the holder of a key, the subject of a token, or, where neither
    /// is required, an address.
    #[must_use]
    pub fn limit(self, rate: Option<Rate>, in_flight: Option<usize>) -> Self {
        Self { limits: Limits::new(rate, in_flight), ..self }
    }

    /// Sets the callers whose requests are in the priority class `batch`: holders of keys and subjects of tokens.
    #[must_use]
    pub fn with_batch_callers(self, batch_callers: Vec<String>) -> Self {
        Self { batch_callers, ..self }
    }

    /// Returns the names of the `OpenAPI` security schemes that admit callers; none where every caller
    /// is admitted.
    pub fn schemes(&self) -> &'static [&'static str] {
        match (&self.keys, &self.tokens) {
            (None, None) => &[],
            (Some(_), None) => &["key", "bearer"],
            (None, Some(_)) => &["token"],
            (Some(_), Some(_)) => &["key", "bearer", "token"],
        }
    }

    /// Returns whether every caller is admitted.
    pub fn is_open(&self) -> bool {
        self.schemes().is_empty()
    }

    /// Returns whether it limits callers.
    pub fn has_limits(&self) -> bool {
        self.limits.are_set()
    }

    /// Admits a request, and counts it for the limits of its caller.
    ///
    /// # Errors
    /// The request carries no accepted key or token, or its caller has reached a limit.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<Admission, Refusal> {
        let (caller, scopes) = if self.schemes().is_empty() {
            (client.map_or(Caller::Unknown, |client| Caller::at(client.ip())), None)
        } else {
            self.known_caller(headers)?
        };
        let holder = || caller.holder();
        let admission = self.limits.take(&caller);
        let admission = admission.map_err(|refused| Refusal { holder: holder(), ..refused })?;
        let is_named = |holder: &Arc<str>| self.batch_callers.iter().any(|name| **name == **holder);
        let is_batch = admission.holder.as_ref().is_some_and(is_named);
        Ok(Admission { scopes, is_batch, ..admission })
    }

    /// Checks the key or token of a request, without counting the request for any limit.
    ///
    /// # Errors
    /// The request carries no accepted key or token.
    pub fn knows(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.schemes().is_empty() { Ok(()) } else { self.known_caller(headers).map(drop) }
    }

    /// Returns the caller that a key, or else a token, identifies, and the scopes of the token.
    fn known_caller(&self, headers: &HeaderMap) -> Result<KnownCaller, Refusal> {
        let holder = self.keys.as_ref().and_then(|keys| {
            let known = keys.borrow();
            keys::carried(headers).find_map(|key| known.holder(key))
        });
        if let Some(holder) = holder {
            return Ok((Caller::Holder(holder), None));
        }
        let subject = match (&self.tokens, keys::bearer_token(headers)) {
            (Some(tokens), Some(token)) => tokens.subject(token),
            (tokens, _) => {
                let error = ServeError::unauthenticated(self.unauthenticated(headers));
                let challenges = tokens.iter().map(|_| tokens::CHALLENGE).collect();
                Err(Refusal { challenges, ..error.into() })
            }
        };
        subject.map_err(|mut refusal| {
            if refusal.error.cause == ErrorCause::Unauthenticated && self.keys.is_some() {
                refusal.challenges.push(HeaderValue::from_static("APIKey"));
            }
            refusal
        })
    }

    fn unauthenticated(&self, headers: &HeaderMap) -> &'static str {
        if self.keys.is_some() && carries_key(headers) {
            "Invalid API Key. Send the right one in the header X-API-Key, or as \
             `Authorization: Bearer …`"
        } else {
            self.how_to_authenticate()
        }
    }

    /// Returns the message that names the headers to send.
    fn how_to_authenticate(&self) -> &'static str {
        match (&self.keys, &self.tokens) {
            (Some(_), None) => {
                "Not authenticated. Send a key in the header X-API-Key, or as \
                 `Authorization: Bearer …`"
            }
            (Some(_), Some(_)) => {
                "Not authenticated. Send a key in the header X-API-Key, or a key or token as \
                 `Authorization: Bearer …`"
            }
            _ => "Not authenticated. Send a token as `Authorization: Bearer …`",
        }
    }
}

impl Tokens {
    /// Returns the subject of a token that is accepted, and its scopes.
    fn subject(&self, token: &[u8]) -> Result<KnownCaller, Refusal> {
        let claims = self.issuer.claims(token)?;
        let (has_scopes, scopes) = (claims.has(&self.scopes), claims.scopes());
        let caller = Caller::Subject(claims.sub);
        if has_scopes {
            return Ok((caller, Some(scopes)));
        }
        Err(Refusal { holder: caller.holder(), ..tokens::insufficient(&self.scopes) })
    }
}

/// Returns whether a request carries a key, right or wrong.
pub fn carries_key(headers: &HeaderMap) -> bool {
    keys::carried(headers).next().is_some()
}

/// Returns why a request is refused, unless it carries this key as its bearer token.
pub fn refuse_bearer(key: &Keys, headers: &HeaderMap) -> Option<ServeError> {
    match keys::bearer_token(headers) {
        // LitServe's text: its clients may compare it.
        None => Some(ServeError::unauthenticated("Not authenticated")),
        Some(token) if key.holder(token).is_some() => None,
        Some(_) => {
            let detail = "Invalid Bearer token. Send the right one as `Authorization: Bearer …`";
            Some(ServeError::unauthenticated(detail))
        }
    }
}

impl Admission {
    /// Returns the headers of the response that show the caller its rate limit.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        self.rate_limit.into_iter().flat_map(RateLimitStatus::headers)
    }
}

impl Refusal {
    fn challenged(error: ServeError, challenge: String) -> Self {
        let challenges = HeaderValue::try_from(challenge).into_iter().collect();
        Self { challenges, ..error.into() }
    }

    /// Returns the headers of the response: a challenge for each way to authenticate, and the
    /// caller's rate limit.
    pub fn into_headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let challenges = self.challenges.into_iter();
        let challenges = challenges.map(|challenge| (WWW_AUTHENTICATE, challenge));
        challenges.chain(self.rate_limit.into_iter().flat_map(RateLimitStatus::headers))
    }
}
