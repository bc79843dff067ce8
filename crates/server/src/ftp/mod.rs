//! FTP: the service, one session a connection.
//!
//! ```text
//! control.rs   the loop: one task, one owner        running.rs   a transfer at work
//! session.rs   the state, and the dispatch           data.rs      passive and active connections, and their TLS
//! commands/    what each verb does                   refusal.rs   the only place with reply codes for refusals
//! ```

mod commands;
mod control;
mod data;
mod refusal;
mod running;
mod session;

use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tracing::Instrument as _;
use wharf_net::{
    BareEnd, Connection, Peer, Proxied, Refused, ServiceError, Stream, StreamService, TlsServer,
};

pub use crate::ftp::data::{Between, Connecting, DataNetwork, Ends, PassivePorts};

use crate::door::{Door, Protocol};
use crate::ftp::control::{Control, Loop};
use crate::ftp::data::Sockets;
use crate::ftp::refusal::reply_to_refused_connection;
use crate::ftp::session::{Presence, Session};

/// How long a session has to end by itself once it is kicked.
const KICK_PATIENCE: Duration = Duration::from_secs(2);

/// What an FTP service needs to know.
#[derive(Debug, Clone)]
pub struct FtpConfig {
    /// The text of the 220 reply.
    pub greeting: String,
    /// Where passive listeners open.
    pub passive_ports: PassivePorts,
    /// The address that PASV shows to peers beyond this machine, where the
    /// server stands behind address translation.
    pub masquerade: Option<IpAddr>,
    /// How long a client may keep us waiting.
    pub timeouts: Timeouts,
    /// How TLS is served, if it is.
    pub tls: Option<FtpTls>,
}

/// How TLS is served (RFC 4217).
#[derive(Debug, Clone)]
pub struct FtpTls {
    /// Makes the handshakes.
    pub server: Arc<TlsServer>,
    /// What begins it.
    pub start: TlsStart,
    /// Whether data connections are encrypted, where the account has no policy of its own.
    pub data: DataPrivacy,
    /// Whether sessions from this machine that are not encrypted need not encrypt their data either.
    pub plain_on_loopback: bool,
    /// Whether the control connection may do without it after the login (CCC).
    pub may_clear_control: bool,
    /// What a data connection must show.
    pub binding: DataBinding,
    /// What an upload that ends without `close_notify` counts as.
    pub upload_end: BareEnd,
    /// Says whose certificate a client shows.
    pub accounts: Arc<dyn CertificateAccounts>,
}

/// Whether data connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPrivacy {
    /// They must be.
    Required,
    /// The client decides (PROT).
    Optional,
    /// They are not.
    Off,
}

/// Says whose certificate it is.
pub trait CertificateAccounts: fmt::Debug + Send + Sync + 'static {
    /// The name of the account that a verified certificate (DER) opens, if it opens one.
    fn account_of(&self, certificate: &[u8]) -> Option<String>;
}

/// What begins the TLS of a control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsStart {
    /// The AUTH command.
    Command,
    /// The first byte; data connections are encrypted from the start as well.
    Connection,
}

/// How firmly a TLS data connection must show that it belongs to its control
/// connection. It does so by resuming its TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataBinding {
    /// It must resume it.
    Required,
    /// It may make a handshake of its own, but not resume another session.
    Prefer,
    /// It need show nothing. It cannot resume another session: that is passed over.
    Off,
}

/// How long a client may keep us waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the connection to the login.
    pub login: Duration,
    /// Between commands.
    pub idle: Duration,
    /// For the data connection.
    pub data_connect: Duration,
    /// For the next byte of a transfer.
    pub stall: Duration,
}

/// What all sessions that started under one configuration share.
pub(crate) struct FtpShared {
    pub(crate) config: FtpConfig,
    pub(crate) door: Arc<Door>,
    pub(crate) network: Arc<dyn DataNetwork>,
}

/// Serves FTP.
pub struct FtpService {
    // Replaced as a whole by a reload; read once a connection, never held across an await.
    shared: RwLock<Arc<FtpShared>>,
}

impl FtpService {
    /// A service that lets people in through `door`.
    pub fn new(config: FtpConfig, door: Arc<Door>) -> Self {
        Self::over(Arc::new(Sockets), config, door)
    }

    /// The same with data connections from elsewhere than sockets.
    pub fn over(network: Arc<dyn DataNetwork>, config: FtpConfig, door: Arc<Door>) -> Self {
        let shared = FtpShared {
            config,
            door,
            network,
        };
        Self {
            shared: RwLock::new(Arc::new(shared)),
        }
    }

    /// Uses another configuration and door for the sessions that start from now on.
    pub fn reload(&self, config: FtpConfig, door: Arc<Door>) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        let network = Arc::clone(&shared.network);
        *shared = Arc::new(FtpShared {
            config,
            door,
            network,
        });
    }

    fn shared(&self) -> Arc<FtpShared> {
        Arc::clone(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What comes of `work`, or `None` if it takes longer than `patience`. What is ready at once, as most
/// is, needs no timer: a reply for which there is room, a data connection that is there.
async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    if let Poll::Ready(output) = futures_util::poll!(work.as_mut()) {
        return Some(output);
    }
    tokio::time::timeout(patience, work).await.ok()
}

/// What data connections need to know of a proxy.
fn between(proxied: Proxied) -> Option<Between> {
    Some(Between {
        address: proxied.by.ip()?,
        destination: proxied.destination,
    })
}

impl FtpService {
    /// Makes the session of a connection.
    fn welcome(&self, connection: Connection) -> Result<Welcomed, ServiceError> {
        let Connection {
            stream,
            peer,
            local,
            proxy,
            drain,
            slot,
        } = connection;
        // Data connections go to addresses, and Unix sockets have none.
        let (Peer::Ip(peer), Some(local)) = (peer, local.socket_address()) else {
            return Err("FTP needs TCP, and this is a Unix socket".into());
        };
        let ends = Ends {
            peer,
            local,
            proxy: proxy.and_then(between),
        };
        let shared = self.shared();
        let live = shared.door.registry().enter(Protocol::Ftp, peer);
        let id = live.id();
        let protocol = match shared.config.tls.as_ref().map(|tls| tls.start) {
            Some(TlsStart::Connection) => "ftps",
            Some(TlsStart::Command) | None => "ftp",
        };
        let span =
            tracing::info_span!("session", %id, %peer, protocol, user = tracing::field::Empty);
        let presence = Arc::new(Presence {
            slot,
            drain: drain.clone(),
            live,
            drain_begun: AtomicBool::new(false),
        });
        let session = Session::new(shared, ends, Arc::clone(&presence));
        Ok(Welcomed {
            session: Box::new(Loop::new(Control::new(stream), session, drain)),
            presence,
            span,
        })
    }
}

/// A session that is about to be served.
struct Welcomed {
    session: Box<Loop>,
    presence: Arc<Presence>,
    span: tracing::Span,
}

impl Welcomed {
    /// Serves it to its end.
    async fn serve(self) {
        let Self {
            session,
            presence,
            span,
        } = self;
        async {
            tracing::debug!("connected");
            tokio::select! {
                // So that the session finds out in the same poll.
                biased;
                () = presence.listen(KICK_PATIENCE) => tracing::info!("cut by the administrator"),
                () = session.run() => tracing::debug!("closed"),
            }
        }
        .instrument(span)
        .await;
    }
}

impl StreamService for FtpService {
    // Not an `async fn`: the future would have room for the connection for as long as the session lasts.
    fn serve(
        self: Arc<Self>,
        connection: Connection,
    ) -> impl Future<Output = Result<(), ServiceError>> + Send {
        let welcomed = self.welcome(connection);
        async move {
            welcomed?.serve().await;
            Ok(())
        }
    }

    async fn refuse(&self, mut stream: Stream, reason: Refused) {
        let tls = self.shared().config.tls.as_ref().map(|tls| tls.start);
        if tls == Some(TlsStart::Connection) {
            // The peer could not read it, and a handshake is more than it is owed.
            return;
        }
        let reply = reply_to_refused_connection(reason);
        let mut line = Vec::new();
        reply.encode(&mut line);
        let _ = stream.write_all(&line).await;
    }
}
