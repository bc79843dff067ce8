//! Which server a host key belongs to: what is known, and what a key that is shown amounts to.

use std::fmt;

use futures_util::future::BoxFuture;
use russh::keys::{HashAlg, PublicKey};

use crate::error::ClientError;

/// The key by which a server proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    algorithm: String,
    base64: String,
    fingerprint: String,
}

impl HostKey {
    pub(super) fn of(key: &PublicKey) -> Option<Self> {
        let text = key.to_openssh().ok()?;
        let mut words = text.split_ascii_whitespace();
        Some(Self {
            algorithm: words.next()?.to_owned(),
            base64: words.next()?.to_owned(),
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        })
    }

    /// What kind of key it is, such as `ssh-ed25519`.
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// `SHA256:` and base64, as OpenSSH shows it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// As it stands in files: `ssh-ed25519 AAAA…`.
    pub fn to_line(&self) -> String {
        format!("{} {}", self.algorithm, self.base64)
    }
}

/// `ED25519 key SHA256:…` would need a table; the wire's own name will do.
impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint)
    }
}

/// A key that a file says is a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// What kind of key it is, such as `ssh-ed25519`.
    pub algorithm: String,
    /// The key in base64.
    pub base64: String,
    /// It must not be trusted, whoever shows it (`@revoked`).
    pub is_revoked: bool,
    /// Where it says so, for people.
    pub place: String,
}

impl KnownKey {
    fn is(&self, key: &HostKey) -> bool {
        self.algorithm == key.algorithm && self.base64 == key.base64
    }
}

/// How a server is looked up among known ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAs {
    /// Host name, address or alias, in lower case.
    pub host: String,
    /// The port; `None` where an alias stands for host and port.
    pub port: Option<u16>,
}

impl KnownAs {
    /// As files of OpenSSH have it: alone for port 22, else `[host]:port`
    /// (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
    pub fn openssh_name(&self) -> String {
        match self.port {
            None | Some(SSH_PORT) => self.host.clone(),
            Some(port) => format!("[{}]:{port}", self.host),
        }
    }

    /// As Wharf's own file has it: `host:port`.
    pub fn own_name(&self) -> String {
        crate::trust::server_name(&self.host, self.port.unwrap_or(SSH_PORT))
    }
}

/// IANA `ssh`.
const SSH_PORT: u16 = 22;

/// Remembers the keys of servers.
pub trait HostKeys: Send + Sync + fmt::Debug {
    /// Everything that is known of `server`.
    ///
    /// # Errors
    /// [`ClientError::Local`] when it cannot be read.
    fn known(&self, server: &KnownAs) -> Result<Vec<KnownKey>, ClientError>;

    /// Remembers that `key` is the server's.
    ///
    /// # Errors
    /// [`ClientError::Local`] when it cannot be written.
    fn remember(&self, server: &KnownAs, key: &HostKey) -> Result<(), ClientError>;

    /// Whether a key of a server of which none is known is trusted from now on.
    fn accept<'a>(&'a self, server: &'a str, key: &'a HostKey) -> BoxFuture<'a, bool>;
}

/// Judges the key that a server shows.
///
/// A server of which a key is known must show one of those. One of another kind
/// is no new key but a changed one: who listens in could else choose a kind that
/// is not known. The exchange asks for the kinds that are known first.
pub(super) fn judge(server: &str, known: &[KnownKey], shown: &HostKey) -> Result<(), ClientError> {
    if let Some(revoked) = known.iter().find(|key| key.is_revoked && key.is(shown)) {
        return Err(ClientError::HostKeyRevoked {
            server: server.to_owned(),
            place: revoked.place.clone(),
        });
    }
    let mut valid = known.iter().filter(|key| !key.is_revoked).peekable();
    let Some(first) = valid.peek() else {
        return Err(ClientError::UnknownHostKey {
            server: server.to_owned(),
            key: shown.clone(),
        });
    };
    let place = first.place.clone();
    if valid.any(|key| key.is(shown)) {
        return Ok(());
    }
    Err(ClientError::HostKeyChanged {
        server: server.to_owned(),
        key: shown.clone(),
        place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(algorithm: &str, base64: &str) -> HostKey {
        HostKey {
            algorithm: algorithm.to_owned(),
            base64: base64.to_owned(),
            fingerprint: "SHA256:x".to_owned(),
        }
    }

    fn known(algorithm: &str, base64: &str, is_revoked: bool) -> KnownKey {
        KnownKey {
            algorithm: algorithm.to_owned(),
            base64: base64.to_owned(),
            is_revoked,
            place: "known_hosts line 7".to_owned(),
        }
    }

    #[test]
    fn a_key_is_known_new_changed_or_revoked() {
        let key = shown("ssh-ed25519", "AAAA");
        let verdict = |known: &[KnownKey]| judge("h:22", known, &key);
        let same = known("ssh-ed25519", "AAAA", false);
        let other = known("ssh-ed25519", "BBBB", false);
        let other_kind = known("ssh-rsa", "AAAA", false);
        let revoked = known("ssh-ed25519", "AAAA", true);
        assert!(verdict(&[other.clone(), same.clone()]).is_ok());
        assert!(matches!(
            verdict(&[]),
            Err(ClientError::UnknownHostKey { .. })
        ));
        for changed in [other, other_kind] {
            let error = verdict(&[changed]).expect_err("changed");
            assert!(
                error
                    .to_string()
                    .starts_with("THE HOST KEY OF h:22 HAS CHANGED"),
                "{error}"
            );
        }
        assert!(matches!(
            verdict(&[same, revoked.clone()]),
            Err(ClientError::HostKeyRevoked { .. })
        ));
        // Another key of the same server may be revoked: this one is new all the same.
        let revoked_other = known("ssh-ed25519", "CCCC", true);
        assert!(matches!(
            verdict(&[revoked_other]),
            Err(ClientError::UnknownHostKey { .. })
        ));
    }

    #[test]
    fn names_are_those_of_the_files() {
        let server = |host: &str, port| KnownAs {
            host: host.to_owned(),
            port,
        };
        assert_eq!(server("h", Some(22)).openssh_name(), "h");
        assert_eq!(server("h", Some(2222)).openssh_name(), "[h]:2222");
        assert_eq!(server("alias", None).openssh_name(), "alias");
        assert_eq!(server("h", Some(2222)).own_name(), "h:2222");
        assert_eq!(server("::1", Some(22)).own_name(), "[::1]:22");
    }
}
