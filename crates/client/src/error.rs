//! What can go wrong between this machine and a server, by what a caller would do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use wharf_model::{DigestAlgorithm, PathError, escape_for_display};
use wharf_net::{HandshakeError, TlsClientError};

use crate::ssh::HostKey;
use crate::trust::{Remembered, Stranger};
use crate::url::UrlError;

/// Why something that was asked of a server, or of the local disk beside it, failed.
///
/// `Display` is one line that a terminal can show: what a server said is escaped in it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The host's name has no address.
    #[error("cannot find the host {host}")]
    UnknownHost {
        /// Name that was looked up.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address of the host accepts connections.
    #[error("cannot connect to {host} port {port}")]
    Connect {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// What the last address said.
        source: io::Error,
    },
    /// The data connection of a transfer could not be made.
    #[error("cannot open a data connection to the server")]
    DataConnect(#[source] io::Error),
    /// An established connection broke.
    #[error("the connection to the server broke")]
    Connection(#[source] io::Error),
    /// The server ended the session, with its last words if it had any.
    #[error("the server closed the connection{}", LastWords(.0))]
    Closed(Option<Said>),
    /// The server was silent for too long.
    #[error("the server was silent for {} s while {waiting}", .after.as_secs())]
    Timeout {
        /// What was waited for.
        waiting: Waiting,
        /// How long.
        after: Duration,
    },
    /// The server serves too many connections already, of this client or in all.
    #[error("the server takes no more connections: {0}")]
    TooManyConnections(Said),
    /// The server does not offer encryption, and it must be.
    #[error(
        "{server} offers no encryption, and {why} ({said}); --tls off does without, for everyone to read"
    )]
    NotEncrypted {
        /// `host:port`.
        server: String,
        /// Why it must be.
        why: &'static str,
        /// What it said.
        said: Said,
    },
    /// TLS cannot be spoken with what it should be spoken with.
    #[error("cannot encrypt")]
    EncryptionSettings(#[source] TlsClientError),
    /// The TLS handshake of the control connection failed.
    #[error("cannot encrypt the connection")]
    Handshake(#[source] HandshakeError),
    /// That of a data connection.
    #[error("cannot encrypt a data connection")]
    DataHandshake(#[source] HandshakeError),
    /// The server takes no data connection that does not resume its session.
    #[error("the server wants data connections to resume their TLS session: {said}")]
    NotResumed {
        /// What it said.
        said: Said,
        /// Whether earlier connections of the session did, so that those of another one will.
        may_pass: bool,
    },
    /// A data connection ended without TLS's `close_notify`, though the server says that all is sent.
    #[error(
        "the server ended a data connection without TLS's close_notify, so that somebody may have cut it; \
         --tolerate-bare-end takes what came for whole"
    )]
    BareEnd,
    /// Nothing vouches for the server, and it was never met.
    #[error("the certificate of {server} is not trusted: {}; its fingerprint is {}. If that is the server's, --accept-new remembers it", .stranger.reason, .stranger.fingerprint)]
    UnknownServer {
        /// `host:port`.
        server: String,
        /// What it showed.
        stranger: Stranger,
    },
    /// The server shows another certificate than the one it was met with.
    #[error("THE CERTIFICATE OF {server} HAS CHANGED: it was {} and is {}, and {}. Somebody may be listening in. If the server's operator confirms the change, remove the lines of {server} from {} (the last one is line {})", .remembered.known, .stranger.fingerprint, .stranger.reason, .remembered.file, .remembered.line)]
    ServerChanged {
        /// `host:port`.
        server: String,
        /// What it was known as.
        remembered: Box<Remembered>,
        /// What it shows now.
        stranger: Stranger,
    },
    /// A server of SSH shows a key, and none is known of it.
    #[error(
        "the host key of {server} is not known: it shows {key}. If that is the server's, --accept-new remembers it"
    )]
    UnknownHostKey {
        /// `host:port`.
        server: String,
        /// What it showed.
        key: HostKey,
    },
    /// A server of SSH shows none of the keys that are known of it.
    #[error(
        "THE HOST KEY OF {server} HAS CHANGED: it shows {key}, and {place} has another one. Somebody may be listening in. If the server's operator confirms the change, remove the server's lines from that file"
    )]
    HostKeyChanged {
        /// `host:port`.
        server: String,
        /// What it shows now.
        key: HostKey,
        /// Where another one is remembered.
        place: String,
    },
    /// A server of SSH shows a key that must not be trusted.
    #[error("THE HOST KEY OF {server} IS REVOKED by {place}; the connection is refused")]
    HostKeyRevoked {
        /// `host:port`.
        server: String,
        /// Where it says so.
        place: String,
    },
    /// The two ends of an SSH connection cannot agree on how to encrypt it, or the other end is not who it says.
    #[error("cannot encrypt the connection: {0}")]
    KeyExchange(String),
    /// User or password is wrong, or the account may not log in.
    #[error("login failed: {0}")]
    Login(Said),
    /// Nothing stands under the name.
    #[error("no such file or directory{}", LastWords(.0))]
    NotFound(Option<Said>),
    /// A directory stands where a file was expected.
    #[error("is a directory")]
    IsADirectory,
    /// A file stands where a directory was expected.
    #[error("not a directory")]
    NotADirectory,
    /// Something already stands under the name (521, or 550 that says so).
    #[error("already exists: {0}")]
    AlreadyExists(Said),
    /// The server refuses for good (5xx).
    #[error("the server refuses: {0}")]
    Refused(Said),
    /// The account's quota is used up (552).
    #[error("over quota: {0}")]
    OverQuota(Said),
    /// The server's disk is full (452).
    #[error("the server's disk is full: {0}")]
    ServerDiskFull(Said),
    /// The server refuses for now (4xx).
    #[error("the server cannot do this now: {0}")]
    TryLater(Said),
    /// The server has no command for this.
    #[error("the server cannot {0}")]
    Unsupported(&'static str),
    /// The server does not keep to the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// A name that must not be used on the side it would be written to.
    #[error("the name {name:?} cannot be used here: {source}")]
    BadName {
        /// The name, escaped.
        name: String,
        /// The rule it breaks.
        source: PathError,
    },
    /// Both ends hold the file, and their digests differ.
    #[error("the copies differ: {algorithm} is {local} here and {remote} on the server")]
    DigestMismatch {
        /// How the digests were made.
        algorithm: DigestAlgorithm,
        /// Hexadecimal digest of the local copy.
        local: String,
        /// Hexadecimal digest of the server's copy.
        remote: String,
    },
    /// The source was written to meanwhile: what was moved is neither its old
    /// content nor its new one.
    #[error("the file changed while it was transferred; once it rests, run the command again")]
    SourceChanged,
    /// The transfer ended without an error and moved the wrong number of bytes.
    #[error("the copies differ: {expected} bytes were expected and {moved} came")]
    SizeMismatch {
        /// Bytes that the source's size promised.
        expected: u64,
        /// Bytes that arrived.
        moved: u64,
    },
    /// The local file system failed.
    #[error("{path}")]
    Local {
        /// The path as a person knows it, escaped.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The person or the program asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// The family that an error belongs to: what an exit code or an icon is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// What was asked for makes no sense.
    Usage,
    /// No such file or directory.
    NotFound,
    /// Login refused.
    Authentication,
    /// The server does not do it.
    Refused,
    /// 552.
    Quota,
    /// 452.
    ServerDiskFull,
    /// Unreachable, broken, silent or overloaded.
    Network,
    /// The connection cannot be encrypted, or the server is not trusted.
    Encryption,
    /// The server's words make no sense.
    Protocol,
    /// The copies differ.
    Verification,
    /// The local disk.
    Local,
    /// Asked to stop.
    Interrupted,
}

impl ErrorKind {
    /// One word for machines, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Authentication => "authentication",
            Self::Refused => "refused",
            Self::Quota => "quota",
            Self::ServerDiskFull => "server_disk_full",
            Self::Network => "network",
            Self::Encryption => "encryption",
            Self::Protocol => "protocol",
            Self::Verification => "verification",
            Self::Local => "local",
            Self::Interrupted => "interrupted",
        }
    }
}

impl ClientError {
    /// The family of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url(_) | Self::BadName { .. } | Self::IsADirectory | Self::NotADirectory => {
                ErrorKind::Usage
            }
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Login(_) => ErrorKind::Authentication,
            Self::Refused(_) | Self::AlreadyExists(_) | Self::Unsupported(_) => ErrorKind::Refused,
            Self::OverQuota(_) => ErrorKind::Quota,
            Self::ServerDiskFull(_) => ErrorKind::ServerDiskFull,
            Self::UnknownHost { .. }
            | Self::Connect { .. }
            | Self::DataConnect(_)
            | Self::Connection(_)
            | Self::Closed(_)
            | Self::Timeout { .. }
            | Self::TooManyConnections(_)
            | Self::TryLater(_) => ErrorKind::Network,
            Self::NotEncrypted { .. }
            | Self::EncryptionSettings(_)
            | Self::Handshake(_)
            | Self::DataHandshake(_)
            | Self::NotResumed { .. }
            | Self::BareEnd
            | Self::UnknownServer { .. }
            | Self::ServerChanged { .. }
            | Self::UnknownHostKey { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::KeyExchange(_) => ErrorKind::Encryption,
            Self::Protocol(_) => ErrorKind::Protocol,
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::SourceChanged => {
                ErrorKind::Verification
            }
            Self::Local { .. } => ErrorKind::Local,
            Self::Interrupted => ErrorKind::Interrupted,
        }
    }

    /// Whether the same request may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            // Somebody may have been asked and did not answer; the server counts the failures.
            Self::Timeout {
                waiting: Waiting::Login,
                ..
            } => false,
            Self::Connect { .. }
            | Self::DataConnect(_)
            | Self::DataHandshake(HandshakeError::Failed(_))
            | Self::Connection(_)
            | Self::Closed(_)
            | Self::Timeout { .. }
            | Self::TooManyConnections(_)
            | Self::TryLater(_) => true,
            Self::NotResumed { may_pass, .. } => *may_pass,
            // Servers use 5xx for passing troubles too, and say so in words.
            Self::Refused(said) => said.sounds_transient(),
            _ => false,
        }
    }

    /// Whether the control connection is of no further use after this error.
    pub(crate) fn ends_session(&self) -> bool {
        matches!(
            self,
            Self::UnknownHost { .. }
                | Self::Connect { .. }
                | Self::Connection(_)
                | Self::Closed(_)
                | Self::Timeout { .. }
                | Self::TooManyConnections(_)
                | Self::Login(_)
                | Self::NotEncrypted { .. }
                | Self::Handshake(_)
                | Self::DataHandshake(_)
                | Self::NotResumed { .. }
                | Self::UnknownServer { .. }
                | Self::ServerChanged { .. }
                | Self::UnknownHostKey { .. }
                | Self::HostKeyChanged { .. }
                | Self::HostKeyRevoked { .. }
                | Self::KeyExchange(_)
                | Self::Protocol(_)
                | Self::Interrupted
        )
    }

    /// The error and its sources in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        text
    }
}

/// What a server answered as a person may see it: its code and its words, escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Three digits (RFC 959 §4.2), where the protocol has them and the server gave them.
    pub code: Option<u16>,
    /// The words, escaped and cut to a line.
    pub words: String,
}

impl Said {
    /// Takes in the raw words of a reply.
    pub(crate) fn new(code: u16, words: &[u8]) -> Self {
        Self {
            code: Some(code),
            ..Self::words(words)
        }
    }

    /// Takes in raw words that no code stands before.
    pub(crate) fn words(words: &[u8]) -> Self {
        let shown = words.get(..MAX_WORDS_BYTES).unwrap_or(words);
        Self {
            code: None,
            words: escape_for_display(shown),
        }
    }

    /// Whether the words contain any of `phrases`, which are in lower case.
    pub(crate) fn mentions(&self, phrases: &[&str]) -> bool {
        let words = self.words.to_ascii_lowercase();
        phrases.iter().any(|phrase| words.contains(phrase))
    }

    fn sounds_transient(&self) -> bool {
        self.mentions(&[
            "too many",
            "timed out",
            "timeout",
            "broken pipe",
            "try again",
        ])
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, "{code} ")?;
        }
        f.write_str(&self.words)
    }
}

/// What the client waits for when the server falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// TCP connection of the control connection.
    Connect,
    /// A handshake of TLS or SSH.
    Handshake,
    /// The answers to a login.
    Login,
    /// A reply to a command.
    Reply,
    /// The data connection.
    DataConnect,
    /// The next bytes of a transfer.
    Data,
    /// The reply that ends a transfer.
    TransferEnd,
    /// A digest of a file.
    Digest,
    /// An answer to the question whether the server is there.
    SignOfLife,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Handshake => "encryption was being agreed on",
            Self::Login => "logging in",
            Self::Reply => "a reply was due",
            Self::DataConnect => "opening a data connection",
            Self::Data => "data was being transferred",
            Self::TransferEnd => "the end of a transfer was due",
            Self::Digest => "a digest was due",
            Self::SignOfLife => "it was asked whether it is there",
        })
    }
}

/// `: 550 no`, or nothing.
struct LastWords<'a>(&'a Option<Said>);

impl fmt::Display for LastWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(said) => write!(f, ": {said}"),
            None => Ok(()),
        }
    }
}

/// As much of a reply as helps a person; the rest is cut.
const MAX_WORDS_BYTES: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_escaped_and_cut() {
        let said = Said::new(550, b"no\x1b]0;evil\x07");
        assert_eq!(said.to_string(), "550 no\\x1b]0;evil\\x07");
        assert_eq!(Said::new(550, &[b'x'; 5000]).words.len(), 300);
        assert_eq!(Said::words(b"no").to_string(), "no");
    }

    #[test]
    fn passing_troubles_are_told_from_lasting_ones() {
        let refused = |words: &[u8]| ClientError::Refused(Said::new(550, words));
        assert!(refused(b"Too many open files").is_transient());
        assert!(!refused(b"Permission denied").is_transient());
        assert!(ClientError::Closed(None).is_transient());
        assert!(!ClientError::OverQuota(Said::new(552, b"full")).is_transient());
        assert!(!ClientError::ServerDiskFull(Said::new(452, b"full")).is_transient());
    }

    #[test]
    fn the_chain_names_every_source() {
        let error = ClientError::Connect {
            host: "h".into(),
            port: 21,
            source: io::Error::other("refused"),
        };
        assert_eq!(error.chain(), "cannot connect to h port 21: refused");
    }
}
