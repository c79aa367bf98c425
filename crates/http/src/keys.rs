use std::fmt;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;

use crate::answer::{self, HttpResponse};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A secret that callers must send.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Makes a key of a text; there is none that is empty.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        Some(text.into()).filter(|text| !text.is_empty()).map(Self)
    }

    /// How long it takes tells nothing but the length.
    fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }

    /// Returns the refusal of a request that does not carry the key in `X-API-Key`, and whether
    /// it has another there.
    pub(crate) fn refuse(&self, headers: &HeaderMap) -> Option<(bool, HttpResponse)> {
        match headers.get(X_API_KEY) {
            Some(given) if self.is(given.as_bytes()) => None,
            Some(_) => {
                let detail = "Invalid API Key. Send the right one in the header X-API-Key";
                Some((true, unauthorized(detail, "APIKey")))
            }
            None => Some((false, unauthorized("Not authenticated", "APIKey"))),
        }
    }

    /// Returns the refusal of a request that does not carry the key as its bearer token.
    pub(crate) fn refuse_bearer(&self, headers: &HeaderMap) -> Option<HttpResponse> {
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        match given.and_then(|value| value.split_at_checked("Bearer ".len())) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => {
                let detail =
                    "Invalid Bearer token. Send the right one as `Authorization: Bearer …`";
                (!self.is(token)).then(|| unauthorized(detail, "Bearer"))
            }
            _ => Some(unauthorized("Not authenticated", "Bearer")),
        }
    }
}

fn unauthorized(detail: &str, scheme: &'static str) -> HttpResponse {
    let mut response = answer::detail(StatusCode::UNAUTHORIZED, detail);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn only_the_whole_key_opens() {
        let key = Key::new("s3cret").unwrap();
        assert!(key.refuse(&headers("x-api-key", "s3cret")).is_none());
        for wrong in ["", "s3cre", "s3crets", "S3cret", "other"] {
            let (_, refused) = key.refuse(&headers("x-api-key", wrong)).unwrap();
            assert_eq!(refused.status(), 401, "{wrong:?}");
        }
        let (has_key, refused) = key.refuse(&HeaderMap::new()).unwrap();
        assert_eq!(
            (has_key, &refused.headers()["www-authenticate"]),
            (false, &"APIKey".parse().unwrap())
        );
    }

    #[test]
    fn a_bearer_token_has_its_scheme() {
        let key = Key::new("s3cret").unwrap();
        assert!(key.refuse_bearer(&headers("authorization", "bearer s3cret")).is_none());
        for wrong in ["", "s3cret", "Basic s3cret", "Bearer", "Bearer other"] {
            assert!(key.refuse_bearer(&headers("authorization", wrong)).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn an_empty_key_is_none_and_none_is_shown() {
        assert_eq!(Key::new(""), None);
        assert_eq!(format!("{:?}", Key::new("s3cret")), "Some(Key(…))");
    }
}
