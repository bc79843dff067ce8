//! A control connection made secure (RFC 4217), and the data connections with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use wharf_net::{HandshakeError, Stream, TlsClient, TlsClientOptions, TrustedBy};
use wharf_proto::ftp::reply::Reply;

use super::control::{Control, said};
use crate::error::{ClientError, Waiting};
use crate::trust::{Encryption, EncryptionPolicy, Fingerprint, Known, Stranger, server_name};

/// What one session does about encryption: decided before it connects, carried
/// out by [`Securing::at_once`] or [`Securing::by_command`].
#[derive(Debug)]
pub(super) struct Securing {
    encryption: Arc<Encryption>,
    server: String,
    known: Option<Known>,
    client: TlsClient,
    /// Any certificate will do: the peer is on this machine.
    is_lenient: bool,
    deadline: Duration,
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
        let known = if is_lenient {
            None
        } else {
            encryption.trust.known(&server)?
        };
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
        };
        let client = TlsClient::new(host, options).map_err(ClientError::EncryptionSettings)?;
        Ok(Self {
            encryption: Arc::clone(encryption),
            server,
            known,
            client,
            is_lenient,
            deadline,
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
    /// where that is allowed. The second value says whether it is encrypted now.
    pub(super) async fn by_command(
        &self,
        mut control: Control,
    ) -> Result<(Control, bool), ClientError> {
        let reply = control.exchange("AUTH", b"TLS").await?;
        if !reply.code().is_completion() {
            self.may_stay_plain(&reply)?;
            return Ok((control, false));
        }
        let control = control
            .secured(async |stream| self.handshake(stream).await)
            .await?;
        Ok((control, true))
    }

    fn may_stay_plain(&self, reply: &Reply) -> Result<(), ClientError> {
        let why = if self.encryption.policy == EncryptionPolicy::Required {
            "encryption is required"
        } else if self.known.is_some() {
            "it was encrypted before"
        } else {
            return Ok(());
        };
        Err(ClientError::NotEncrypted {
            server: self.server.clone(),
            why,
            said: said(reply),
        })
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
                    reason,
                };
                Err(self.distrust(stranger))
            }
            Err(error) => Err(ClientError::Handshake(error)),
        }
    }

    fn remember_authority(&self) -> Result<(), ClientError> {
        let by_authority = self.client.trusted_by() == Some(TrustedBy::Authority);
        if by_authority && !self.is_lenient && self.known != Some(Known::ByAuthority) {
            let trust = &self.encryption.trust;
            trust.remember(&self.server, Known::ByAuthority)?;
        }
        Ok(())
    }

    fn distrust(&self, stranger: Stranger) -> ClientError {
        match self.known {
            None => ClientError::UnknownServer {
                server: self.server.clone(),
                stranger,
            },
            Some(_) => ClientError::ServerChanged {
                server: self.server.clone(),
                stranger,
            },
        }
    }

    /// Makes the handshake of a data connection.
    pub(super) async fn data(&self, stream: Stream) -> Result<Stream, ClientError> {
        timeout(self.deadline, self.client.connect_joining(stream))
            .await
            .map_err(|_| ClientError::Timeout {
                waiting: Waiting::Handshake,
                after: self.deadline,
            })?
            .map_err(ClientError::DataHandshake)
    }
}

/// Lets the caller decide about a server that is unknown, and remembers the
/// answer. The connection that brought it up is gone.
pub(super) async fn introduce(
    encryption: &Encryption,
    server: String,
    stranger: Stranger,
) -> Result<(), ClientError> {
    if !encryption.trust.accept(&server, stranger).await {
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
