//! Who may call, and how much.

mod issuer_keys;
mod keys;
mod limits;
mod signatures;
mod tokens;

use std::net::SocketAddr;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use litplex_core::ServeError;
use tokio::sync::watch;

pub use issuer_keys::IssuerKeys;
pub use keys::{Digest, Keys, digest};
pub use limits::{Admission, Place, Rate, Refusal, Standing};
use limits::{Caller, Limits};
pub use tokens::{Issuer, KnownKeys};

/// What a request must bring to be let in. It is decided on its headers, before its body is read.
#[derive(Debug, Default)]
pub struct Guard {
    /// None where no key lets anybody in; everybody may call where no token does either.
    keys: Option<watch::Receiver<Keys>>,
    tokens: Option<Tokens>,
    limits: Limits,
}

/// Which tokens let callers in.
#[derive(Debug)]
struct Tokens {
    issuer: Issuer,
    /// What all of them must have.
    scopes: Vec<String>,
}

impl Guard {
    /// Makes a guard that lets holders of these keys in, as they are at the time; everybody where
    /// there are none, nor tokens.
    pub fn new(keys: Option<watch::Receiver<Keys>>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Lets in, too, whoever has a token of this issuer with all of these scopes.
    #[must_use]
    pub fn or_tokens(self, issuer: Option<Issuer>, scopes: Vec<String>) -> Self {
        Self { tokens: issuer.map(|issuer| Tokens { issuer, scopes }), ..self }
    }

    /// Sets what one caller may do: the holder of a key, whom a token speaks of, or whoever is at an
    /// address where neither is asked for.
    #[must_use]
    pub fn limit(self, rate: Option<Rate>, in_flight: Option<usize>) -> Self {
        Self { limits: Limits::new(rate, in_flight), ..self }
    }

    /// Tells which security schemes of the description let callers in; none where everybody may
    /// call.
    pub fn schemes(&self) -> &'static [&'static str] {
        match (&self.keys, &self.tokens) {
            (None, None) => &[],
            (Some(_), None) => &["key", "bearer"],
            (None, Some(_)) => &["token"],
            (Some(_), Some(_)) => &["key", "bearer", "token"],
        }
    }

    /// Returns whether everybody may call.
    pub fn is_open(&self) -> bool {
        self.schemes().is_empty()
    }

    /// Tells whether it limits what one caller may do.
    pub fn has_limits(&self) -> bool {
        self.limits.are_any()
    }

    /// Lets a request in, or not.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<Admission, Refusal> {
        let caller = if self.schemes().is_empty() {
            client.map_or(Caller::Unknown, |client| Caller::at(client.ip()))
        } else {
            self.known_caller(headers)?
        };
        let holder = || caller.holder();
        self.limits.take(&caller).map_err(|refused| Refusal { holder: holder(), ..refused })
    }

    /// Returns whether a request may call, of which it costs nothing to ask.
    ///
    /// # Errors
    /// Why it may not.
    pub fn knows(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.schemes().is_empty() { Ok(()) } else { self.known_caller(headers).map(drop) }
    }

    /// Returns who a request says it is, by a key or else by a token.
    fn known_caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let holder = self.keys.as_ref().and_then(|keys| {
            let known = keys.borrow();
            keys::carried(headers).find_map(|key| known.holder(key))
        });
        if let Some(holder) = holder {
            return Ok(Caller::Holder(holder));
        }
        let subject = match (&self.tokens, keys::bearer_token(headers)) {
            (Some(tokens), Some(token)) => tokens.subject(token),
            (tokens, _) => {
                let error = ServeError::new(401, self.what_lacks(headers));
                let challenges = tokens.iter().map(|_| tokens::CHALLENGE).collect();
                Err(Refusal { challenges, ..error.into() })
            }
        };
        subject.map_err(|mut refusal| {
            if refusal.error.status == 401 && self.keys.is_some() {
                refusal.challenges.push(HeaderValue::from_static("APIKey"));
            }
            refusal
        })
    }

    fn what_lacks(&self, headers: &HeaderMap) -> &'static str {
        if self.keys.is_some() && carries_key(headers) {
            "Invalid API Key. Send the right one in the header X-API-Key, or as \
             `Authorization: Bearer …`"
        } else {
            self.how_to_be_let_in()
        }
    }

    /// Says which headers are read.
    fn how_to_be_let_in(&self) -> &'static str {
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
    /// Returns whom a token speaks of, if it lets that one in.
    fn subject(&self, token: &[u8]) -> Result<Caller, Refusal> {
        let claims = self.issuer.claims(token)?;
        let may = claims.has(&self.scopes);
        let caller = Caller::Subject(claims.sub);
        if may {
            return Ok(caller);
        }
        Err(Refusal { holder: caller.holder(), ..tokens::insufficient(&self.scopes) })
    }
}

/// Tells whether a request carries a key, right or wrong.
pub fn carries_key(headers: &HeaderMap) -> bool {
    keys::carried(headers).next().is_some()
}

/// Returns why a request that does not carry this key as its bearer token is refused.
pub fn refuse_bearer(key: &Keys, headers: &HeaderMap) -> Option<ServeError> {
    match keys::bearer_token(headers) {
        // In the words of LitServe, whose clients may look at them.
        None => Some(ServeError::new(401, "Not authenticated")),
        Some(token) if key.holder(token).is_some() => None,
        Some(_) => {
            let detail = "Invalid Bearer token. Send the right one as `Authorization: Bearer …`";
            Some(ServeError::new(401, detail))
        }
    }
}

impl Admission {
    /// Returns the headers of the response that show the caller its rate limit.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        self.standing.into_iter().flat_map(Standing::headers)
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
        challenges.chain(self.standing.into_iter().flat_map(Standing::headers))
    }
}
