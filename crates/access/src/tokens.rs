//! Tokens that an issuer has signed: JSON Web Tokens, RFC 7519.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use litplex_core::ServeError;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::issuer_keys::{Candidates, IssuerKeys};
use super::{Refusal, signatures};

/// The difference that the clocks of the issuer and the server may have, in seconds.
const LEEWAY: u64 = 30;

/// The keys of an issuer that are known now, and when they can be fetched again.
#[derive(Debug, Clone, Default)]
pub struct KnownKeys {
    /// The keys.
    pub keys: IssuerKeys,
    /// The instant from which they can be fetched again; `None` for keys in a file.
    pub again: Option<Instant>,
}

/// An issuer whose tokens admit callers.
#[derive(Debug, Clone)]
pub struct Issuer {
    validation: Arc<Validation>,
    known: watch::Receiver<KnownKeys>,
    wanted: Arc<Notify>,
}

/// The claims of a token: its subject and its scopes.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: Arc<str>,
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    scope: Value,
    #[serde(default)]
    scp: Value,
}

impl Issuer {
    /// Creates an issuer whose tokens have this `iss` and `aud` and are signed with a key that is
    /// known at the time. `wanted` is notified when a token is signed with another key.
    pub fn new(
        issuer: &str,
        audience: &str,
        known: watch::Receiver<KnownKeys>,
        wanted: Arc<Notify>,
    ) -> Self {
        signatures::install();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self { validation: Arc::new(validation), known, wanted }
    }

    /// Returns the claims of a token. The verification of a signature takes 20 µs (RSA) to 100 µs
    /// (ECDSA), so that its result is not cached.
    ///
    /// # Errors
    /// The token is invalid.
    pub(super) fn claims(&self, token: &[u8]) -> Result<Claims, Refusal> {
        let header =
            decode_header(token).map_err(|_| invalid("malformed token: not a JSON Web Token"))?;
        if header.crit.is_some() {
            return Err(invalid("unsupported token: the `crit` header is not supported"));
        }
        let known = self.known.borrow();
        let keys = match known.keys.candidates(&header) {
            Candidates::Unknown => return Err(self.unknown_key(&known)),
            Candidates::Unfit => {
                let alg = header.alg;
                return Err(invalid(&format!(
                    "token algorithm `{alg:?}` does not match the issuer's key"
                )));
            }
            Candidates::Keys(keys) => keys,
        };
        let mut validation = (*self.validation).clone();
        validation.algorithms = vec![header.alg];
        let mut result = Err(invalid("invalid token signature"));
        for key in keys {
            match decode::<Claims>(token, key, &validation) {
                Ok(token) => return token.claims.validated(),
                Err(error) if *error.kind() == ErrorKind::InvalidSignature => {}
                Err(error) => result = Err(invalid(&detail(error.kind()))),
            }
        }
        result
    }

    /// Requests a fetch of the keys, where they can be fetched: the issuer may have a new one.
    fn unknown_key(&self, known: &KnownKeys) -> Refusal {
        let wait = known.again.map(|again| again.saturating_duration_since(Instant::now()));
        if wait == Some(Duration::ZERO) {
            self.wanted.notify_one();
        }
        match wait {
            Some(wait) if wait.is_zero() || known.keys.is_empty() => {
                let detail = "the issuer's keys are being fetched; retry later";
                let seconds = wait.as_secs().max(1);
                Refusal::from(ServeError::not_ready(detail, seconds))
            }
            _ => invalid("unknown signing key: the token's issuer does not publish it"),
        }
    }
}

impl Claims {
    /// Refuses claims that the library accepts: a list of issuers, and an empty subject, which would
    /// share its limits with every other empty one.
    fn validated(self) -> Result<Self, Refusal> {
        if !self.iss.is_string() {
            return Err(invalid("invalid claim `iss`: expected a string"));
        }
        if self.sub.is_empty() {
            return Err(invalid("invalid claim `sub`: expected a name, got an empty string"));
        }
        Ok(self)
    }

    /// Returns all scopes.
    pub(super) fn scopes(&self) -> Arc<[String]> {
        let words = |claim: &Value| -> Vec<String> {
            match claim {
                Value::String(words) => words.split(' ').map(str::to_owned).collect(),
                Value::Array(words) => {
                    words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                }
                _ => Vec::new(),
            }
        };
        [words(&self.scope), words(&self.scp)].concat().into()
    }

    /// Returns whether the token has all of these scopes, as words of a text or as a list.
    pub(super) fn has(&self, scopes: &[String]) -> bool {
        scopes.iter().all(|scope| names(&self.scope, scope) || names(&self.scp, scope))
    }
}

fn names(claim: &Value, scope: &str) -> bool {
    match claim {
        Value::String(words) => words.split(' ').any(|word| word == scope),
        Value::Array(words) => words.iter().any(|word| word == scope),
        _ => false,
    }
}

/// Returns why a token is refused, without any text of the token.
fn detail(error: &ErrorKind) -> String {
    match error {
        ErrorKind::ExpiredSignature => "the token has expired".into(),
        ErrorKind::ImmatureSignature => "the token is not valid yet".into(),
        ErrorKind::InvalidIssuer => "unexpected issuer".into(),
        ErrorKind::InvalidAudience => "unexpected audience".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("missing or malformed claim `{claim}`"),
        ErrorKind::InvalidClaimFormat(claim) => {
            format!("invalid claim `{claim}`: expected a NumericDate")
        }
        _ => "malformed token: its claims cannot be read".into(),
    }
}

/// Refuses a token, as RFC 6750 defines it.
fn invalid(detail: &str) -> Refusal {
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{detail}\"");
    Refusal::challenged(ServeError::unauthenticated(detail), challenge)
}

/// Refuses a token that does not have all of these scopes.
pub(super) fn insufficient(scopes: &[String]) -> Refusal {
    let scopes = scopes.join(" ");
    let detail = format!("missing scope: the token must have {scopes}");
    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scopes}\"");
    Refusal::challenged(ServeError::forbidden(detail), challenge)
}

/// The challenge of a route that accepts tokens.
pub(super) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    use jsonwebtoken::get_current_timestamp as now;
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    };
    use serde_json::json;

    use super::*;

    /// An issuer with the keys `ed` and `ec`.
    struct Signer {
        ed: Ed25519KeyPair,
        ec: EcdsaKeyPair,
    }

    impl Signer {
        fn new() -> Self {
            let random = SystemRandom::new();
            let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Self {
                ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
                ec: EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).unwrap(),
            }
        }

        fn keys(&self) -> IssuerKeys {
            let (ed, ec) = (self.ed.public_key().as_ref(), self.ec.public_key().as_ref());
            let [x, y] = [&ec[1..33], &ec[33..]].map(|number| BASE64.encode(number));
            let ed = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": BASE64.encode(ed)});
            let ec =
                json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "ec", "x": x, "y": y});
            IssuerKeys::parse(json!({"keys": [ed, ec]}).to_string().as_bytes()).unwrap()
        }

        /// Returns a token with this header, signed with `ed` for `EdDSA` and with `ec` for all others.
        fn sign(&self, header: &Value, claims: &Value) -> String {
            let [head, body] = [header, claims].map(|part| BASE64.encode(part.to_string()));
            let message = format!("{head}.{body}");
            let signature = if header["alg"] == "EdDSA" {
                self.ed.sign(message.as_bytes()).as_ref().to_vec()
            } else {
                let random = SystemRandom::new();
                self.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec()
            };
            format!("{message}.{}", BASE64.encode(signature))
        }

        fn token(&self, changed: &Value) -> String {
            let mut claims = json!({"iss": "id", "aud": "models", "sub": "ann", "exp": now() + 60});
            for (name, value) in changed.as_object().unwrap() {
                claims[name] = value.clone();
            }
            self.sign(&json!({"alg": "EdDSA", "kid": "ed"}), &claims)
        }
    }

    fn issuer(known: KnownKeys) -> Issuer {
        Issuer::new("id", "models", watch::channel(known).1, Arc::default())
    }

    fn refused(issuer: &Issuer, token: &str) -> (u16, String) {
        let error = issuer.claims(token.as_bytes()).unwrap_err().error;
        (error.status(), error.detail)
    }

    #[test]
    fn each_claim_of_a_token_is_checked() {
        let signer = Signer::new();
        let issuer = issuer(KnownKeys { keys: signer.keys(), again: None });
        let token = signer.token(&json!({"aud": ["other", "models"], "nbf": now() + 20}));
        assert_eq!(&*issuer.claims(token.as_bytes()).unwrap().sub, "ann");
        for (changed, says) in [
            (json!({"exp": now() - 60}), "the token has expired"),
            (json!({"exp": null}), "missing or malformed claim `exp`"),
            (json!({"exp": "soon"}), "missing or malformed claim `exp`"),
            (json!({"nbf": now() + 600}), "the token is not valid yet"),
            (json!({"iss": "evil"}), "unexpected issuer"),
            (json!({"iss": 1}), "missing or malformed claim `iss`"),
            (json!({"iss": ["evil", "id"]}), "invalid claim `iss`: expected a string"),
            (json!({"aud": "other"}), "unexpected audience"),
            (json!({"aud": null}), "missing or malformed claim `aud`"),
            (json!({"sub": null}), "malformed token: its claims cannot be read"),
            (json!({"sub": ""}), "invalid claim `sub`: expected a name, got an empty string"),
        ] {
            let refused = refused(&issuer, &signer.token(&changed));
            assert_eq!(refused, (401, says.to_owned()), "{changed}");
        }
    }

    #[test]
    fn a_token_must_be_signed_by_the_issuer_in_the_way_of_its_key() {
        let (signer, stranger) = (Signer::new(), Signer::new());
        let issuer = issuer(KnownKeys { keys: signer.keys(), again: None });
        let good = signer.token(&json!({}));
        let says = |token: &str| refused(&issuer, token).1;
        assert_eq!(says(&stranger.token(&json!({}))), "invalid token signature");
        let (message, signature) = good.rsplit_once('.').unwrap();
        let (head, _) = message.split_once('.').unwrap();
        let other = BASE64.encode(r#"{"sub": "root"}"#);
        assert_eq!(says(&format!("{head}.{other}.{signature}")), "invalid token signature");
        let claims = json!({"iss": "id", "aud": "models", "sub": "ann", "exp": now() + 60});
        let signed = |header: Value| signer.sign(&header, &claims);
        let by_ec = signed(json!({"alg": "ES256", "kid": "ec"}));
        assert!(issuer.claims(by_ec.as_bytes()).is_ok());
        assert!(issuer.claims(signed(json!({"alg": "EdDSA"})).as_bytes()).is_ok(), "no kid");
        for (header, wrong) in [
            (json!({"alg": "none", "kid": "ed"}), "not a JSON Web Token"),
            (json!({"alg": "HS256", "kid": "ed"}), "does not match the issuer's key"),
            (json!({"alg": "ES256", "kid": "ed"}), "does not match the issuer's key"),
            (json!({"alg": "EdDSA", "kid": "ec"}), "does not match the issuer's key"),
            (json!({"alg": "HS256"}), "token algorithm `HS256` does not match"),
            (json!({"alg": "EdDSA", "kid": "new"}), "does not publish"),
            (
                json!({"alg": "EdDSA", "kid": "ed", "crit": ["b64"]}),
                "the `crit` header is not supported",
            ),
        ] {
            let says = says(&signed(header.clone()));
            assert!(says.contains(wrong), "{header}: {says}");
        }
        for garbage in ["", ".", "..", "a.b.c", "a.b.c.d", "\u{7f}", head] {
            assert_eq!(says(garbage), "malformed token: not a JSON Web Token", "{garbage:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_fetched_but_not_all_the_time() {
        let signer = Signer::new();
        let token = signer.token(&json!({}));
        let other = Signer::new().sign(&json!({"alg": "EdDSA", "kid": "new"}), &json!({}));
        let (sender, known) = watch::channel(KnownKeys::default());
        let wanted = Arc::new(Notify::new());
        let issuer = Issuer::new("id", "models", known, wanted.clone());
        sender.send_modify(|known| known.again = Some(Instant::now()));
        assert_eq!(refused(&issuer, &token).0, 503, "none could be fetched yet");
        wanted.notified().await;
        let again = Some(Instant::now() + Duration::from_secs(10));
        sender.send_modify(|known| known.again = again);
        assert_eq!(refused(&issuer, &token).0, 503);
        sender.send_replace(KnownKeys { keys: signer.keys(), again });
        assert!(issuer.claims(token.as_bytes()).is_ok());
        assert_eq!(refused(&issuer, &other).0, 401, "they were fetched just now");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(refused(&issuer, &other).0, 503);
        wanted.notified().await;
    }

    #[test]
    fn scopes_are_words_or_a_list() {
        let has = |claims: Value, scopes: &[&str]| {
            let claims = [("sub".to_owned(), "ann".into())]
                .into_iter()
                .chain(claims.as_object().unwrap().clone())
                .collect();
            let claims: Claims = serde_json::from_value(Value::Object(claims)).unwrap();
            let scopes: Vec<_> = scopes.iter().map(|&scope| scope.to_owned()).collect();
            claims.has(&scopes)
        };
        assert!(has(json!({}), &[]));
        assert!(has(json!({"scope": "read write"}), &["write", "read"]));
        assert!(has(json!({"scp": ["read", "write"]}), &["read"]));
        assert!(has(json!({"scope": "read", "scp": ["write"]}), &["read", "write"]));
        assert!(!has(json!({"scope": "readers"}), &["read"]));
        assert!(!has(json!({"scope": "read"}), &["read", "write"]));
        assert!(!has(json!({"scope": {"read": true}}), &["read"]));
    }
}
