//! The keys that the server shows itself by.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use russh::keys::pkcs8::decode_pkcs8;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{HashAlg, PrivateKey};
use wharf_model::Secret;

/// A kind of host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyKind {
    /// Ed25519 (RFC 8709), which clients prefer.
    Ed25519,
    /// ECDSA on P-256 (RFC 5656).
    Ecdsa,
    /// RSA with 3072 bits, signing with SHA-2 (RFC 8332).
    Rsa,
}

impl HostKeyKind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Ed25519, Self::Ecdsa, Self::Rsa];

    /// Its short name, as in the names of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}

/// A key that the server shows itself by.
#[derive(Clone)]
pub struct HostKey(PrivateKey);

impl HostKey {
    /// A new key. RSA takes a good part of a second.
    ///
    /// # Errors
    /// [`HostKeyError::Make`].
    pub fn generate(kind: HostKeyKind) -> Result<Self, HostKeyError> {
        let random = SystemRandom::new();
        let failed = |_| HostKeyError::Make;
        let made = match kind {
            HostKeyKind::Ed25519 => Ed25519KeyPair::generate_pkcs8v1(&random)
                .map_err(failed)?
                .as_ref()
                .to_vec(),
            HostKeyKind::Ecdsa => {
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
                    .map_err(failed)?
                    .as_ref()
                    .to_vec()
            }
            HostKeyKind::Rsa => {
                let pair = KeyPair::generate(KeySize::Rsa3072).map_err(failed)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                der.as_ref().to_vec()
            }
        };
        let made = Secret::new(made);
        decode_pkcs8(made.expose(), None)
            .map(Self)
            .map_err(|_| HostKeyError::Make)
    }

    /// A key in OpenSSH's form, without a passphrase.
    ///
    /// # Errors
    /// [`HostKeyError`].
    pub fn parse(text: &[u8]) -> Result<Self, HostKeyError> {
        let key =
            PrivateKey::from_openssh(text).map_err(|error| HostKeyError::Read(Box::new(error)))?;
        if key.is_encrypted() {
            return Err(HostKeyError::Encrypted);
        }
        Ok(Self(key))
    }

    /// The key in OpenSSH's form, for a file that nobody else reads.
    ///
    /// # Errors
    /// [`HostKeyError::Make`].
    pub fn to_text(&self) -> Result<Secret<Vec<u8>>, HostKeyError> {
        let text = self.0.to_openssh(LineEnding::LF);
        let text = text.map_err(|_| HostKeyError::Make)?;
        Ok(Secret::new(text.as_bytes().to_vec()))
    }

    /// The name of its algorithm, such as `ssh-ed25519`.
    pub fn algorithm(&self) -> String {
        self.0.algorithm().as_str().to_owned()
    }

    /// What clients show of it when they meet the server.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    pub(super) fn private(&self) -> &PrivateKey {
        &self.0
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.fingerprint())
    }
}

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The system has no randomness, or something as basic.
    #[error("a host key could not be made")]
    Make,
    /// The text is no private key.
    #[error("not a private key in the form of OpenSSH")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key has a passphrase, which nobody would type.
    #[error("the key has a passphrase; take it off with: ssh-keygen -p")]
    Encrypted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_kind_read_back_as_they_were_written_and_print_nothing_secret() {
        for (kind, algorithm) in [
            (HostKeyKind::Ed25519, "ssh-ed25519"),
            (HostKeyKind::Ecdsa, "ecdsa-sha2-nistp256"),
            (HostKeyKind::Rsa, "ssh-rsa"),
        ] {
            let key = HostKey::generate(kind).expect("made");
            assert_eq!(key.algorithm(), algorithm);
            let text = key.to_text().expect("written");
            let read = HostKey::parse(text.expose()).expect("reads");
            assert_eq!(read.fingerprint(), key.fingerprint());
            assert_eq!(
                format!("{key:?}"),
                format!("HostKey({})", key.fingerprint())
            );
            let other = HostKey::generate(kind).expect("made");
            assert_ne!(other.fingerprint(), key.fingerprint());
        }
        let error = HostKey::parse(b"nonsense").expect_err("no key");
        assert!(matches!(error, HostKeyError::Read(_)), "{error}");
    }
}
