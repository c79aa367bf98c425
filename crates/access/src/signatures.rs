//! Verifies the signatures of tokens with `ring`, which is also the cryptography of `tls`.

use jsonwebtoken::Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, new_error};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::error::Unspecified;
use ring::signature as ring_signature;
use ring::signature::{
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(new_error(ErrorKind::UnsupportedAlgorithm)),
    verifier_factory: |algorithm, key| {
        Ok(Box::new(Signature { algorithm: *algorithm, key: key.clone() }))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Installs `ring` as the verifier of the process. A program that uses the same library for its own
/// tokens may have installed another one before; that one stays.
pub(super) fn install() {
    let _ = PROVIDER.install_default();
}

struct Signature {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Signature {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for Signature {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        self.check(message, signature).map_err(|_| signature::Error::new())
    }
}

impl Signature {
    fn check(&self, message: &[u8], signature: &[u8]) -> std::result::Result<(), Unspecified> {
        match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let key = RsaPublicKeyComponents { n: without_zeros(n), e: without_zeros(e) };
                key.verify(rsa(self.algorithm).ok_or(Unspecified)?, message, signature)
            }
            DecodingKeyKind::SecretOrDer(point) => {
                let algorithm = curve(self.algorithm).ok_or(Unspecified)?;
                UnparsedPublicKey::new(algorithm, point).verify(message, signature)
            }
        }
    }
}

/// Removes leading zeros: some issuers write them, and `ring` refuses them.
fn without_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    &number[first..]
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        RS256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
        RS384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
        RS512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
        PS256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
        PS384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
        PS512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        ES256 => &ring_signature::ECDSA_P256_SHA256_FIXED,
        ES384 => &ring_signature::ECDSA_P384_SHA384_FIXED,
        EdDSA => &ring_signature::ED25519,
        _ => return None,
    })
}
