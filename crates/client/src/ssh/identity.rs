//! Keys of the person: files, and whether they need a passphrase.

use std::sync::{Arc, OnceLock};

use russh::keys::{PrivateKey, PublicKey, decode_secret_key};
use wharf_model::Secret;

/// A key file, read and perhaps still locked.
#[derive(Debug)]
pub struct Identity {
    name: String,
    text: Secret<String>,
    public: PublicKey,
    /// The key, once it is known.
    unlocked: OnceLock<Arc<PrivateKey>>,
    /// Only the public half is in the file: an agent has the other one.
    is_public: bool,
}

/// Why a file is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nothing that is known.
    #[error("it is no private key that can be used: {0}")]
    NotAKey(String),
    /// Locked, and without a word about which key it is.
    #[error(
        "it is encrypted in a form that hides which key it is; put its public key beside it, with .pub behind the name"
    )]
    Hidden,
}

impl Identity {
    /// Reads the text of a key file. `name` is the file as a person knows it; `public` is the
    /// text of the file of the same name with `.pub`, if there is one.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn parse(
        name: String,
        text: Secret<String>,
        public: Option<&str>,
    ) -> Result<Self, IdentityError> {
        let unlocked = OnceLock::new();
        if let Ok(public) = PublicKey::from_openssh(text.expose()) {
            return Ok(Self {
                name,
                text,
                public,
                unlocked,
                is_public: true,
            });
        }
        let public = match decode_secret_key(text.expose(), None) {
            Ok(key) => {
                let public = key.public_key().clone();
                let _ = unlocked.set(Arc::new(key));
                public
            }
            Err(error) => locked(text.expose(), public, &error)?,
        };
        Ok(Self {
            name,
            text,
            public,
            unlocked,
            is_public: false,
        })
    }

    /// The file as a person knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn is_public(&self) -> bool {
        self.is_public
    }

    pub(super) fn key(&self) -> Option<Arc<PrivateKey>> {
        self.unlocked.get().cloned()
    }

    /// Takes a passphrase; whether it is the right one. Takes a moment of computing.
    pub(super) fn unlock(&self, passphrase: &str) -> bool {
        match decode_secret_key(self.text.expose(), Some(passphrase)) {
            Ok(key) if key.public_key().key_data() == self.public.key_data() => {
                let _ = self.unlocked.set(Arc::new(key));
                true
            }
            _ => false,
        }
    }
}

/// The public half of a key that needs a passphrase.
fn locked(
    text: &str,
    public: Option<&str>,
    error: &russh::keys::Error,
) -> Result<PublicKey, IdentityError> {
    if let Ok(key) = PrivateKey::from_openssh(text)
        && key.is_encrypted()
    {
        return Ok(key.public_key().clone());
    }
    if !text.contains("ENCRYPTED") {
        return Err(IdentityError::NotAKey(error.to_string()));
    }
    public
        .and_then(|text| PublicKey::from_openssh(text).ok())
        .ok_or(IdentityError::Hidden)
}
