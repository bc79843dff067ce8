//! Which servers are trusted: by an authority, or because they were met before.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use wharf_model::{Digest, DigestAlgorithm, Hasher};
use wharf_net::{BareEnd, Distrust};

use crate::error::ClientError;

/// How connections are encrypted.
#[derive(Debug)]
pub struct Encryption {
    /// Whether they must be.
    pub policy: EncryptionPolicy,
    /// Authorities whose certificates are trusted.
    pub roots: Vec<CertificateDer<'static>>,
    /// The client's own certificate and what leads to its authority, with its key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// What is known about servers.
    pub trust: Arc<dyn Trust>,
    /// What a data connection that ends without TLS's `close_notify` counts as: somebody may have
    /// cut it. A file whose size is known has come whole in any case.
    pub bare_end: BareEnd,
    /// What was found out about their data connections.
    pub bound: BoundServers,
}

/// When a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionPolicy {
    /// Where the server offers it (RFC 4217 §4), and always with one that was
    /// met with encryption before. On the loopback interface, where nobody can
    /// listen in, any certificate will do.
    Optional,
    /// Always (RFC 4217 §4).
    Required,
    /// Always, and from the first byte (`ftps://`).
    Implicit,
}

/// What is known about a server that was met with encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// An authority vouched for it.
    ByAuthority,
    /// None did, and a person took this certificate for the server's.
    ByFingerprint(Fingerprint),
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByAuthority => f.write_str("one that an authority vouched for"),
            Self::ByFingerprint(fingerprint) => fingerprint.fmt(f),
        }
    }
}

/// What is known about a server, and where that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// What.
    pub known: Known,
    /// The file.
    pub file: String,
    /// The last line in it that is about the server; they count from 1.
    pub line: usize,
}

/// Servers that take a data connection only if it resumes its session's TLS,
/// as long as the process lives. A session with one of them ends when it has
/// nothing left to resume: with TLS 1.3 each ticket serves once.
#[derive(Debug, Default)]
pub struct BoundServers(Mutex<BTreeSet<String>>);

impl BoundServers {
    pub(crate) fn contains(&self, server: &str) -> bool {
        self.lock().contains(server)
    }

    pub(crate) fn insert(&self, server: &str) {
        self.lock().insert(server.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Remembers servers.
pub trait Trust: Send + Sync + fmt::Debug {
    /// What is known about `server`, written `host:port`.
    ///
    /// # Errors
    /// [`ClientError::Local`] when it cannot be read.
    fn known(&self, server: &str) -> Result<Option<Remembered>, ClientError>;

    /// Whether any port of `host` was met with encryption.
    ///
    /// # Errors
    /// [`ClientError::Local`] when it cannot be read.
    fn knows_host(&self, host: &str) -> Result<bool, ClientError>;

    /// Remembers that.
    ///
    /// # Errors
    /// [`ClientError::Local`] when it cannot be written.
    fn remember(&self, server: &str, known: Known) -> Result<(), ClientError>;

    /// A password is about to go to `server` where everybody on the way can read it.
    fn warn_of_plain_password(&self, server: &str);

    /// Whether a server that nothing vouches for is trusted from now on.
    fn accept<'a>(&'a self, server: &'a str, stranger: &'a Stranger) -> BoxFuture<'a, bool>;
}

/// A server that nothing vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// What it showed.
    pub certificate: CertificateDer<'static>,
    /// Of that certificate.
    pub fingerprint: Fingerprint,
    /// Why no authority vouches for it.
    pub reason: Distrust,
}

/// SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
        hasher.update(certificate);
        Self::from_digest(&hasher.finish()).expect("a SHA-256 has 32 bytes")
    }

    fn from_digest(digest: &Digest) -> Option<Self> {
        digest.as_bytes().try_into().ok().map(Self)
    }
}

/// `sha256:` and 64 hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix(PREFIX)
            .and_then(|hex| Digest::parse_hex(DigestAlgorithm::Sha256, hex))
            .and_then(|digest| Self::from_digest(&digest))
            .ok_or(InvalidFingerprint)
    }
}

const PREFIX: &str = "sha256:";

/// Text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is sha256: and 64 hexadecimal digits")]
pub struct InvalidFingerprint;

/// How a server is written in a list of known ones: `host:port`.
pub fn server_name(host: &str, port: u16) -> String {
    format!("{}:{port}", host_name(host))
}

fn host_name(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    }
}

/// What the text of a known-hosts file says about `server`, and in which line, from 1 on; the last one counts.
///
/// A line is `host:port tls authority` or `host:port tls sha256:…`; `#` begins
/// a comment, and what else a line says is left to other versions.
pub fn find_known(text: &str, server: &str) -> Option<(usize, Known)> {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().enumerate().rev().find_map(|(index, line)| {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some(server) || words.next() != Some(KIND) {
            return None;
        }
        let known = match words.next()? {
            AUTHORITY => Known::ByAuthority,
            fingerprint => Known::ByFingerprint(fingerprint.parse().ok()?),
        };
        Some((index + 1, known))
    })
}

/// Whether the text of a known-hosts file has any port of `host` as one that speaks TLS.
///
/// A line that says how is not understood counts too: it may be of another version.
pub fn is_host_known(text: &str, host: &str) -> bool {
    let host = host_name(host);
    text.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        let server = words.next().and_then(|server| server.rsplit_once(':'));
        server.is_some_and(|(name, _)| name == host) && words.next() == Some(KIND)
    })
}

/// The line that remembers it, with its end.
pub fn known_line(server: &str, known: Known) -> String {
    match known {
        Known::ByAuthority => format!("{server} {KIND} {AUTHORITY}\n"),
        Known::ByFingerprint(fingerprint) => format!("{server} {KIND} {fingerprint}\n"),
    }
}

const KIND: &str = "tls";
const AUTHORITY: &str = "authority";

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(byte: u8) -> Fingerprint {
        Fingerprint([byte; 32])
    }

    #[test]
    fn a_file_of_known_hosts_is_read_as_it_was_written() {
        let server = server_name("Files.example", 21);
        let mut text = "# mine\nfiles.example:21 ssh-ed25519 AAAA\nbroken\n".to_owned();
        assert_eq!(find_known(&text, &server), None);
        text += &known_line(&server, Known::ByFingerprint(fingerprint(1)));
        text += &known_line(&server_name("::1", 990), Known::ByAuthority);
        assert_eq!(
            find_known(&text, &server),
            Some((4, Known::ByFingerprint(fingerprint(1))))
        );
        assert_eq!(
            find_known(&text, "[::1]:990"),
            Some((5, Known::ByAuthority))
        );
        assert_eq!(find_known(&text, "files.example:2121"), None);
        text += &known_line(&server, Known::ByAuthority);
        assert_eq!(find_known(&text, &server), Some((6, Known::ByAuthority)));
    }

    #[test]
    fn a_host_is_known_by_any_of_its_ports() {
        let text = "files.example:22 ssh-ed25519 AAAA\n[2001:db8::1]:990 tls authority\n";
        assert!(!is_host_known(text, "files.example"));
        assert!(is_host_known(text, "2001:DB8::1"));
        assert!(!is_host_known(text, "2001:db8:"));
        let text = "files.example:990 tls authority\n";
        assert!(is_host_known(text, "Files.example"));
        assert!(!is_host_known(text, "files.example:990"));
        assert!(!is_host_known(text, "example"));
    }

    #[test]
    fn a_fingerprint_is_the_sha_256_of_the_certificate() {
        // FIPS 180-4, example of SHA-256.
        let of = Fingerprint::of(&CertificateDer::from(b"abc".as_slice()));
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of.to_string(), text);
        assert_eq!(text.parse(), Ok(of));
        assert_eq!("sha256:00".parse::<Fingerprint>(), Err(InvalidFingerprint));
    }
}
