//! Data connections: passive listeners, active dials, and whom they belong to.
//!
//! Invariant: the other end of a data connection is the other end of the
//! control connection, whichever side connects. With TLS it shows that by
//! resuming the control connection's session. What comes from the proxy of the
//! control connection says in a header of its own whose it is.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use wharf_net::{
    BareEnd, BoundEndpoint, Endpoint, EndpointOptions, ForeignTickets, Joined, Peer, ProxyHeader,
    Resumption, Stream, TicketOwner, TlsServer, read_proxy,
};

use crate::ftp::{DataBinding, within};

/// How long a client is left to connect and to send its command, as most do at once. Then the
/// connection is there when it is wanted, and nobody had to be woken to see it come. Where somebody
/// else wants to take its place, or to keep it out by filling the queue, they are turned away after this.
const HEAD_START: Duration = Duration::from_millis(200);

/// Where data connections come from: sockets, or pipes where whole sessions
/// are tested within the process.
pub trait DataNetwork: Send + Sync + 'static {
    /// Opens a port of `ports` on our address of `ends`. The address it has
    /// then, and the first connection from the peer; dropping that future closes the port.
    ///
    /// # Errors
    /// No port of the range is free.
    fn listen(&self, ports: &PassivePorts, ends: Ends) -> io::Result<(SocketAddr, Connecting)>;

    /// Connects from our address of `ends` to `target`.
    fn dial(&self, ends: Ends, target: SocketAddr) -> Connecting;
}

/// The ends of a control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client; behind a proxy, as the proxy announced it.
    pub peer: SocketAddr,
    /// Our end of the socket.
    pub local: SocketAddr,
    /// The proxy between them.
    pub proxy: Option<Between>,
}

/// A proxy that passed a control connection on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between {
    /// Where it connects from.
    pub address: IpAddr,
    /// Where the client connected to.
    pub destination: SocketAddr,
}

impl Ends {
    /// Where the client connected to.
    pub fn dialled(&self) -> SocketAddr {
        self.proxy.map_or(self.local, |proxy| proxy.destination)
    }
}

/// A connection that is on its way.
pub type Connecting = BoxFuture<'static, io::Result<Stream>>;

/// Data connections over TCP.
pub(crate) struct Sockets;

impl DataNetwork for Sockets {
    fn listen(&self, ports: &PassivePorts, ends: Ends) -> io::Result<(SocketAddr, Connecting)> {
        let (port, address) = ports.bind(ends.local)?;
        Ok((address, Box::pin(accept_from(port, ends))))
    }

    fn dial(&self, ends: Ends, target: SocketAddr) -> Connecting {
        Box::pin(dial(ends.local, target))
    }
}

/// What the next transfer will run over.
#[derive(Default)]
pub(crate) enum DataChannel {
    /// Neither PASV nor PORT was sent since the last transfer.
    #[default]
    Unset,
    /// The client connects to us.
    Passive(Passive),
    /// We connect to the client. Boxed, so that a session without it has no room for it.
    Active(Box<Active>),
}

/// How a data connection is encrypted, and what it must show.
#[derive(Debug)]
pub(crate) struct DataTls {
    pub(crate) server: Arc<TlsServer>,
    pub(crate) owner: TicketOwner,
    pub(crate) binding: DataBinding,
    pub(crate) end: BareEnd,
}

/// Why there is no data connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no data connection was made")]
    Tcp(#[from] io::Error),
    #[error("the TLS handshake of the data connection failed")]
    Handshake(#[source] io::Error),
    #[error("the data connection resumed the TLS session of another control connection")]
    Foreign,
    #[error("the data connection did not resume the TLS session of its control connection")]
    NotResumed,
}

/// A listener that waits for one connection from the control peer. Dropped, it closes the port.
pub(crate) enum Passive {
    /// Nobody looks who comes. Boxed, so that a session without it has no room for it.
    Unwatched(Box<Unwatched>),
    /// A task takes the peer in, and turns others away.
    Watched(AbortOnDropHandle<Result<Stream, ConnectError>>),
}

/// A port that somebody has to watch soon.
pub(crate) struct Unwatched {
    // Never locked: it makes shared what only its owner polls.
    connecting: Mutex<Connecting>,
    patience: Duration,
    /// When somebody has to.
    until: Instant,
}

/// What it takes to connect to the client.
pub(crate) struct Active {
    network: Arc<dyn DataNetwork>,
    ends: Ends,
    target: SocketAddr,
    tls: Option<DataTls>,
}

/// Ports for passive listeners; `0..=0` is any port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassivePorts(pub RangeInclusive<u16>);

/// The dynamic ports (RFC 6335 §6).
const DYNAMIC_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// How many of them are tried before the system is asked for one.
const DYNAMIC_TRIES: usize = 8;

impl PassivePorts {
    /// Listens on a free port of the range on the address that `local` has,
    /// from a random one onwards, so that the next port cannot be guessed.
    ///
    /// # Errors
    /// The last one met when every port of the range is taken.
    fn bind(&self, local: SocketAddr) -> io::Result<(BoundEndpoint, SocketAddr)> {
        // The session has one peer, and it connects once; the stall limit sees when it is gone.
        let options = EndpointOptions {
            // Strangers that come before anybody watches should not keep the peer out.
            backlog: 32,
            keepalive: None,
            // What ends a transfer is sent at once, whatever is under way.
            nodelay: false,
            ..EndpointOptions::default()
        };
        let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
        for port in self.to_try() {
            let mut address = local;
            address.set_port(port);
            match BoundEndpoint::bind(Endpoint::Tcp(address), options) {
                Ok(bound) => {
                    let address = bound.endpoint().socket_address().unwrap_or(address);
                    return Ok((bound, address));
                }
                Err(error) => taken = error.into(),
            }
        }
        Err(taken)
    }

    /// Ports in the order in which to try them. A port that the system is to choose must not be
    /// in TIME_WAIT, which a named one may be: once some thousand transfers have ended within a
    /// minute, its search takes milliseconds for each. So any port is first of all some port by name.
    fn to_try(&self) -> impl Iterator<Item = u16> + use<> {
        let (range, tries) = if self.0 == (0..=0) {
            (Self(DYNAMIC_PORTS), DYNAMIC_TRIES)
        } else {
            (self.clone(), usize::MAX)
        };
        let last_resort = (self.0 == (0..=0)).then_some(0);
        range.in_random_order().take(tries).chain(last_resort)
    }

    /// Every port of the range once, starting anywhere.
    fn in_random_order(&self) -> impl Iterator<Item = u16> + use<> {
        let (low, high) = (*self.0.start(), *self.0.end());
        let count = u32::from(high.saturating_sub(low)) + 1;
        let start = getrandom::u32().unwrap_or(0) % count;
        (0..count).map(move |step| {
            let offset = u16::try_from((start + step) % count).expect("count is at most 65536");
            low + offset
        })
    }
}

impl DataChannel {
    /// Opens a passive listener beside our end of the control connection
    /// and returns the address it has. It waits at most `patience` for the
    /// connection. The handshake of `tls` begins with it: some clients make it before they
    /// send the command, others only once 150 has come.
    ///
    /// # Errors
    /// No port of the range is free.
    pub(crate) fn listen(
        network: &dyn DataNetwork,
        ports: &PassivePorts,
        ends: Ends,
        patience: Duration,
        tls: Option<DataTls>,
    ) -> io::Result<(Self, SocketAddr)> {
        let (address, connecting) = network.listen(ports, ends)?;
        let passive = if tls.is_some() {
            Passive::watched(connecting, patience, tls)
        } else {
            Passive::Unwatched(Box::new(Unwatched {
                connecting: Mutex::new(connecting),
                patience,
                until: Instant::now() + HEAD_START,
            }))
        };
        Ok((Self::Passive(passive), address))
    }

    /// When [`Self::watch`] has to be called.
    pub(crate) fn unwatched_until(&self) -> Option<Instant> {
        match self {
            Self::Passive(Passive::Unwatched(port)) => Some(port.until),
            _ => None,
        }
    }

    /// Has a task watch the port from now on.
    pub(crate) fn watch(&mut self) {
        *self = match std::mem::take(self) {
            Self::Passive(Passive::Unwatched(port)) => {
                let patience = port.patience;
                Self::Passive(Passive::watched(port.connecting(), patience, None))
            }
            other => other,
        };
    }

    /// Connects to `target`, once a transfer needs it, from our end of the control connection.
    pub(crate) fn dial(
        network: Arc<dyn DataNetwork>,
        ends: Ends,
        target: SocketAddr,
        tls: Option<DataTls>,
    ) -> Self {
        Self::Active(Box::new(Active {
            network,
            ends,
            target,
            tls,
        }))
    }

    /// The connection itself. Dropping the future closes whatever was open.
    ///
    /// # Errors
    /// The peer did not connect, or could not be reached, within `patience`;
    /// or it is not the one that the control connection has.
    pub(crate) async fn connect(self, patience: Duration) -> Result<Stream, ConnectError> {
        let connecting = async {
            match self {
                Self::Unset => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
                Self::Passive(Passive::Unwatched(port)) => Ok(port.connecting().await?),
                Self::Passive(Passive::Watched(accepting)) => {
                    accepting.await.map_err(io::Error::other)?
                }
                Self::Active(active) => {
                    let stream = active.network.dial(active.ends, active.target).await?;
                    secure(stream, active.tls).await
                }
            }
        };
        within(patience, connecting)
            .await
            .unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}

impl Unwatched {
    fn connecting(self) -> Connecting {
        let connecting = self.connecting.into_inner();
        connecting.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passive {
    fn watched(connecting: Connecting, patience: Duration, tls: Option<DataTls>) -> Self {
        let accepting = tokio::spawn(async move {
            let stream = tokio::time::timeout(patience, connecting)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            secure(stream, tls).await
        });
        Self::Watched(AbortOnDropHandle::new(accepting))
    }
}

/// Accepts the first connection whose other end is the peer. Strangers are
/// closed and passed over, so that one who is faster can neither take the
/// transfer nor stop it (RFC 2577 §4).
async fn accept_from(port: BoundEndpoint, ends: Ends) -> io::Result<Stream> {
    while let Some((stream, address)) = port.accept_at_once()? {
        if let Some(stream) = unless_stranger(stream, address, ends).await {
            return Ok(stream);
        }
    }
    let listener = port.listener()?;
    loop {
        let (stream, address) = listener.accept().await?;
        if let Some(stream) = unless_stranger(stream, address, ends).await {
            return Ok(stream);
        }
    }
}

/// `stream`, if its other end is the peer.
async fn unless_stranger(mut stream: Stream, address: Peer, ends: Ends) -> Option<Stream> {
    let other_end = match address.ip() {
        Some(proxy) if ends.proxy.is_some_and(|between| between.address == proxy) => {
            announced(&mut stream).await
        }
        other => other,
    };
    if other_end == Some(ends.peer.ip().to_canonical()) {
        return Some(stream);
    }
    tracing::warn!(stranger = %address, "data connection from another address than the control connection closed");
    None
}

/// Whose data connection a proxy passes on, if it says so in time.
async fn announced(stream: &mut Stream) -> Option<IpAddr> {
    match tokio::time::timeout(HEADER_PATIENCE, read_proxy(stream)).await {
        Ok(Ok(ProxyHeader::Announced { source, .. })) => Some(source.ip().to_canonical()),
        Ok(Ok(ProxyHeader::Own)) | Err(_) => None,
        Ok(Err(error)) => {
            tracing::warn!(%error, "no PROXY header came first on a data connection from the proxy");
            None
        }
    }
}

/// How long a proxy's header may take, as on the control connection.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// Makes the handshake, as the server whichever side has connected (RFC 4217 §7).
async fn secure(stream: Stream, tls: Option<DataTls>) -> Result<Stream, ConnectError> {
    let Some(tls) = tls else {
        return Ok(stream);
    };
    let foreign = match tls.binding {
        DataBinding::Off => ForeignTickets::Ignored,
        DataBinding::Required | DataBinding::Prefer => ForeignTickets::Reported,
    };
    stream.set_nodelay();
    let joining = tls
        .server
        .accept_joining(stream, tls.owner, foreign, tls.end);
    let Joined { stream, resumption } = joining.await.map_err(ConnectError::Handshake)?;
    let refused = match (resumption, tls.binding) {
        (Resumption::Own, _) | (Resumption::None, DataBinding::Prefer | DataBinding::Off) => {
            return Ok(stream);
        }
        (Resumption::None, DataBinding::Required) => ConnectError::NotResumed,
        (Resumption::Foreign, _) => ConnectError::Foreign,
    };
    // In order, so that a client that is sending reads the reply before it meets an error.
    tokio::spawn(dismiss(stream));
    Err(refused)
}

async fn dismiss(mut stream: Stream) {
    if matches!(
        tokio::time::timeout(LINGER, stream.shutdown()).await,
        Ok(Ok(()))
    ) {
        linger(stream).await;
    }
}

/// Waits a while for the peer to close as well. A socket that is closed with
/// something unread, such as the peer's `close_notify`, is reset, and the peer
/// may lose the end of what it was sent.
pub(crate) async fn linger(mut stream: Stream) {
    let mut sink = [0; 512];
    let closing = async { while matches!(stream.read(&mut sink).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(LINGER, closing).await;
}

/// Long enough for an answer from the other side of the world.
const LINGER: Duration = Duration::from_secs(2);

async fn dial(local: SocketAddr, target: SocketAddr) -> io::Result<Stream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // RFC 959 §3.2 wants port 20 here, which needs root and buys nothing.
    let mut from = local;
    from.set_port(0);
    // Behind a proxy the client may be of the other family.
    if from.is_ipv4() == target.is_ipv4() {
        socket.bind(from)?;
    }
    Ok(Stream::from(socket.connect(target).await?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }

    fn ends(peer: &str, local: &str) -> Ends {
        let (peer, local) = (at(peer), at(local));
        Ends {
            peer,
            local,
            proxy: None,
        }
    }

    fn listen(ends: Ends, patience: Duration) -> (DataChannel, SocketAddr) {
        DataChannel::listen(&Sockets, &PassivePorts(0..=0), ends, patience, None).expect("a port")
    }

    async fn connect_from(source: &str, port: u16) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(at(source)).expect("binds");
        let target = SocketAddr::new(at("127.0.0.1:0").ip(), port);
        socket.connect(target).await.expect("connects")
    }

    #[tokio::test]
    async fn a_stranger_is_closed_and_the_control_peer_still_gets_in() {
        let (mut channel, address) = listen(ends("127.0.0.2:4000", "0.0.0.0:0"), PATIENCE);
        channel.watch();
        let mut stranger = connect_from("127.0.0.1:0", address.port()).await;
        assert_eq!(stranger.read(&mut [0]).await.expect("is closed"), 0);
        let _peer = connect_from("127.0.0.2:0", address.port()).await;
        assert!(channel.connect(PATIENCE).await.is_ok());
    }

    #[tokio::test]
    async fn what_the_proxy_brings_is_judged_by_whom_it_announces() {
        let behind = Ends {
            proxy: Some(Between {
                address: at("127.0.0.3:0").ip(),
                destination: at("198.51.100.1:21"),
            }),
            ..ends("192.0.2.7:4000", "0.0.0.0:0")
        };
        let (mut channel, address) = listen(behind, PATIENCE);
        channel.watch();
        for stranger in [
            "PROXY TCP4 192.0.2.8 198.51.100.1 9 9\r\n",
            "no header at all\r\n",
        ] {
            let mut connection = connect_from("127.0.0.3:0", address.port()).await;
            connection
                .write_all(stranger.as_bytes())
                .await
                .expect("sent");
            let ended = connection.read(&mut [0]).await;
            assert!(matches!(ended, Ok(0) | Err(_)), "{stranger}");
        }
        // Nobody else may announce anything.
        let mut liar = connect_from("127.0.0.4:0", address.port()).await;
        let _ = liar
            .write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 9 9\r\n")
            .await;
        assert!(matches!(liar.read(&mut [0]).await, Ok(0) | Err(_)));

        let mut honest = connect_from("127.0.0.3:0", address.port()).await;
        let header_and_content = b"PROXY TCP4 192.0.2.7 198.51.100.1 9 9\r\ncontent";
        honest.write_all(header_and_content).await.expect("sent");
        honest.shutdown().await.expect("ended");
        let mut stream = channel.connect(PATIENCE).await.expect("the peer's");
        let mut content = Vec::new();
        stream.read_to_end(&mut content).await.expect("read");
        assert_eq!(content, b"content");
    }

    #[tokio::test]
    async fn dropping_a_passive_channel_closes_its_port() {
        let (channel, address) = listen(ends("127.0.0.1:4000", "127.0.0.1:0"), PATIENCE);
        drop(channel);
        // The task ends at its next poll; the port is free once it has.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn every_port_of_the_range_is_tried_once() {
        let mut tried: Vec<u16> = PassivePorts(30_000..=30_009).in_random_order().collect();
        tried.sort_unstable();
        assert_eq!(tried, (30_000..=30_009).collect::<Vec<_>>());
        assert_eq!(PassivePorts(0..=65_535).in_random_order().count(), 65_536);
    }

    #[test]
    fn any_port_is_one_by_name_before_it_is_the_systems_choice() {
        let tried: Vec<u16> = PassivePorts(0..=0).to_try().collect();
        let (last, named) = tried.split_last().expect("some");
        assert_eq!(*last, 0);
        assert_eq!(named.len(), DYNAMIC_TRIES);
        assert!(named.iter().all(|port| DYNAMIC_PORTS.contains(port)));
        assert_eq!(PassivePorts(30_000..=30_009).to_try().count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_connects_times_out() {
        let patience = Duration::from_secs(30);
        let (channel, _address) = listen(ends("127.0.0.1:4000", "127.0.0.1:0"), patience);
        let error = channel.connect(patience).await.expect_err("nobody");
        assert!(
            matches!(error, ConnectError::Tcp(error) if error.kind() == io::ErrorKind::TimedOut)
        );
    }
}
