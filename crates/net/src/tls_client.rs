//! TLS on a stream, on the client's side.
//!
//! A [`TlsClient`] is for one server: its first connection, and others that
//! join it, share one store of sessions and no other does, as servers that bind
//! joining connections to their first one expect. All of them must show the
//! certificate that the first one showed.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    WebPkiServerVerifier, verify_server_name,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore,
    SignatureScheme,
};
use tokio_rustls::{TlsConnector, TlsStream as RustlsStream};

use crate::Stream;
use crate::read_ahead::ReadAhead;
use crate::tls::{BareEnd, TlsStream};

/// How a client speaks TLS with a server.
pub struct TlsClientOptions {
    /// Authorities whose certificates are trusted.
    pub roots: Vec<CertificateDer<'static>>,
    /// Whether a certificate that no authority vouches for is trusted all the same.
    pub pinned: Pinned,
    /// The client's own certificate and what leads to its authority, with its key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Names of protocols (ALPN, RFC 7301) for the first connection; none are offered where it is empty.
    pub protocols: Vec<Vec<u8>>,
    /// What a joining connection that ends without `close_notify` counts as.
    pub joining_end: BareEnd,
}

/// Says whether a certificate is one that the caller knows.
pub type Pinned = Arc<dyn Fn(&CertificateDer<'_>) -> bool + Send + Sync>;

/// Speaks TLS with one server.
pub struct TlsClient {
    first: Arc<ClientConfig>,
    joining: Arc<ClientConfig>,
    judge: Arc<Judge>,
    sessions: Arc<Sessions>,
    name: ServerName<'static>,
    joining_end: BareEnd,
}

/// Why a server's certificate was trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedBy {
    /// An authority vouches for it.
    Authority,
    /// The caller knows it.
    Pin,
}

impl TlsClient {
    /// A client for the server that is called `host`: a name or an address.
    ///
    /// # Errors
    /// [`TlsClientError`].
    pub fn new(host: &str, options: TlsClientOptions) -> Result<Self, TlsClientError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsClientError::Name)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        // A system's store may hold certificates that nothing can read any more.
        roots.add_parsable_certificates(options.roots.iter().cloned());
        let authorities = if roots.is_empty() {
            None
        } else {
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            Some(builder.build().map_err(TlsClientError::Authorities)?)
        };
        let judge = Arc::new(Judge {
            authorities,
            roots: options.roots,
            pinned: options.pinned,
            provider: Arc::clone(&provider),
            first: OnceLock::new(),
            trusted_by: OnceLock::new(),
            refused: Mutex::new(None),
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsClientError::Options)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&judge) as Arc<dyn ServerCertVerifier>);
        let mut joining = match options.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(TlsClientError::Options)?,
        };
        let sessions = Arc::new(Sessions::default());
        joining.resumption =
            Resumption::store(Arc::clone(&sessions) as Arc<dyn ClientSessionStore>);
        let mut first = joining.clone();
        first.alpn_protocols = options.protocols;
        Ok(Self {
            first: Arc::new(first),
            joining: Arc::new(joining),
            judge,
            sessions,
            name,
            joining_end: options.joining_end,
        })
    }

    /// Makes the handshake of the first connection. Has no deadline of its own.
    /// Dropping the future closes the stream.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect(&self, stream: Stream) -> Result<Stream, HandshakeError> {
        self.handshake(&self.first, ReadAhead::never(stream), BareEnd::Tolerated)
            .await
    }

    /// Makes the handshake of a connection that joins the first, resuming its
    /// session as long as [`TlsClient::can_resume`].
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect_joining(&self, stream: Stream) -> Result<Stream, HandshakeError> {
        self.handshake(&self.joining, ReadAhead::always(stream), self.joining_end)
            .await
    }

    /// Whether the next connection that joins can resume the session. With TLS
    /// 1.3 each ticket serves once (RFC 8446 §C.4), and the server decides how many it gives.
    pub fn can_resume(&self) -> bool {
        self.sessions.can_resume()
    }

    /// Why the server is trusted, once it is.
    pub fn trusted_by(&self) -> Option<TrustedBy> {
        self.judge.trusted_by.get().copied()
    }

    async fn handshake(
        &self,
        config: &Arc<ClientConfig>,
        stream: ReadAhead,
        bare_end: BareEnd,
    ) -> Result<Stream, HandshakeError> {
        let connector = TlsConnector::from(Arc::clone(config));
        // The future is boxed: it is large, and its session outlives it by far.
        match Box::pin(connector.connect(self.name.clone(), stream)).await {
            Ok(stream) => Ok(TlsStream::wrap(RustlsStream::Client(stream), bare_end)),
            Err(error) => {
                let refused = self.judge.refused().take();
                Err(match refused {
                    Some((certificate, reason)) => HandshakeError::Untrusted {
                        certificate,
                        reason,
                    },
                    None => HandshakeError::Failed(error),
                })
            }
        }
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClientOptions").finish_non_exhaustive()
    }
}

/// TLS cannot be spoken with these options.
#[derive(Debug, thiserror::Error)]
pub enum TlsClientError {
    /// The host is neither a name nor an address.
    #[error("no certificate can be issued for such a host name")]
    Name,
    /// The authorities.
    #[error("the trusted authorities cannot be used")]
    Authorities(#[source] rustls::client::VerifierBuilderError),
    /// The client's own certificate and its key.
    #[error("the client's certificate and its key cannot be used")]
    Options(#[source] rustls::Error),
}

/// No encrypted stream was made.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The server's certificate is not trusted.
    #[error("the server's certificate is not trusted: {reason}")]
    Untrusted {
        /// The certificate.
        certificate: CertificateDer<'static>,
        /// Why not.
        reason: Distrust,
    },
    /// Anything else.
    #[error("the TLS handshake failed")]
    Failed(#[source] io::Error),
}

/// Why a certificate is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// No trusted authority vouches for it.
    #[error("no trusted authority vouches for it")]
    UnknownAuthority,
    /// It is for another host.
    #[error("it is for another host")]
    WrongName,
    /// It has expired.
    #[error("it has expired")]
    Expired,
    /// It is not valid yet.
    #[error("it is not valid yet")]
    NotYetValid,
    /// It has been taken back.
    #[error("it has been revoked")]
    Revoked,
    /// It differs from that of the first connection.
    #[error("it is not the certificate that the first connection showed")]
    Changed,
    /// It is no certificate for a server, or damaged.
    #[error("it cannot be used for a server")]
    Unusable,
}

impl From<&rustls::Error> for Distrust {
    fn from(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else {
            return Self::Unusable;
        };
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::InvalidPurpose
            | CertificateError::InvalidPurposeContext { .. }
            | CertificateError::BadEncoding
            | CertificateError::UnhandledCriticalExtension => Self::Unusable,
            // Among them what webpki says of a certificate that is its own
            // authority, and of an authority of the same name with another key.
            _ => Self::UnknownAuthority,
        }
    }
}

/// Judges a server's certificates: by the authorities, then by the caller's own knowledge.
struct Judge {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// Their certificates.
    roots: Vec<CertificateDer<'static>>,
    pinned: Pinned,
    provider: Arc<CryptoProvider>,
    /// What the first connection showed.
    first: OnceLock<CertificateDer<'static>>,
    trusted_by: OnceLock<TrustedBy>,
    /// The last certificate that was refused, until somebody asks. A lock
    /// because rustls shares the judge; never held across an await.
    refused: Mutex<Option<(CertificateDer<'static>, Distrust)>>,
}

impl Judge {
    fn refused(&self) -> MutexGuard<'_, Option<(CertificateDer<'static>, Distrust)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, certificate: &CertificateDer<'_>, reason: Distrust) -> rustls::Error {
        *self.refused() = Some((certificate.clone().into_owned(), reason));
        CertificateError::ApplicationVerificationFailure.into()
    }

    /// Lets an authority's own certificate serve as a server's, as other clients do:
    /// `openssl req -x509` says `CA:TRUE` of all that it makes. `error` is what was
    /// wrong with it otherwise; that it is used so is found after its validity was checked.
    fn judge_authority(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        error: rustls::Error,
    ) -> Result<(), rustls::Error> {
        let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = &error else {
            return Err(error);
        };
        let is_for_that = other
            .0
            .downcast_ref::<webpki::Error>()
            .is_some_and(|error| matches!(error, webpki::Error::CaUsedAsEndEntity));
        if !is_for_that || !self.roots.iter().any(|root| root == certificate) {
            return Err(error);
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.first.get().is_some_and(|first| first != certificate) {
            return Err(self.refuse(certificate, Distrust::Changed));
        }
        let judged = match &self.authorities {
            Some(authorities) => authorities
                .verify_server_cert(certificate, chain, name, ocsp, now)
                .map(drop)
                .or_else(|error| self.judge_authority(certificate, name, error)),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let trusted_by = match judged {
            Ok(()) => TrustedBy::Authority,
            Err(_) if (self.pinned)(certificate) => TrustedBy::Pin,
            Err(error) => return Err(self.refuse(certificate, Distrust::from(&error))),
        };
        self.first.get_or_init(|| certificate.clone().into_owned());
        self.trusted_by.get_or_init(|| trusted_by);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What the connections with one server can resume. Rustls' own store keeps
/// sessions of many servers and does not tell whether there is one.
#[derive(Debug, Default)]
struct Sessions {
    /// A lock because connections that join run side by side; never held across an await.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    /// Serves as often as it is wanted.
    tls12: Option<Tls12ClientSessionValue>,
    /// Each serves once; the newest is last and goes first, as it expires last.
    tickets: VecDeque<Tls13ClientSessionValue>,
}

/// Tickets that are kept: servers give two to four at once, some one more with each connection.
const MAX_TICKETS: usize = 64;

impl Sessions {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn can_resume(&self) -> bool {
        let kept = self.kept();
        kept.tls12.is_some() || !kept.tickets.is_empty()
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _server: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().tls12 = Some(value);
    }

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12.clone()
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {
        self.kept().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _server: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tickets.len() == MAX_TICKETS {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tickets.pop_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ForeignTickets, Resumption as Resumed, TicketOwner, TlsOptions, TlsServer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A server for `localhost` and its certificate, which vouches for itself.
    fn make_server() -> (TlsServer, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        serving(made.cert.der().clone(), &made.signing_key)
    }

    /// As `openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -addext
    /// subjectAltName=DNS:localhost` makes it, but for the kind of key.
    fn make_server_as_openssl(last_year: i32) -> (TlsServer, CertificateDer<'static>) {
        let mut params =
            rcgen::CertificateParams::new(["localhost".to_owned()]).expect("usable names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 12, 31);
        let key = rcgen::KeyPair::generate().expect("made");
        let certificate = params.self_signed(&key).expect("made");
        serving(certificate.der().clone(), &key)
    }

    fn serving(
        certificate: CertificateDer<'static>,
        key: &rcgen::KeyPair,
    ) -> (TlsServer, CertificateDer<'static>) {
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let server = TlsServer::new(TlsOptions {
            chain: vec![certificate.clone()],
            key,
            protocols: vec![b"ftp".to_vec()],
            joining_protocols: Vec::new(),
            clients: None,
        });
        (server.expect("usable"), certificate)
    }

    fn client(
        host: &str,
        roots: &[&CertificateDer<'static>],
        pin: Option<&CertificateDer<'static>>,
    ) -> TlsClient {
        let pin = pin.cloned();
        TlsClient::new(
            host,
            TlsClientOptions {
                roots: roots.iter().map(|root| (*root).clone()).collect(),
                pinned: Arc::new(move |shown| pin.as_ref() == Some(shown)),
                identity: None,
                protocols: vec![b"ftp".to_vec()],
                joining_end: BareEnd::Refused,
            },
        )
        .expect("usable")
    }

    const OWNER: [u8; 16] = [7; 16];

    async fn meet(
        server: &TlsServer,
        client: &TlsClient,
    ) -> Result<(Stream, Stream), HandshakeError> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let accept = server.accept(far.into(), TicketOwner::new(OWNER));
        let (accepted, connected) = tokio::join!(accept, client.connect(near.into()));
        connected.map(|stream| (stream, accepted.expect("the client is content")))
    }

    #[tokio::test]
    async fn a_certificate_is_trusted_by_its_authority_or_by_a_pin() {
        let (server, certificate) = make_server();
        let by_authority = client("localhost", &[&certificate], None);
        meet(&server, &by_authority).await.expect("is trusted");
        assert_eq!(by_authority.trusted_by(), Some(TrustedBy::Authority));
        let by_pin = client("localhost", &[], Some(&certificate));
        meet(&server, &by_pin).await.expect("is trusted");
        assert_eq!(by_pin.trusted_by(), Some(TrustedBy::Pin));
    }

    #[tokio::test]
    async fn an_authority_may_be_the_server_itself_in_its_time_and_by_its_name() {
        let (server, certificate) = make_server_as_openssl(2098);
        let itself = client("localhost", &[&certificate], None);
        meet(&server, &itself).await.expect("is trusted");
        assert_eq!(itself.trusted_by(), Some(TrustedBy::Authority));
        let (expired, old) = make_server_as_openssl(2021);
        let (_, other) = make_server_as_openssl(2098);
        for (server, host, root, expected) in [
            (&server, "example.org", &certificate, Distrust::WrongName),
            (&expired, "localhost", &old, Distrust::Expired),
            (&server, "localhost", &other, Distrust::UnknownAuthority),
        ] {
            let client = client(host, &[root], None);
            let (near, far) = tokio::io::duplex(1 << 16);
            let accept = server.accept(far.into(), TicketOwner::new(OWNER));
            let (_, connected) = tokio::join!(accept, client.connect(near.into()));
            match connected {
                Err(HandshakeError::Untrusted { reason, .. }) => assert_eq!(reason, expected),
                other => panic!("{expected:?}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_knows_is_refused_and_shown() {
        let (server, certificate) = make_server();
        let (_, other) = make_server();
        for (client, expected) in [
            (client("localhost", &[], None), Distrust::UnknownAuthority),
            (
                client("localhost", &[&other], Some(&other)),
                Distrust::UnknownAuthority,
            ),
            (
                client("example.org", &[&certificate], None),
                Distrust::WrongName,
            ),
        ] {
            let (near, far) = tokio::io::duplex(1 << 16);
            let accept = server.accept(far.into(), TicketOwner::new(OWNER));
            let (_, connected) = tokio::join!(accept, client.connect(near.into()));
            match connected {
                Err(HandshakeError::Untrusted {
                    certificate: shown,
                    reason,
                }) => {
                    assert_eq!((shown, reason), (certificate.clone(), expected));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(client.trusted_by(), None);
        }
    }

    #[tokio::test]
    async fn connections_that_join_resume_the_first_and_must_show_its_certificate() {
        let (server, certificate) = make_server();
        let (impostor, other) = make_server();
        let client = client("localhost", &[&certificate, &other], None);
        let (mut near, mut far) = meet(&server, &client).await.expect("is trusted");
        // The tickets come with the first bytes.
        far.write_all(b"220 hello").await.expect("written");
        far.flush().await.expect("written");
        near.read_exact(&mut [0; 9]).await.expect("read");

        let (mine, theirs) = tokio::io::duplex(1 << 16);
        let owner = TicketOwner::new(OWNER);
        let accept = server.accept_joining(
            theirs.into(),
            owner,
            ForeignTickets::Reported,
            BareEnd::Refused,
        );
        let (joined, connected) = tokio::join!(accept, client.connect_joining(mine.into()));
        let joined = joined.expect("joins");
        assert_eq!(joined.resumption, Resumed::Own);
        let mut connected = connected.expect("is trusted");
        assert!(connected.as_tls().expect("is encrypted").is_resumed());
        assert!(!near.as_tls().expect("is encrypted").is_resumed());
        // An end that anybody could have made is none.
        drop(joined.stream);
        let end = connected.read(&mut [0]).await.expect_err("was cut");
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);

        let (mine, theirs) = tokio::io::duplex(1 << 16);
        let accept = impostor.accept(theirs.into(), owner);
        let (_, connected) = tokio::join!(accept, client.connect_joining(mine.into()));
        assert!(
            matches!(
                connected,
                Err(HandshakeError::Untrusted {
                    reason: Distrust::Changed,
                    ..
                })
            ),
            "{connected:?}"
        );
    }

    #[tokio::test]
    async fn a_ticket_serves_once() {
        let (server, certificate) = make_server();
        let client = client("localhost", &[&certificate], None);
        let (mut near, mut far) = meet(&server, &client).await.expect("is trusted");
        assert!(!client.can_resume());
        far.write_all(b"220").await.expect("written");
        far.flush().await.expect("written");
        near.read_exact(&mut [0; 3]).await.expect("read");
        let mut resumed = 0;
        while client.can_resume() {
            let (mine, theirs) = tokio::io::duplex(1 << 16);
            let owner = TicketOwner::new(OWNER);
            let foreign = ForeignTickets::Reported;
            let accept = server.accept_joining(theirs.into(), owner, foreign, BareEnd::Refused);
            let (joined, _) = tokio::join!(accept, client.connect_joining(mine.into()));
            assert_eq!(joined.expect("joins").resumption, Resumed::Own);
            resumed += 1;
        }
        // What the server gives.
        assert_eq!(resumed, 4);
    }

    #[test]
    fn a_host_that_can_have_no_certificate_is_an_error() {
        let options = TlsClientOptions {
            roots: Vec::new(),
            pinned: Arc::new(|_| false),
            identity: None,
            protocols: Vec::new(),
            joining_end: BareEnd::Refused,
        };
        assert!(matches!(
            TlsClient::new("a b", options),
            Err(TlsClientError::Name)
        ));
    }
}
