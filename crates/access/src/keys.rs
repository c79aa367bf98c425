//! API keys: their hashes, and the headers that carry them.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The SHA-256 of a key. Keys are random and long, so no salt is needed.
pub type Digest = [u8; 32];

/// Returns the digest of a key.
pub fn digest(key: impl AsRef<[u8]>) -> Digest {
    Sha256::digest(key.as_ref()).into()
}

/// The digests of API keys, each with the name of its holder.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<(Arc<str>, Digest)>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(holder, _)| holder)).finish()
    }
}

impl FromIterator<(String, Digest)> for Keys {
    fn from_iter<T: IntoIterator<Item = (String, Digest)>>(keys: T) -> Self {
        Self(keys.into_iter().map(|(holder, digest)| (holder.into(), digest)).collect())
    }
}

impl Keys {
    /// Returns whether there is no key, so that no key is accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the holder of a key. The time that it takes depends on the number of keys alone.
    pub fn holder(&self, key: &[u8]) -> Option<Arc<str>> {
        let given = digest(key);
        let mut found = None;
        for (holder, known) in &self.0 {
            if known.ct_eq(&given).into() {
                found = Some(holder);
            }
        }
        found.cloned()
    }
}

/// Returns the keys that a request carries: in `X-API-Key`, and as its bearer token. An empty key is
/// left out, because its hash may be configured by mistake: `printf "$UNSET" | sha256sum`.
pub(crate) fn carried(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let api_keys = headers.get_all(X_API_KEY).into_iter().map(HeaderValue::as_bytes);
    api_keys.chain(bearer_token(headers)).filter(|key| !key.is_empty())
}

/// Returns the bearer token of a request.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn only_the_whole_key_has_a_holder() {
        let keys: Keys = [("ann", "s3cret"), ("bob", "other")]
            .map(|(holder, key)| (holder.to_owned(), digest(key)))
            .into_iter()
            .collect();
        assert_eq!(keys.holder(b"s3cret").as_deref(), Some("ann"));
        assert_eq!(keys.holder(b"other").as_deref(), Some("bob"));
        for wrong in ["", "s3cre", "s3crets", "S3cret"] {
            assert_eq!(keys.holder(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(format!("{keys:?}"), r#"["ann", "bob"]"#);
    }

    #[test]
    fn a_key_is_carried_in_either_header() {
        let found = |headers: &HeaderMap| carried(headers).map(<[u8]>::to_vec).next();
        assert_eq!(found(&headers("x-api-key", "k")), Some(b"k".to_vec()));
        assert_eq!(found(&headers("authorization", "bearer k")), Some(b"k".to_vec()));
        assert_eq!(found(&headers("x-api-key", "")), None);
        for none in ["", "k", "Basic k", "Bearer", "Bearer "] {
            assert_eq!(found(&headers("authorization", none)), None, "{none:?}");
        }
    }
}
