//! Who may call, and how much.

mod keys;
mod limits;

use std::net::SocketAddr;

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Response};
use litmux_core::ServeError;
use tokio::sync::watch;

pub use keys::{Digest, Keys, digest};
pub use limits::Rate;
pub(crate) use limits::{Admission, Place, Refusal};
use limits::{Caller, Limits, Standing};

use crate::answer::HttpResponse;

/// What a request must bring to be let in. It is decided on its headers, before its body is read.
#[derive(Debug, Default)]
pub struct Guard {
    /// None where everybody may call.
    keys: Option<watch::Receiver<Keys>>,
    limits: Limits,
}

impl Guard {
    /// Makes a guard that lets holders of these keys in, as they are at the time; everybody where
    /// there are none.
    pub fn new(keys: Option<watch::Receiver<Keys>>) -> Self {
        Self { keys, limits: Limits::default() }
    }

    /// Sets what one caller may do: the holder of a key, or whoever is at an address where keys
    /// are not asked for.
    #[must_use]
    pub fn limit(self, rate: Option<Rate>, in_flight: Option<usize>) -> Self {
        Self { limits: Limits::new(rate, in_flight), ..self }
    }

    /// Tells whether it asks for a key.
    pub(crate) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Tells whether it limits what one caller may do.
    pub(crate) fn has_limits(&self) -> bool {
        self.limits.are_any()
    }

    /// Lets a request in, or not.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<Admission, Refusal> {
        let caller = match &self.keys {
            Some(keys) => holder(&keys.borrow(), headers)?,
            None => client.map_or(Caller::Unknown, |client| Caller::Address(client.ip())),
        };
        self.limits.take(&caller)
    }
}

/// Returns whose key a request carries.
fn holder(known: &Keys, headers: &HeaderMap) -> Result<Caller, Refusal> {
    let mut carried = keys::carried(headers).peekable();
    let detail = match carried.peek() {
        None => "Not authenticated",
        Some(_) => {
            "Invalid API Key. Send the right one in the header X-API-Key, or as \
             `Authorization: Bearer …`"
        }
    };
    let holder = carried.find_map(|key| known.holder(key));
    holder.map(Caller::Holder).ok_or_else(|| ServeError::new(401, detail).into())
}

/// Tells whether a request carries a key, right or wrong.
pub(crate) fn carries_key(headers: &HeaderMap) -> bool {
    keys::carried(headers).next().is_some()
}

/// Returns why a request that does not carry this key as its bearer token is refused.
pub(crate) fn refuse_bearer(key: &Keys, headers: &HeaderMap) -> Option<ServeError> {
    match keys::bearer_token(headers) {
        None => Some(ServeError::new(401, "Not authenticated")),
        Some(token) if key.holder(token).is_some() => None,
        Some(_) => {
            let detail = "Invalid Bearer token. Send the right one as `Authorization: Bearer …`";
            Some(ServeError::new(401, detail))
        }
    }
}

impl Admission {
    /// Tells the caller where it stands.
    pub(crate) fn stamp<B>(&self, response: &mut Response<B>) {
        response.headers_mut().extend(self.standing.into_iter().flat_map(Standing::headers));
    }
}

impl Refusal {
    /// Adds to the answer what says how to be let in.
    pub(crate) fn stamp(self, mut response: HttpResponse) -> HttpResponse {
        let headers = response.headers_mut();
        if self.error.status == 401 {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("APIKey"));
        }
        headers.extend(self.standing.into_iter().flat_map(Standing::headers));
        response
    }
}
