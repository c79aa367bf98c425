//! The keys that an issuer publishes: a JSON Web Key Set, RFC 7517.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

/// The public keys of an issuer, with which signatures of tokens are checked.
#[derive(Clone, Default)]
pub struct IssuerKeys(Vec<IssuerKey>);

#[derive(Clone)]
struct IssuerKey {
    id: Option<String>,
    /// The algorithms that it may be used with.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| key.id.as_deref().unwrap_or("?"))).finish()
    }
}

/// The keys that may have signed a token.
pub(super) enum Candidates<'a> {
    /// The key that the token names, or all keys if it names none.
    Keys(Vec<&'a DecodingKey>),
    /// No key has the name.
    Unknown,
    /// A key has the name, but does not sign with the algorithm of the token.
    Unfit,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl IssuerKeys {
    /// Parses a key set. Keys for other uses, and keys of unknown kinds, are left out.
    ///
    /// # Errors
    /// The text is not a key set.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set: KeySet = serde_json::from_slice(text)
            .map_err(|error| format!("invalid JSON Web Key Set: {error}"))?;
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(Self(keys.filter_map(|key| IssuerKey::from_jwk(&key)).collect()))
    }

    /// Returns whether no key is left that could have signed a token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys that may have signed a token with this header.
    pub(super) fn candidates(&self, header: &Header) -> Candidates<'_> {
        let is_named = |key: &&IssuerKey| match (&header.kid, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        let mut named = self.0.iter().filter(is_named).peekable();
        if named.peek().is_none() {
            return Candidates::Unknown;
        }
        let fit = named.filter(|key| key.algorithms.contains(&header.alg));
        let keys: Vec<_> = fit.map(|key| &key.key).collect();
        if keys.is_empty() { Candidates::Unfit } else { Candidates::Keys(keys) }
    }
}

impl IssuerKey {
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![ES256],
                EllipticCurve::P384 => vec![ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![EdDSA]
            }
            // Symmetric keys are refused: a published secret is not secret.
            _ => return None,
        };
        if jwk.common.public_key_use.as_ref().is_some_and(|to| *to != PublicKeyUse::Signature) {
            return None;
        }
        if let Some(only) = jwk.common.key_algorithm {
            let only = Algorithm::from_str(&only.to_string()).ok()?;
            algorithms.retain(|algorithm| *algorithm == only);
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let is_usable = !algorithms.is_empty();
        is_usable.then(|| Self { id: jwk.common.key_id.clone(), algorithms, key })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(keys: &Value) -> Result<IssuerKeys, String> {
        IssuerKeys::parse(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn keys_for_other_uses_are_left_out() {
        let rsa = json!({"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB"});
        let mut encrypts = rsa.clone();
        encrypts["use"] = "enc".into();
        let secret = json!({"kty": "oct", "kid": "secret", "k": "AQAB"});
        let unknown = json!({"kty": "new", "kid": "new"});
        let keys = parse(&json!([rsa, encrypts, secret, unknown, 1])).unwrap();
        assert_eq!(format!("{keys:?}"), r#"["rsa"]"#);
        for none in [json!([]), json!([secret]), json!([encrypts])] {
            assert!(parse(&none).unwrap().is_empty(), "{none}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_key_set_is_refused() {
        for wrong in ["", "{}", "[]", "{\"keys\": 1}", "-----BEGIN PUBLIC KEY-----"] {
            let error = IssuerKeys::parse(wrong.as_bytes()).unwrap_err();
            assert!(error.starts_with("invalid JSON Web Key Set"), "{wrong:?}: {error}");
        }
    }
}
