//! A control connection made secure (RFC 4217), and the data connections with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use wharf_net::{HandshakeError, Stream, TlsClient, TlsClientOptions, TlsStream, TrustedBy};
use wharf_proto::ftp::reply::Reply;

use super::control::{Control, said};
use crate::error::{ClientError, Said, Waiting};
use crate::trust::{
    Encryption, EncryptionPolicy, Fingerprint, Known, Remembered, Stranger, server_name,
};

/// What one session does about encryption: decided before it connects, carried
/// out by [`Securing::at_once`] or [`Securing::by_command`].
#[derive(Debug)]
pub(super) struct Securing {
    encryption: Arc<Encryption>,
    host: String,
    server: String,
    remembered: Option<Remembered>,
    client: TlsClient,
    /// Any certificate will do: the peer is on this machine.
    is_lenient: bool,
    deadline: Duration,
    /// A data connection has resumed the session.
    has_resumed: AtomicBool,
}

impl Securing {
    pub(super) fn new(
        encryption: &Arc<Encryption>,
        host: &str,
        peer: SocketAddr,
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let server = server_name(host, peer.port());
        let is_lenient = encryption.policy == EncryptionPolicy::Optional
            && peer.ip().to_canonical().is_loopback();
        let remembered = if is_lenient {
            None
        } else {
            encryption.trust.known(&server)?
        };
        let known = remembered.as_ref().map(|remembered| remembered.known);
        let options = TlsClientOptions {
            roots: encryption.roots.clone(),
            pinned: Arc::new(move |certificate| {
                is_lenient || known == Some(Known::ByFingerprint(Fingerprint::of(certificate)))
            }),
            identity: encryption
                .identity
                .as_ref()
                .map(|(chain, key)| (chain.clone(), key.clone_key())),
            protocols: vec![b"ftp".to_vec()],
            joining_end: encryption.bare_end,
        };
        let client = TlsClient::new(host, options).map_err(ClientError::EncryptionSettings)?;
        Ok(Self {
            encryption: Arc::clone(encryption),
            host: host.to_owned(),
            server,
            remembered,
            client,
            is_lenient,
            deadline,
            has_resumed: AtomicBool::new(false),
        })
    }

    /// Whether the handshake comes before the greeting.
    pub(super) fn is_implicit(&self) -> bool {
        self.encryption.policy == EncryptionPolicy::Implicit
    }

    /// Makes the handshake at the begin of a connection.
    pub(super) async fn at_once(&self, stream: Stream) -> Result<Stream, ClientError> {
        self.handshake(stream).await
    }

    /// Asks for TLS and makes the handshake, or leaves the connection as it is
    /// where that is allowed; then the second value is what the server said.
    pub(super) async fn by_command(
        &self,
        mut control: Control,
    ) -> Result<(Control, Option<Said>), ClientError> {
        let reply = control.exchange("AUTH", b"TLS").await?;
        if !reply.code().is_completion() {
            self.may_stay_plain(&reply)?;
            return Ok((control, Some(said(&reply))));
        }
        let control = control
            .secured(async |stream| self.handshake(stream).await)
            .await?;
        Ok((control, None))
    }

    fn may_stay_plain(&self, reply: &Reply) -> Result<(), ClientError> {
        let why = if self.encryption.policy == EncryptionPolicy::Required {
            "encryption is required"
        } else if self.remembered.is_some() {
            "it was encrypted before"
        } else if !self.is_lenient && self.encryption.trust.knows_host(&self.host)? {
            // Who strips TLS from one port strips it from all.
            "another port of this host was"
        } else if reply.code().is_transient_refusal() {
            // RFC 4217 §4.1 has 431 for a server that lacks something for now.
            "it may again in a while"
        } else {
            return Ok(());
        };
        Err(ClientError::NotEncrypted {
            server: self.server.clone(),
            why,
            said: said(reply),
        })
    }

    /// Lets the caller say that a password goes where others can read it.
    pub(super) fn warn_of_plain_password(&self) {
        if !self.is_lenient {
            self.encryption.trust.warn_of_plain_password(&self.server);
        }
    }

    async fn handshake(&self, stream: Stream) -> Result<Stream, ClientError> {
        let handshake = timeout(self.deadline, self.client.connect(stream)).await;
        let made = handshake.map_err(|_| ClientError::Timeout {
            waiting: Waiting::Handshake,
            after: self.deadline,
        })?;
        match made {
            Ok(stream) => {
                self.remember_authority()?;
                Ok(stream)
            }
            Err(HandshakeError::Untrusted {
                certificate,
                reason,
            }) => {
                let stranger = Stranger {
                    fingerprint: Fingerprint::of(&certificate),
                    certificate,
                    reason,
                };
                Err(self.distrust(stranger))
            }
            Err(error) => Err(ClientError::Handshake(error)),
        }
    }

    fn remember_authority(&self) -> Result<(), ClientError> {
        let by_authority = self.client.trusted_by() == Some(TrustedBy::Authority);
        let known = self.remembered.as_ref().map(|remembered| remembered.known);
        if by_authority && !self.is_lenient && known != Some(Known::ByAuthority) {
            let trust = &self.encryption.trust;
            trust.remember(&self.server, Known::ByAuthority)?;
        }
        Ok(())
    }

    fn distrust(&self, stranger: Stranger) -> ClientError {
        match &self.remembered {
            None => ClientError::UnknownServer {
                server: self.server.clone(),
                stranger,
            },
            Some(remembered) => ClientError::ServerChanged {
                server: self.server.clone(),
                remembered: Box::new(remembered.clone()),
                stranger,
            },
        }
    }

    /// Why the server is trusted, once it is.
    pub(super) fn trusted_as(&self) -> Option<TrustedAs> {
        Some(match self.client.trusted_by()? {
            TrustedBy::Authority => TrustedAs::Authority,
            TrustedBy::Pin if self.is_lenient => TrustedAs::Loopback,
            TrustedBy::Pin => TrustedAs::Fingerprint,
        })
    }

    /// Makes the handshake of a data connection.
    pub(super) async fn data(&self, stream: Stream) -> Result<Stream, ClientError> {
        let stream = timeout(self.deadline, self.client.connect_joining(stream))
            .await
            .map_err(|_| ClientError::Timeout {
                waiting: Waiting::Handshake,
                after: self.deadline,
            })?
            .map_err(ClientError::DataHandshake)?;
        let is_resumed = has_resumed(&stream);
        tracing::debug!(is_resumed, "data connection encrypted");
        self.has_resumed.fetch_or(is_resumed, Ordering::Relaxed);
        Ok(stream)
    }

    /// Whether the next data connection would be refused.
    pub(super) fn is_spent(&self) -> bool {
        !self.client.can_resume() && self.encryption.bound.contains(&self.server)
    }

    /// What a refusal means of a data connection that has not resumed the
    /// session: 522 (RFC 4217 §10, vsftpd) and 425 (ProFTPD, FileZilla Server)
    /// are for that then, and the server is remembered for it.
    pub(super) fn explain_unresumed(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Refused(said) | ClientError::TryLater(said)
                if matches!(said.code, Some(425 | 522)) =>
            {
                self.encryption.bound.insert(&self.server);
                let may_pass = self.has_resumed.load(Ordering::Relaxed);
                ClientError::NotResumed { said, may_pass }
            }
            other => other,
        }
    }
}

/// Why a server is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedAs {
    /// An authority vouches for it.
    Authority,
    /// A person took its certificate for the server's.
    Fingerprint,
    /// It is on this machine.
    Loopback,
}

pub(super) fn has_resumed(stream: &Stream) -> bool {
    stream.as_tls().is_some_and(TlsStream::is_resumed)
}

/// Lets the caller decide about a server that is unknown, and remembers the
/// answer. The connection that brought it up is gone.
pub(super) async fn introduce(
    encryption: &Encryption,
    server: String,
    stranger: Stranger,
) -> Result<(), ClientError> {
    if !encryption.trust.accept(&server, &stranger).await {
        return Err(ClientError::UnknownServer { server, stranger });
    }
    let known = Known::ByFingerprint(stranger.fingerprint);
    encryption.trust.remember(&server, known)
}

/// RFC 4217 §9: no buffering by the security layer, data connections encrypted.
pub(super) async fn protect_data(control: &mut Control) -> Result<(), ClientError> {
    control.complete("PBSZ", b"0").await?;
    let reply = control.exchange("PROT", b"P").await?;
    if reply.code().is_completion() {
        Ok(())
    } else {
        Err(ClientError::Unsupported(
            "encrypt data connections; --tls off does without any encryption",
        ))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::trust::{BoundServers, Trust};
    use wharf_net::BareEnd;

    /// Nobody to ask, one thing known about every server, and whether the host has another one.
    #[derive(Debug)]
    struct Memory(Option<Known>, bool);

    impl Trust for Memory {
        fn known(&self, _server: &str) -> Result<Option<Remembered>, ClientError> {
            Ok(self.0.map(|known| Remembered {
                known,
                file: "known".to_owned(),
                line: 1,
            }))
        }

        fn knows_host(&self, host: &str) -> Result<bool, ClientError> {
            assert_eq!(host, "host");
            Ok(self.1)
        }

        fn remember(&self, _server: &str, _known: Known) -> Result<(), ClientError> {
            panic!("nothing was shown")
        }

        fn warn_of_plain_password(&self, server: &str) {
            panic!("warned of {server}")
        }

        fn accept<'a>(&'a self, _: &'a str, _: &'a Stranger) -> BoxFuture<'a, bool> {
            async { false }.boxed()
        }
    }

    fn securing(peer: &str, policy: EncryptionPolicy, memory: Memory) -> Securing {
        let encryption = Arc::new(Encryption {
            policy,
            roots: Vec::new(),
            identity: None,
            trust: Arc::new(memory),
            bare_end: BareEnd::Refused,
            bound: BoundServers::default(),
        });
        let peer = peer.parse().expect("an address");
        Securing::new(&encryption, "host", peer, Duration::from_secs(60)).expect("usable")
    }

    /// Whether a session with `peer` stays plain after this answer to AUTH, or why not.
    async fn stays_plain(
        peer: &str,
        policy: EncryptionPolicy,
        memory: Memory,
        answer: &str,
    ) -> Result<(), String> {
        let securing = securing(peer, policy, memory);
        let peer: SocketAddr = peer.parse().expect("an address");
        let deadline = securing.deadline;
        let (near, mut far) = tokio::io::duplex(1024);
        let control = Control::new(near.into(), peer, peer, deadline);
        let greeted = async {
            let mut control = control;
            control
                .reply(Waiting::Reply, deadline)
                .await
                .expect("a greeting");
            securing.by_command(control).await
        };
        let serving = async {
            far.write_all(b"220 Ready.\r\n").await.expect("written");
            far.read_exact(&mut [0; 10]).await.expect("AUTH TLS");
            far.write_all(format!("{answer}\r\n").as_bytes())
                .await
                .expect("written");
        };
        let (result, ()) = tokio::join!(greeted, serving);
        let (_, said) = result.map_err(|error| error.to_string())?;
        assert_eq!(said.expect("was refused").to_string(), answer);
        Ok(())
    }

    #[test]
    #[should_panic(expected = "warned of host:21")]
    fn a_password_that_goes_plain_is_warned_of() {
        let policy = EncryptionPolicy::Optional;
        // Nobody listens in on this machine.
        securing("127.0.0.1:21", policy, Memory(None, false)).warn_of_plain_password();
        securing("192.0.2.1:21", policy, Memory(None, false)).warn_of_plain_password();
    }

    #[tokio::test]
    async fn a_session_stays_plain_only_where_nothing_speaks_against_it() {
        const NO: &str = "502 What?";
        let (far, here) = ("192.0.2.1:21", "127.0.0.1:21");
        let nothing = || Memory(None, false);
        let known = || Memory(Some(Known::ByAuthority), true);
        let optional = EncryptionPolicy::Optional;
        assert_eq!(stays_plain(far, optional, nothing(), NO).await, Ok(()));
        assert_eq!(stays_plain(here, optional, known(), NO).await, Ok(()));
        for (policy, memory, answer, expected) in [
            (EncryptionPolicy::Required, nothing(), NO, "required"),
            (optional, known(), NO, "encrypted before"),
            // ftps:// before, and now ftp:// that somebody has stripped of AUTH.
            (
                optional,
                Memory(None, true),
                NO,
                "another port of this host",
            ),
            (optional, nothing(), "431 Not now.", "again in a while"),
        ] {
            let error = stays_plain(far, policy, memory, answer).await;
            let error = error.expect_err("is refused");
            assert!(
                error.contains(expected) && error.contains("--tls off"),
                "{error}"
            );
        }
    }
}
