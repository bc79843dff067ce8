//! TLS on a stream, on the server's side.
//!
//! Knows no protocol: certificates, names of protocols (ALPN) and what a ticket
//! stands for are the caller's. A client has a first connection, and may have
//! others that join it: only first connections give tickets, only joining ones
//! take them, and each ticket carries the owner of the first connection, so that
//! a joining connection shows whether it belongs there.
//!
//! Invariant: tickets have one key, which outlives a change of the certificate.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, CommonState, HandshakeKind, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, server};

use crate::Stream;
use crate::read_ahead::ReadAhead;

/// TLS 1.3 tickets for each first connection. A client replays one for every
/// joining connection, or uses each once: then it has a spare one while another is on its way.
const TICKETS: usize = 4;

/// What TLS is served with.
#[derive(Debug)]
pub struct TlsOptions {
    /// The certificate, then what leads to its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// Names of protocols (ALPN, RFC 7301) for first connections. A client that
    /// offers names and none of these is refused; one that offers none is served.
    pub protocols: Vec<Vec<u8>>,
    /// The same for joining connections.
    pub joining_protocols: Vec<Vec<u8>>,
    /// Which certificates clients may show; none are asked for without it.
    pub clients: Option<ClientAuthorities>,
}

/// Who vouches for clients.
#[derive(Debug)]
pub struct ClientAuthorities {
    /// Certificates of the authorities.
    pub roots: Vec<CertificateDer<'static>>,
    /// Certificates that the authorities have taken back.
    pub revoked: Vec<CertificateRevocationListDer<'static>>,
    /// Whether a client without a certificate is refused.
    pub required: bool,
}

/// Serves TLS. What it is served with can be replaced while it runs.
pub struct TlsServer {
    tickets: Arc<dyn ProducesTickets>,
    // Replaced as a whole; read once a handshake, never held across an await.
    live: RwLock<Live>,
}

/// The settings of both kinds of connection; `ticketer` is set for each connection.
#[derive(Clone)]
struct Live {
    first: Arc<ServerConfig>,
    joining: Arc<ServerConfig>,
}

/// Whose ticket it is: a random number of each first connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketOwner([u8; OWNER_BYTES]);

const OWNER_BYTES: usize = 16;

impl TicketOwner {
    /// An owner; the bytes must be random.
    pub fn new(random: [u8; OWNER_BYTES]) -> Self {
        Self(random)
    }
}

impl fmt::Debug for TicketOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketOwner")
    }
}

/// What happens to a ticket of another owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignTickets {
    /// It is taken, and the caller learns of it.
    Reported,
    /// It is passed over; the client makes a whole handshake.
    Ignored,
}

/// What a stream that ends without `close_notify` counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareEnd {
    /// An end like any other, unless a data connection ends within a record, as one does that was cut.
    Tolerated,
    /// An error, [`io::ErrorKind::UnexpectedEof`]: the stream may have been cut.
    Refused,
}

/// A joining connection that has been made.
#[derive(Debug)]
pub struct Joined {
    /// The bytes.
    pub stream: Stream,
    /// What it showed.
    pub resumption: Resumption,
}

/// Whose TLS session a joining connection has resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumption {
    /// None: it made a whole handshake.
    None,
    /// That of the expected owner.
    Own,
    /// That of somebody else.
    Foreign,
}

impl TlsServer {
    /// A server with new ticket keys.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn new(options: TlsOptions) -> Result<Self, TlsSetupError> {
        Ok(Self {
            tickets: aws_lc_rs::Ticketer::new().map_err(TlsSetupError::Tickets)?,
            live: RwLock::new(Live::new(options)?),
        })
    }

    /// Serves with other options from now on. Streams that are open stay, and
    /// so do tickets. With an error everything stays as it was.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn replace(&self, options: TlsOptions) -> Result<(), TlsSetupError> {
        let live = Live::new(options)?;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
        Ok(())
    }

    /// Makes the handshake of a first connection, whose tickets will carry
    /// `owner`. Has no deadline of its own. Dropping the future closes the stream.
    ///
    /// # Errors
    /// The handshake failed. An alert says why where TLS has one for it; the peer may see
    /// no more than the end of the connection, since it is closed behind the alert: with
    /// TLS 1.3 that goes for a name of a protocol (ALPN) that is not served.
    pub async fn accept(&self, stream: Stream, owner: TicketOwner) -> io::Result<Stream> {
        let tickets = Given {
            below: Arc::clone(&self.tickets),
            owner,
        };
        let config = with_tickets(&self.live().first, Arc::new(tickets));
        let stream = handshake(config, ReadAhead::never(stream)).await?;
        Ok(TlsStream::wrap(stream.into(), BareEnd::Tolerated))
    }

    /// Makes the handshake of a connection that should belong to `owner`. It
    /// gives no tickets. Has no deadline of its own. Dropping the future closes the stream.
    ///
    /// # Errors
    /// The handshake failed, as with [`TlsServer::accept`].
    pub async fn accept_joining(
        &self,
        stream: Stream,
        owner: TicketOwner,
        foreign: ForeignTickets,
        bare_end: BareEnd,
    ) -> io::Result<Joined> {
        let tickets = Arc::new(Taken {
            below: Arc::clone(&self.tickets),
            only: (foreign == ForeignTickets::Ignored).then_some(owner),
            last: Mutex::new(None),
        });
        let seen: Arc<Taken> = Arc::clone(&tickets);
        let config = with_tickets(&self.live().joining, tickets);
        let stream = handshake(config, ReadAhead::always(stream)).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let resumption = match (resumed, seen.last()) {
            (false, _) => Resumption::None,
            (true, Some(found)) if found == owner => Resumption::Own,
            (true, _) => Resumption::Foreign,
        };
        Ok(Joined {
            stream: TlsStream::wrap(stream.into(), bare_end),
            resumption,
        })
    }

    fn live(&self) -> Live {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.clone()
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsServer")
    }
}

/// The future is boxed: a session waits for it once, and should not be as large as it ever after.
///
/// A client that gathers small writes (GnuTLS without TCP_NODELAY, as in lftp) holds
/// the end of its handshake back until the beginning is acknowledged, which the
/// kernel puts off by 40 ms as we have nothing to send.
async fn handshake(
    config: Arc<ServerConfig>,
    stream: ReadAhead,
) -> io::Result<server::TlsStream<ReadAhead>> {
    let mut accept = Box::pin(TlsAcceptor::from(config).accept(stream));
    std::future::poll_fn(|cx| {
        let polled = accept.as_mut().poll(cx);
        if polled.is_pending() {
            accept
                .get_ref()
                .inspect(|stream| stream.get_ref().acknowledge_at_once());
        }
        polled
    })
    .await
}

fn with_tickets(config: &ServerConfig, tickets: Arc<dyn ProducesTickets>) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.ticketer = tickets;
    Arc::new(config)
}

impl Live {
    fn new(options: TlsOptions) -> Result<Self, TlsSetupError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = options.key.clone_key();
        let mut first = config(&provider, options.chain.clone(), key, options.clients)?;
        first.alpn_protocols = options.protocols;
        first.send_tls13_tickets = TICKETS;
        let mut joining = config(&provider, options.chain, options.key, None)?;
        joining.alpn_protocols = options.joining_protocols;
        // A client that only sends never reads them, and its close would become a reset.
        joining.send_tls13_tickets = 0;
        Ok(Self {
            first: Arc::new(first),
            joining: Arc::new(joining),
        })
    }
}

fn config(
    provider: &Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<ClientAuthorities>,
) -> Result<ServerConfig, TlsSetupError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError::Certificate)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            for root in clients.roots {
                roots.add(root).map_err(TlsSetupError::Authority)?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                    .with_crls(clients.revoked)
                    // An authority without a list has taken nothing back.
                    .allow_unknown_revocation_status();
            let verifier = if clients.required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier.build().map_err(TlsSetupError::Authorities)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let keys = provider.key_provider;
    keys.load_private_key(key.clone_key())
        .map_err(TlsSetupError::Key)?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsSetupError::Mismatch(error),
            error => TlsSetupError::Certificate(error),
        })?;
    // Tickets carry all there is to resume; nothing is kept here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Whether the key of an authority made `signature` of `message`: by any of the
/// algorithms that TLS is spoken with here. `public_key` is the content of its `BIT STRING` (RFC 5280 §4.1).
pub fn is_signed_by(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    algorithms.all.iter().any(|algorithm| {
        algorithm
            .verify_signature(public_key, message, signature)
            .is_ok()
    })
}

/// TLS cannot be served with these options.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The certificate.
    #[error("the certificate cannot be used")]
    Certificate(#[source] rustls::Error),
    /// The key is of a kind or a size that TLS is not served with.
    #[error("keys are RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519")]
    Key(#[source] rustls::Error),
    /// The key is another certificate's.
    #[error("they do not belong together")]
    Mismatch(#[source] rustls::Error),
    /// A certificate of an authority.
    #[error("the certificate of an authority cannot be used")]
    Authority(#[source] rustls::Error),
    /// The authorities or what they have taken back.
    #[error("the authorities for clients cannot be used")]
    Authorities(#[source] rustls::server::VerifierBuilderError),
    /// There is no randomness for ticket keys.
    #[error("no keys for tickets could be made")]
    Tickets(#[source] rustls::Error),
}

/// The ticketer of a first connection: its tickets carry their owner, and none are taken.
///
/// The owner travels in the ticket itself, not as rustls' resumption data, which TLS 1.2 does not hand up.
struct Given {
    below: Arc<dyn ProducesTickets>,
    owner: TicketOwner,
}

impl ProducesTickets for Given {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.below.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut owned = self.owner.0.to_vec();
        owned.extend_from_slice(plain);
        self.below.encrypt(&owned)
    }

    /// A first connection always proves itself anew: its client's certificate may have been taken back.
    fn decrypt(&self, _ticket: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// The ticketer of a joining connection: it takes tickets, remembers whose, and gives none.
struct Taken {
    below: Arc<dyn ProducesTickets>,
    /// The owner whose tickets alone are taken.
    only: Option<TicketOwner>,
    /// Rustls stops at the ticket that it resumes, so the last one that was opened is that one.
    last: Mutex<Option<TicketOwner>>,
}

impl Taken {
    fn last(&self) -> Option<TicketOwner> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProducesTickets for Taken {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.below.lifetime()
    }

    /// A ticket given here would make of a connection that proved nothing one that belongs.
    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let owned = self.below.decrypt(ticket)?;
        let (owner, plain) = owned.split_first_chunk::<OWNER_BYTES>()?;
        let owner = TicketOwner(*owner);
        if self.only.is_some_and(|only| only != owner) {
            return None;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(owner);
        Some(plain.to_vec())
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given")
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taken")
    }
}

/// Most bytes that are encrypted before the system is asked to send them: as many as a transfer
/// brings at once and their records (RFC 8446 §5.2), so that one call takes them all.
const MOST_ENCRYPTED_BYTES: usize = (256 + 16) * 1024;

/// An encrypted stream.
#[derive(Debug)]
pub struct TlsStream {
    below: tokio_rustls::TlsStream<ReadAhead>,
    bare_end: BareEnd,
}

impl TlsStream {
    pub(crate) fn wrap(mut below: tokio_rustls::TlsStream<ReadAhead>, bare_end: BareEnd) -> Stream {
        let limit = Some(MOST_ENCRYPTED_BYTES);
        match &mut below {
            tokio_rustls::TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(limit),
            tokio_rustls::TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(limit),
        }
        Stream::Tls(Box::new(Self { below, bare_end }))
    }

    /// The certificates that the peer has shown and that were verified, its own first.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.session().peer_certificates().unwrap_or_default()
    }

    /// The version and the cipher, for the log.
    pub fn description(&self) -> String {
        let session = self.session();
        let version = session
            .protocol_version()
            .and_then(|version| version.as_str());
        let suite = session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str());
        format!("{} {}", version.unwrap_or("TLS"), suite.unwrap_or_default())
    }

    /// Whether the handshake resumed the session of an earlier connection.
    pub fn is_resumed(&self) -> bool {
        self.session().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(crate) fn below(&self) -> &Stream {
        self.below.get_ref().0.get_ref()
    }

    pub(crate) fn below_mut(&mut self) -> &mut Stream {
        self.below.get_mut().0.get_mut()
    }

    /// Whether the peer has ended the connection below, and all that came was read.
    pub(crate) fn is_over(&self) -> bool {
        let (below, _) = self.below.get_ref();
        below.is_drained() && below.get_ref().is_over()
    }

    pub(crate) fn into_below(self) -> tokio_rustls::TlsStream<ReadAhead> {
        self.below
    }

    fn session(&self) -> &CommonState {
        self.below.get_ref().1
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.below).poll_read(cx, buf) {
            Poll::Ready(Err(error))
                if error.kind() == io::ErrorKind::UnexpectedEof
                    && this.bare_end == BareEnd::Tolerated
                    && !this.below.get_ref().0.is_within_record() =>
            {
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().below).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().below).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.below.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().below).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().below).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::client::Resumption as ClientSessions;
    use rustls::{ClientConfig, SupportedProtocolVersion, version};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_rustls::{TlsConnector, client};

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

    struct Setting {
        server: TlsServer,
        certificate: CertificateDer<'static>,
    }

    fn options() -> (TlsOptions, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let certificate = made.cert.der().clone();
        let options = TlsOptions {
            chain: vec![certificate.clone()],
            key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key"),
            protocols: vec![b"one".to_vec()],
            joining_protocols: vec![b"one".to_vec(), b"two".to_vec()],
            clients: None,
        };
        (options, certificate)
    }

    fn setting() -> Setting {
        let (options, certificate) = options();
        Setting {
            server: TlsServer::new(options).expect("usable"),
            certificate,
        }
    }

    impl Setting {
        /// A client with a memory of its sessions.
        fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate.clone()).expect("acceptable");
            let mut config =
                ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                    .with_protocol_versions(&[version])
                    .expect("known")
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            config.resumption = ClientSessions::in_memory_sessions(16);
            config
        }

        async fn first(&self, client: &ClientConfig, owner: TicketOwner) -> io::Result<()> {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let served = async {
                let mut stream = self.server.accept(theirs.into(), owner).await?;
                stream.write_all(b"hello").await?;
                stream.shutdown().await
            };
            let heard = async {
                let mut stream = connect(client, ours).await?;
                // Tickets of TLS 1.3 come with what is read.
                let mut said = Vec::new();
                stream.read_to_end(&mut said).await.map(|_| ())
            };
            let (served, heard) = tokio::join!(served, heard);
            served.and(heard)
        }

        async fn join(
            &self,
            client: &ClientConfig,
            owner: TicketOwner,
            foreign: ForeignTickets,
        ) -> Resumption {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let served =
                self.server
                    .accept_joining(theirs.into(), owner, foreign, BareEnd::Refused);
            let (served, connected) = tokio::join!(served, connect(client, ours));
            connected.expect("a handshake");
            served.expect("a handshake").resumption
        }
    }

    async fn connect(
        client: &ClientConfig,
        stream: DuplexStream,
    ) -> io::Result<client::TlsStream<DuplexStream>> {
        let name = "localhost".try_into().expect("a name");
        TlsConnector::from(Arc::new(client.clone()))
            .connect(name, stream)
            .await
    }

    fn owner(number: u8) -> TicketOwner {
        TicketOwner::new([number; OWNER_BYTES])
    }

    #[tokio::test]
    async fn a_joining_connection_shows_whose_session_it_resumes() {
        use ForeignTickets::{Ignored, Reported};
        let setting = setting();
        for version in VERSIONS {
            let client = setting.client(version);
            // Nothing to resume yet, and nothing to gain by joining: it gives no tickets.
            for _ in 0..2 {
                let shown = setting.join(&client, owner(1), Reported).await;
                assert_eq!(shown, Resumption::None, "{version:?}");
            }
            setting.first(&client, owner(1)).await.expect("served");
            let shown = setting.join(&client, owner(1), Reported).await;
            assert_eq!(shown, Resumption::Own, "{version:?}");
            let shown = setting.join(&client, owner(2), Reported).await;
            assert_eq!(shown, Resumption::Foreign, "{version:?}");
            let shown = setting.join(&client, owner(2), Ignored).await;
            assert_eq!(shown, Resumption::None, "{version:?}");
        }
    }

    #[tokio::test]
    async fn tickets_outlive_a_change_of_the_certificate() {
        let setting = setting();
        let client = setting.client(&version::TLS13);
        setting.first(&client, owner(1)).await.expect("served");
        setting.server.replace(options().0).expect("usable");
        let shown = setting
            .join(&client, owner(1), ForeignTickets::Reported)
            .await;
        assert_eq!(shown, Resumption::Own);
        // Who comes anew sees the new certificate, which this client does not trust.
        assert!(setting.first(&client, owner(1)).await.is_err());
    }

    #[tokio::test]
    async fn a_client_of_another_protocol_is_refused_and_one_that_names_none_is_served() {
        let setting = setting();
        for version in VERSIONS {
            for (offered, served) in [
                (vec![], true),
                (vec!["one"], true),
                (vec!["h2", "one"], true),
                (vec!["two"], false),
                (vec!["http/1.1"], false),
            ] {
                let mut client = setting.client(version);
                client.alpn_protocols = offered
                    .iter()
                    .map(|name| name.as_bytes().to_vec())
                    .collect();
                let result = setting.first(&client, owner(1)).await;
                assert_eq!(result.is_ok(), served, "{offered:?}: {result:?}");
            }
        }
    }

    #[tokio::test]
    async fn an_end_without_close_notify_is_what_the_caller_says() {
        let setting = setting();
        for (rule, whole) in [(BareEnd::Tolerated, true), (BareEnd::Refused, false)] {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let client = setting.client(&version::TLS13);
            let joining = setting.server.accept_joining(
                theirs.into(),
                owner(1),
                ForeignTickets::Reported,
                rule,
            );
            let (joined, connected) = tokio::join!(joining, connect(&client, ours));
            let mut sender = connected.expect("a handshake");
            sender.write_all(b"half").await.expect("written");
            sender.flush().await.expect("written");
            // The pipe below ends, and TLS says nothing.
            drop(sender);
            let mut received = Vec::new();
            let mut stream = joined.expect("a handshake").stream;
            let result = stream.read_to_end(&mut received).await;
            assert_eq!(received, b"half");
            assert_eq!(result.is_ok(), whole);
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (mut mixed, _) = options();
        mixed.key = options().0.key;
        assert!(matches!(
            TlsServer::new(mixed).err(),
            Some(TlsSetupError::Mismatch(_))
        ));
    }
}
