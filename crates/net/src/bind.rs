//! From an endpoint to a bound socket: options, the error that says what to
//! do, and the socket before and after a runtime watches it.

use std::fmt;
use std::io;
use std::net::{
    SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream, UdpSocket as StdUdpSocket,
};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram as StdUnixDatagram, UnixListener as StdUnixListener};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::Mode;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::{TcpListener, UdpSocket, UnixDatagram, UnixListener};

use crate::claim::{self, Claim};
use crate::peer::{Credentials, UnixPeer};
use crate::{Endpoint, Peer, Stream, UnixName};

/// Socket options of a listener and of the connections that come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Connections that the kernel completes before the server accepts them.
    pub backlog: u32,
    /// Whether a port whose last connections are in TIME_WAIT can be bound again.
    pub reuse_address: bool,
    /// Whether several sockets may listen on one address; the kernel spreads connections over them.
    pub reuse_port: bool,
    /// Whether an IPv6 endpoint leaves IPv4 alone; off, `[::]` serves both.
    pub only_v6: bool,
    /// Who may connect to a Unix socket: permission bits, such as `0o660`; what the process's umask leaves if not given.
    pub mode: Option<u32>,
    /// Whose a Unix socket is: a number of a user.
    pub owner: Option<u32>,
    /// Whose a Unix socket is: a number of a group.
    pub group: Option<u32>,
    /// Bytes that the kernel holds for a socket before they are read; as the system has it if not given.
    pub receive_buffer_bytes: Option<usize>,
    /// Bytes that the kernel holds for a socket before they are sent.
    pub send_buffer_bytes: Option<usize>,
    /// Routers that what is sent may pass (IPv6: the hop limit).
    pub ttl: Option<u32>,
    /// Whether TCP sends small writes at once instead of gathering them.
    pub nodelay: bool,
    /// Idle time after which TCP probes whether a peer is still there.
    pub keepalive: Option<Duration>,
}

impl EndpointOptions {
    /// Failing only costs time, and only on a socket that is already broken.
    fn prepare(&self, stream: &Stream) {
        if self.nodelay {
            stream.set_nodelay();
        }
        if let (Some(socket), Some(idle)) = (stream.as_tcp(), self.keepalive) {
            let keepalive = TcpKeepalive::new().with_time(idle);
            let _ = socket.set_tcp_keepalive(&keepalive);
        }
    }
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            // The kernel cuts it down to net.core.somaxconn.
            backlog: 4096,
            reuse_address: true,
            reuse_port: false,
            only_v6: false,
            mode: None,
            owner: None,
            group: None,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
            ttl: None,
            nodelay: true,
            // Dead peers are noticed within minutes.
            keepalive: Some(Duration::from_secs(60)),
        }
    }
}

/// A bound endpoint that no runtime watches yet; connections and datagrams
/// wait in the kernel. A server that gives up privileges makes it before that,
/// and before it has threads.
///
/// The file of a Unix socket that [`BoundEndpoint::bind`] made is removed when
/// this, or what it became, is dropped, unless somebody has put another in its place.
#[derive(Debug)]
pub struct BoundEndpoint {
    // Dropped before the socket: what is removed still belongs to a live one.
    claim: Option<Claim>,
    socket: Socket,
    endpoint: Endpoint,
    options: EndpointOptions,
}

impl BoundEndpoint {
    /// Binds, and listens if it is for streams. Needs no runtime.
    ///
    /// A Unix socket that no process has open any more is replaced. If another
    /// program is just replacing it, this waits for at most two seconds.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint.
    pub fn bind(endpoint: Endpoint, options: EndpointOptions) -> Result<Self, BindError> {
        let bound = match &endpoint {
            Endpoint::Unix(UnixName::Path(path)) | Endpoint::UnixDatagram(UnixName::Path(path)) => {
                claim::directory_of(path)
                    .and_then(|directory| bind_file(&endpoint, path, &options, directory))
            }
            _ => bind_socket(&endpoint, &options).map(|socket| (None, socket)),
        };
        let (claim, socket) = bound.map_err(|problem| BindError {
            endpoint: endpoint.clone(),
            problem,
        })?;
        Ok(Self {
            claim,
            endpoint: actual(endpoint, &socket),
            socket,
            options,
        })
    }

    /// A bound socket that came from elsewhere, with the kind that the system says it has.
    pub(crate) fn adopt(socket: Socket, options: EndpointOptions) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let datagram = match socket.r#type()? {
            Type::STREAM => false,
            Type::DGRAM => true,
            _ => return Err(io::Error::other("it is neither for streams nor datagrams")),
        };
        if !datagram && !socket.is_listener()? {
            return Err(io::Error::other("it is a connection and no listener"));
        }
        let endpoint = match (address.as_socket(), UnixName::of(&address)) {
            (Some(ip), _) if datagram => Endpoint::Udp(ip),
            (Some(ip), _) => Endpoint::Tcp(ip),
            (None, Some(name)) if datagram => Endpoint::UnixDatagram(name),
            (None, Some(name)) => Endpoint::Unix(name),
            (None, None) => return Err(io::Error::other("it is not bound to an address")),
        };
        socket.set_nonblocking(true)?;
        Ok(Self {
            claim: None,
            socket,
            endpoint,
            options,
        })
    }

    /// Where it is bound; a port is the real one where 0 was asked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Uses other options for the connections that come from it (`nodelay`, `keepalive`).
    pub fn set_options(&mut self, options: EndpointOptions) {
        self.options = options;
    }

    /// Has the runtime within which this is called watch it, for streams.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint: it is for datagrams, or the runtime cannot.
    pub fn listener(self) -> Result<Listener, BindError> {
        let Self {
            claim,
            socket,
            endpoint,
            options,
        } = self;
        let watched = match &endpoint {
            Endpoint::Tcp(_) => {
                TcpListener::from_std(StdTcpListener::from(socket)).map(ListenerSocket::Tcp)
            }
            Endpoint::Unix(_) => {
                UnixListener::from_std(StdUnixListener::from(socket)).map(ListenerSocket::Unix)
            }
            Endpoint::Udp(_) | Endpoint::UnixDatagram(_) => {
                let problem = BindProblem::NotForStreams;
                return Err(BindError { endpoint, problem });
            }
        };
        match watched {
            Ok(socket) => Ok(Listener {
                claim,
                socket,
                endpoint,
                options,
            }),
            Err(error) => Err(BindError {
                endpoint,
                problem: error.into(),
            }),
        }
    }

    /// A connection that is there already, which is fresh ([`Stream::Fresh`]), without having the
    /// runtime watch for more. Of TCP only.
    ///
    /// # Errors
    /// What `accept(2)` reports; some of it concerns a single peer, some passes.
    pub fn accept_at_once(&self) -> io::Result<Option<(Stream, Peer)>> {
        if !matches!(self.endpoint, Endpoint::Tcp(_)) {
            return Ok(None);
        }
        let Some((socket, address)) = accept_nonblocking(&self.socket)? else {
            return Ok(None);
        };
        let stream = Stream::Fresh(socket);
        self.options.prepare(&stream);
        Ok(Some((stream, address.into())))
    }

    /// Has the runtime within which this is called watch it, for datagrams.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint: it is for streams, or the runtime cannot.
    pub fn datagram_socket(self) -> Result<DatagramSocket, BindError> {
        let Self {
            claim,
            socket,
            endpoint,
            options: _,
        } = self;
        let watched = match &endpoint {
            Endpoint::Udp(_) => {
                UdpSocket::from_std(StdUdpSocket::from(socket)).map(DatagramKind::Udp)
            }
            Endpoint::UnixDatagram(_) => {
                UnixDatagram::from_std(StdUnixDatagram::from(socket)).map(DatagramKind::Unix)
            }
            Endpoint::Tcp(_) | Endpoint::Unix(_) => {
                let problem = BindProblem::NotForDatagrams;
                return Err(BindError { endpoint, problem });
            }
        };
        match watched {
            Ok(socket) => Ok(DatagramSocket {
                claim,
                socket,
                endpoint,
            }),
            Err(error) => Err(BindError {
                endpoint,
                problem: error.into(),
            }),
        }
    }
}

impl AsFd for BoundEndpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A bound, listening endpoint.
#[derive(Debug)]
pub struct Listener {
    #[expect(dead_code, reason = "it is there to be dropped, before the socket is")]
    claim: Option<Claim>,
    socket: ListenerSocket,
    endpoint: Endpoint,
    options: EndpointOptions,
}

#[derive(Debug)]
enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds and listens. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint.
    pub fn bind(endpoint: Endpoint, options: EndpointOptions) -> Result<Self, BindError> {
        BoundEndpoint::bind(endpoint, options)?.listener()
    }

    /// Where it listens; a port is the real one where 0 was asked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The address in use, if it is of TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.endpoint.socket_address()
    }

    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// What `accept(2)` reports; some of it concerns a single peer, some passes.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            ListenerSocket::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                let stream = Stream::from(socket);
                self.options.prepare(&stream);
                Ok((stream, address.into()))
            }
            ListenerSocket::Unix(listener) => {
                let (socket, address) = listener.accept().await?;
                let credentials = socket.peer_cred().ok().map(|known| Credentials {
                    pid: known.pid(),
                    uid: known.uid(),
                    gid: known.gid(),
                });
                let name = UnixName::of_runtime(&address);
                let peer = Peer::Unix(UnixPeer { credentials, name });
                Ok((socket.into(), peer))
            }
        }
    }
}

/// A bound endpoint for datagrams.
#[derive(Debug)]
pub struct DatagramSocket {
    #[expect(dead_code, reason = "it is there to be dropped, before the socket is")]
    claim: Option<Claim>,
    socket: DatagramKind,
    endpoint: Endpoint,
}

#[derive(Debug)]
enum DatagramKind {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl DatagramSocket {
    /// Binds. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint.
    pub fn bind(endpoint: Endpoint, options: EndpointOptions) -> Result<Self, BindError> {
        BoundEndpoint::bind(endpoint, options)?.datagram_socket()
    }

    /// Where it is bound; a port is the real one where 0 was asked for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits for the next datagram, and cuts off what `buffer` cannot hold.
    /// Dropping the future loses none.
    ///
    /// # Errors
    /// What the system says; an earlier reply that did not arrive may be told here.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        match &self.socket {
            DatagramKind::Udp(socket) => {
                let (length, address) = socket.recv_from(buffer).await?;
                Ok((length, address.into()))
            }
            DatagramKind::Unix(socket) => {
                let (length, address) = socket.recv_from(buffer).await?;
                let peer = UnixPeer {
                    credentials: None,
                    name: UnixName::of_runtime(&address),
                };
                Ok((length, Peer::Unix(peer)))
            }
        }
    }

    /// Sends one datagram to `peer`. Dropping the future sends all of it or nothing.
    ///
    /// # Errors
    /// What the system says, and `AddrNotAvailable` for a peer without a name
    /// or of another kind of socket.
    pub async fn send(&self, content: &[u8], peer: &Peer) -> io::Result<()> {
        let no_way_back = || {
            let text = format!("there is no way back to {peer}");
            io::Error::new(io::ErrorKind::AddrNotAvailable, text)
        };
        match (&self.socket, peer) {
            (DatagramKind::Udp(socket), Peer::Ip(address)) => {
                let address = self.reachable(*address);
                socket.send_to(content, address).await?;
            }
            (DatagramKind::Unix(socket), Peer::Unix(peer)) => {
                let name = peer.name.as_ref().ok_or_else(no_way_back)?;
                let address = name.to_socket_address()?;
                // The runtime's own way takes paths alone, and an abstract name is none.
                let send = || SockRef::from(socket).send_to(content, &address);
                socket.async_io(Interest::WRITABLE, send).await?;
            }
            _ => return Err(no_way_back()),
        }
        Ok(())
    }

    /// An IPv4 address as an IPv6 socket needs it.
    fn reachable(&self, address: SocketAddr) -> SocketAddr {
        match (self.endpoint.socket_address(), address) {
            (Some(SocketAddr::V6(_)), SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => address,
        }
    }
}

/// The endpoint with the address that its socket got.
fn actual(endpoint: Endpoint, socket: &Socket) -> Endpoint {
    if endpoint
        .socket_address()
        .is_some_and(|address| address.port() > 0)
    {
        return endpoint;
    }
    match socket.local_addr() {
        Ok(address) => endpoint.at(&address),
        Err(_) => endpoint,
    }
}

/// The next connection that waits, if there is one, as the runtime needs it.
#[cfg(target_os = "linux")]
fn accept_nonblocking(socket: &Socket) -> io::Result<Option<(StdTcpStream, SocketAddr)>> {
    use rustix::io::Errno;
    use rustix::net::{SocketFlags, acceptfrom_with};
    // One system call for what takes three elsewhere.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match acceptfrom_with(socket, flags) {
        Ok((socket, address)) => {
            let address = address.and_then(|address| SocketAddr::try_from(address).ok());
            Ok(address.map(|address| (StdTcpStream::from(socket), address)))
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The next connection that waits, if there is one, as the runtime needs it.
#[cfg(not(target_os = "linux"))]
fn accept_nonblocking(socket: &Socket) -> io::Result<Option<(StdTcpStream, SocketAddr)>> {
    match socket.accept() {
        Ok((socket, address)) => {
            socket.set_nonblocking(true)?;
            Ok(address.as_socket().map(|address| (socket.into(), address)))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Binds to a path, in place of a socket that was left there, with the lock on
/// its directory held until the socket listens, so that whoever else wants the
/// name finds either none or one that answers.
fn bind_file(
    endpoint: &Endpoint,
    path: &std::path::Path,
    options: &EndpointOptions,
    directory: claim::Directory,
) -> Result<(Option<Claim>, Socket), BindProblem> {
    let _lock = directory.lock()?;
    directory.clear(path, endpoint.socket_type())?;
    let socket = new_socket(endpoint, options)?;
    // The kernel makes the file with these bits at most: nobody else gets in
    // before `chmod` has made them exact, which the umask may have cut.
    let mode = options.mode.map(Mode::from_raw_mode);
    if let Some(mode) = mode {
        rustix::fs::fchmod(&socket, mode).map_err(io::Error::from)?;
    }
    socket.bind(&address_of(endpoint)?)?;
    let claim = directory.claim(path)?;
    claim.give_to(mode, options.owner, options.group)?;
    listen(endpoint, &socket, options)?;
    Ok((Some(claim), socket))
}

fn bind_socket(endpoint: &Endpoint, options: &EndpointOptions) -> Result<Socket, BindProblem> {
    let socket = new_socket(endpoint, options)?;
    socket.bind(&address_of(endpoint)?)?;
    listen(endpoint, &socket, options)?;
    Ok(socket)
}

fn listen(endpoint: &Endpoint, socket: &Socket, options: &EndpointOptions) -> io::Result<()> {
    if endpoint.is_datagram() {
        return Ok(());
    }
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))
}

fn address_of(endpoint: &Endpoint) -> Result<socket2::SockAddr, BindProblem> {
    endpoint.to_socket_address().map_err(|_| {
        let name = endpoint.unix_name().map(UnixName::to_os_path);
        BindProblem::NameTooLong {
            bytes: name.map_or(0, |name| name.as_os_str().len()),
        }
    })
}

#[cfg(target_os = "linux")]
fn new_nonblocking(domain: Domain, of: Type) -> io::Result<Socket> {
    Socket::new(domain, of.nonblocking(), None)
}

#[cfg(not(target_os = "linux"))]
fn new_nonblocking(domain: Domain, of: Type) -> io::Result<Socket> {
    let socket = Socket::new(domain, of, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn new_socket(endpoint: &Endpoint, options: &EndpointOptions) -> io::Result<Socket> {
    let address = endpoint.socket_address();
    let domain = address.map_or(Domain::UNIX, Domain::for_address);
    let socket = new_nonblocking(domain, endpoint.socket_type())?;
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    let Some(address) = address else {
        return Ok(socket);
    };
    // For UDP the option would let another program of the same user share the port.
    if !endpoint.is_datagram() {
        socket.set_reuse_address(options.reuse_address)?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.only_v6)?;
    }
    if let Some(hops) = options.ttl {
        if address.is_ipv6() {
            socket.set_unicast_hops_v6(hops)?;
        }
        // What an endpoint for both families sends to IPv4 has that of IPv4.
        if address.is_ipv4() || !options.only_v6 {
            socket.set_ttl_v4(hops)?;
        }
    }
    Ok(socket)
}

/// An endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {endpoint}: {}", advice(.endpoint, .problem))]
pub struct BindError {
    /// What was to be bound.
    pub endpoint: Endpoint,
    /// Why it could not be.
    #[source]
    pub problem: BindProblem,
}

impl From<BindError> for io::Error {
    fn from(error: BindError) -> Self {
        let kind = match &error.problem {
            BindProblem::InUse => io::ErrorKind::AddrInUse,
            BindProblem::NoPermission | BindProblem::NotGiven => io::ErrorKind::PermissionDenied,
            BindProblem::NoSuchAddress => io::ErrorKind::AddrNotAvailable,
            BindProblem::NoSuchDirectory(_) => io::ErrorKind::NotFound,
            BindProblem::NotASocket => io::ErrorKind::AlreadyExists,
            BindProblem::NameTooLong { .. }
            | BindProblem::NotForStreams
            | BindProblem::NotForDatagrams => io::ErrorKind::InvalidInput,
            BindProblem::Locked(_) => io::ErrorKind::WouldBlock,
            BindProblem::System(error) => error.kind(),
        };
        Self::new(kind, error)
    }
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindProblem {
    /// Another program has it.
    #[error("in use")]
    InUse,
    /// The process may not.
    #[error("permission denied")]
    NoPermission,
    /// The process may not make another the owner of a Unix socket.
    #[error("it cannot be given to another user or group")]
    NotGiven,
    /// The machine does not have the IP address.
    #[error("no such address on this machine")]
    NoSuchAddress,
    /// The directory of a Unix socket is missing.
    #[error("no directory {}", .0.display())]
    NoSuchDirectory(PathBuf),
    /// Something that is no socket has the name, and stays.
    #[error("not a socket")]
    NotASocket,
    /// The name of a Unix socket does not fit into `sun_path`.
    #[error("the name is too long")]
    NameTooLong {
        /// What it has.
        bytes: usize,
    },
    /// Another program holds the lock on the directory of a Unix socket.
    #[error("the directory {} is locked", .0.display())]
    Locked(PathBuf),
    /// A listener was asked for on an endpoint for datagrams.
    #[error("for datagrams, not for streams")]
    NotForStreams,
    /// Datagrams were asked for on an endpoint for streams.
    #[error("for streams, not for datagrams")]
    NotForDatagrams,
    /// Anything else that the system says.
    #[error(transparent)]
    System(io::Error),
}

impl From<io::Error> for BindProblem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse,
            io::ErrorKind::PermissionDenied => Self::NoPermission,
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress,
            _ => Self::System(error),
        }
    }
}

/// What was wrong with the endpoint, and what helps.
fn advice(endpoint: &Endpoint, problem: &BindProblem) -> String {
    let file = matches!(endpoint.unix_name(), Some(UnixName::Path(_)));
    let text: &dyn fmt::Display = match problem {
        BindProblem::InUse if endpoint.socket_address().is_some() => {
            &"the port is in use by another program; stop it or choose another port"
        }
        BindProblem::InUse => {
            &"the name is in use by another program; stop it or choose another name"
        }
        BindProblem::NoPermission if file => {
            &"permission denied; the user of this program must be able to write to the directory"
        }
        BindProblem::NoPermission => {
            &"permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        }
        BindProblem::NotGiven => {
            &"the socket cannot be given to that user or group; it needs root or CAP_CHOWN"
        }
        BindProblem::NoSuchAddress => &"this machine does not have that address",
        BindProblem::NoSuchDirectory(directory) => {
            return format!(
                "the directory {} does not exist; make it",
                directory.display()
            );
        }
        BindProblem::NotASocket => {
            &"something that is no socket has that name; remove it or choose another name"
        }
        BindProblem::NameTooLong { bytes } => {
            return format!("the name has {bytes} bytes, and the system takes {MOST_NAME_BYTES}");
        }
        BindProblem::Locked(directory) => {
            return format!(
                "another program has held the lock on {} for {} seconds",
                directory.display(),
                claim::PATIENCE.as_secs()
            );
        }
        BindProblem::NotForStreams => &"it is for datagrams, and the server serves streams",
        BindProblem::NotForDatagrams => &"it is for streams, and the server serves datagrams",
        BindProblem::System(error) => error,
    };
    text.to_string()
}

/// `sun_path` of unix(7), without the NUL at its end.
const MOST_NAME_BYTES: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn bind(text: &str) -> Result<BoundEndpoint, BindError> {
        bind_with(text, EndpointOptions::default())
    }

    fn bind_with(text: &str, options: EndpointOptions) -> Result<BoundEndpoint, BindError> {
        BoundEndpoint::bind(text.parse().expect("an endpoint"), options)
    }

    fn problem(text: &str) -> (BindProblem, String) {
        let error = bind(text).expect_err(text);
        let shown = error.to_string();
        assert!(shown.starts_with(&format!("cannot listen on {text}: ")));
        (error.problem, shown)
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_the_endpoint_of_each_kind() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        for text in [
            "tcp:127.0.0.1:0".to_owned(),
            "udp:[::1]:0".to_owned(),
            format!("unix:{}", path.display()),
            format!("unixgram:{}.dgram", path.display()),
            format!("unix:@wharf-net-in-use-{}", std::process::id()),
        ] {
            let first = bind(&text).expect("free");
            let taken = first.endpoint().to_string();
            let (problem, shown) = problem(&taken);
            assert!(matches!(problem, BindProblem::InUse), "{shown}");
            assert!(shown.contains("is in use by another program"), "{shown}");
        }
    }

    #[test]
    fn what_cannot_be_bound_says_why() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| format!("unix:{}", directory.path().join(name).display());
        rustix_write(directory.path(), "file");

        let (why, shown) = problem(&at("file"));
        assert!(matches!(why, BindProblem::NotASocket), "{shown}");
        assert!(directory.path().join("file").is_file());

        let (why, shown) = problem(&at("missing/s"));
        assert!(matches!(why, BindProblem::NoSuchDirectory(_)), "{shown}");
        assert!(shown.contains("missing does not exist"), "{shown}");

        let (why, shown) = problem(&format!("unix:@{}", "n".repeat(200)));
        assert!(matches!(why, BindProblem::NameTooLong { bytes: 201 }));
        assert!(shown.contains("201 bytes"), "{shown}");

        // TEST-NET-1 (RFC 5737): nobody has these addresses.
        let (why, _) = problem("tcp:192.0.2.1:0");
        assert!(matches!(why, BindProblem::NoSuchAddress));
    }

    #[test]
    fn a_name_of_107_bytes_is_bound_and_one_of_108_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path().as_os_str().len() + 1;
        let named = |bytes: usize| {
            let name = "n".repeat(bytes - base);
            format!("unix:{}", directory.path().join(name).display())
        };
        bind(&named(107)).expect("fits");
        let (why, _) = problem(&named(108));
        assert!(matches!(why, BindProblem::NameTooLong { bytes: 108 }));
    }

    #[test]
    fn what_the_user_may_not_do_is_an_error_that_says_what_is_missing() {
        let directory = tempfile::tempdir().expect("a directory");
        rustix::fs::chmod(directory.path(), Mode::from_raw_mode(0o777)).expect("ours");
        let path = directory.path().join("s");
        let given = format!("unix:{}", path.display());
        unprivileged(|| {
            let (why, shown) = problem("unix:/s");
            assert!(matches!(why, BindProblem::NoPermission), "{shown}");
            assert!(shown.contains("able to write to the directory"), "{shown}");

            let to_root = EndpointOptions {
                owner: Some(0),
                ..EndpointOptions::default()
            };
            let error = bind_with(&given, to_root).expect_err("is not ours to give");
            assert!(matches!(error.problem, BindProblem::NotGiven), "{error}");
            let shown = error.to_string();
            assert!(shown.starts_with(&format!("cannot listen on {given}: ")));
            assert!(shown.contains("CAP_CHOWN"), "{shown}");

            if first_port_for_everyone() > 1 {
                let (why, shown) = problem("tcp:127.0.0.1:1");
                assert!(matches!(why, BindProblem::NoPermission), "{shown}");
                assert!(shown.contains("CAP_NET_BIND_SERVICE"), "{shown}");
            }
        });
        assert!(
            !path.exists(),
            "a socket that is not as asked for is removed"
        );
    }

    /// Runs `work` on a thread that is not root, whoever the others are.
    fn unprivileged(work: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if rustix::process::geteuid().is_root() {
                    let nobody = rustix::fs::Uid::from_raw(65534);
                    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
                }
                work();
            });
            thread.join().expect("no panic");
        });
    }

    #[expect(clippy::disallowed_methods, reason = "a setting of the kernel")]
    fn first_port_for_everyone() -> u16 {
        let setting = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        setting.map_or(1024, |text| text.trim().parse().expect("a port"))
    }

    #[test]
    fn a_stale_socket_is_replaced_and_the_file_goes_with_its_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        for kind in ["unix", "unixgram"] {
            // What a killed server leaves: a socket file that nobody has open.
            let text = format!("{kind}:{}", path.display());
            drop(StdUnixListener::bind(&path).expect("free"));
            assert!(path.exists());
            let bound = bind(&text).expect("stale, so it is replaced");
            drop(bound);
            assert!(!path.exists(), "removed at the end");
        }
    }

    #[test]
    fn a_live_socket_of_another_kind_is_not_stolen() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let _theirs = StdUnixDatagram::bind(&path).expect("free");
        let (why, _) = problem(&format!("unix:{}", path.display()));
        assert!(matches!(why, BindProblem::InUse));
    }

    #[test]
    fn a_socket_that_another_has_put_in_its_place_is_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let ours = bind(&format!("unix:{}", path.display())).expect("free");
        remove(directory.path(), "s");
        let _theirs = StdUnixListener::bind(&path).expect("free");
        drop(ours);
        assert!(path.exists());
    }

    #[test]
    fn of_many_that_replace_a_stale_socket_at_once_one_gets_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let text = format!("unix:{}", path.display());
        drop(StdUnixListener::bind(&path).expect("free"));
        let start = std::sync::Barrier::new(8);
        let bound: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        bind(&text)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
        // The one that is there answers.
        std::os::unix::net::UnixStream::connect(&path).expect("a live server");
    }

    #[test]
    fn a_unix_socket_has_the_mode_that_was_asked_for() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, mode) in [("private", 0o600), ("group", 0o660), ("all", 0o666)] {
            let path = directory.path().join(name);
            let options = EndpointOptions {
                mode: Some(mode),
                owner: Some(rustix::process::geteuid().as_raw()),
                group: Some(rustix::process::getegid().as_raw()),
                ..EndpointOptions::default()
            };
            let _bound = bind_with(&format!("unix:{}", path.display()), options).expect("free");
            let metadata = path.metadata().expect("there");
            assert!(metadata.file_type().is_socket());
            assert_eq!(metadata.permissions().mode() & 0o777, mode);
        }
    }

    #[test]
    fn two_sockets_share_a_port_only_where_both_ask_for_it() {
        let shared = EndpointOptions {
            reuse_port: true,
            ..EndpointOptions::default()
        };
        for kind in ["tcp", "udp"] {
            let first = bind_with(&format!("{kind}:127.0.0.1:0"), shared).expect("free");
            let taken = first.endpoint().to_string();
            bind_with(&taken, shared).expect("shared");
            let (why, _) = problem(&taken);
            assert!(matches!(why, BindProblem::InUse));
        }
    }

    #[test]
    fn options_reach_the_socket() {
        let options = EndpointOptions {
            receive_buffer_bytes: Some(32 * 1024),
            send_buffer_bytes: Some(48 * 1024),
            ttl: Some(7),
            ..EndpointOptions::default()
        };
        let bound = bind_with("tcp:127.0.0.1:0", options).expect("free");
        // Linux keeps twice what was asked for, socket(7).
        assert_eq!(bound.socket.recv_buffer_size().ok(), Some(64 * 1024));
        assert_eq!(bound.socket.send_buffer_size().ok(), Some(96 * 1024));
        assert_eq!(bound.socket.ttl_v4().ok(), Some(7));
        let bound = bind_with("udp:[::1]:0", options).expect("free");
        assert_eq!(bound.socket.unicast_hops_v6().ok(), Some(7));
    }

    #[test]
    fn an_endpoint_for_both_families_has_the_ttl_for_both() {
        let options = EndpointOptions {
            ttl: Some(7),
            ..EndpointOptions::default()
        };
        for text in ["tcp:[::]:0", "udp:[::]:0"] {
            let bound = bind_with(text, options).expect("free");
            assert_eq!(bound.socket.unicast_hops_v6().ok(), Some(7));
            assert_eq!(bound.socket.ttl_v4().ok(), Some(7));
        }
    }

    #[tokio::test]
    async fn an_endpoint_serves_what_its_kind_is_for() {
        let stream = bind("tcp:127.0.0.1:0").expect("free");
        let error = stream.datagram_socket().expect_err("for streams");
        assert!(matches!(error.problem, BindProblem::NotForDatagrams));
        let datagram = bind("udp:127.0.0.1:0").expect("free");
        let error = datagram.listener().expect_err("for datagrams");
        assert!(matches!(error.problem, BindProblem::NotForStreams));
    }

    #[tokio::test]
    async fn streams_of_both_families_tell_who_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        for text in [
            "tcp:[::]:0".to_owned(),
            format!("unix:{}", path.display()),
            format!("unix:@wharf-net-peer-{}", std::process::id()),
        ] {
            let listener = bind(&text).expect("free").listener().expect("a runtime");
            let mut target = listener.endpoint().clone();
            if let Endpoint::Tcp(address) = &mut target {
                address.set_ip([127, 0, 0, 1].into());
            }
            let (client, accepted) = tokio::join!(Stream::connect(&target), listener.accept());
            let (mut server, peer) = accepted.expect("accepts");
            match peer {
                Peer::Ip(address) => assert_eq!(address.ip().to_string(), "127.0.0.1"),
                Peer::Unix(peer) => {
                    let credentials = peer.credentials.expect("the kernel knows");
                    assert_eq!(credentials.uid, rustix::process::geteuid().as_raw());
                    let own = i32::try_from(std::process::id()).ok();
                    assert_eq!(credentials.pid, own);
                }
            }
            client
                .expect("connects")
                .write_all(b"x")
                .await
                .expect("writes");
            assert_eq!(server.read_u8().await.expect("reads"), b'x');
        }
    }

    #[tokio::test]
    async fn datagrams_find_their_way_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| format!("unixgram:{}", directory.path().join(name).display());
        let abstract_name =
            |name: &str| format!("unixgram:@wharf-net-{name}-{}", std::process::id());
        let pairs = [
            ("udp:[::]:0".to_owned(), "udp:127.0.0.1:0".to_owned()),
            (at("server"), at("client")),
            (abstract_name("server"), abstract_name("client")),
        ];
        for (server, client) in pairs {
            let [server, client] =
                [server, client].map(|text| bind(&text).expect("free").datagram_socket());
            let (server, client) = (server.expect("a runtime"), client.expect("a runtime"));
            let target = match server.endpoint() {
                Endpoint::Udp(address) => {
                    Peer::Ip(SocketAddr::new([127, 0, 0, 1].into(), address.port()))
                }
                endpoint => Peer::at(endpoint),
            };
            client.send(b"question", &target).await.expect("sends");
            let mut buffer = [0; 64];
            let (length, peer) = server.receive(&mut buffer).await.expect("receives");
            assert_eq!(&buffer[..length], b"question");
            server.send(b"answer", &peer).await.expect("sends");
            let (length, _) = client.receive(&mut buffer).await.expect("receives");
            assert_eq!(&buffer[..length], b"answer");
        }
    }

    fn rustix_write(directory: &std::path::Path, name: &str) {
        use rustix::fs::{CWD, OFlags};
        let flags = OFlags::CREATE | OFlags::WRONLY;
        rustix::fs::openat(CWD, directory.join(name), flags, Mode::RUSR).expect("made");
    }

    fn remove(directory: &std::path::Path, name: &str) {
        let path = directory.join(name);
        rustix::fs::unlinkat(rustix::fs::CWD, path, rustix::fs::AtFlags::empty()).expect("removed");
    }

    #[tokio::test]
    async fn a_connection_that_is_there_is_accepted_at_once_and_none_is_waited_for() {
        let bound = bind("tcp:127.0.0.1:0").expect("a port");
        let address = bound.endpoint().socket_address().expect("of TCP");
        assert!(bound.accept_at_once().expect("asked").is_none());
        let client = tokio::net::TcpStream::connect(address).await;
        let mut client = client.expect("connects");
        let (mut stream, peer) = bound.accept_at_once().expect("asked").expect("there");
        assert!(matches!(stream, Stream::Fresh(_)));
        assert_eq!(peer.ip(), Some(client.local_addr().expect("one").ip()));
        client.write_all(b"x").await.expect("sent");
        assert_eq!(stream.read_u8().await.expect("came"), b'x');
        assert!(stream.as_plain_socket().is_some(), "watched by now");

        let client = tokio::net::TcpStream::connect(address).await;
        let mut client = client.expect("connects");
        let (mut stream, _) = bound.accept_at_once().expect("asked").expect("there");
        stream.shutdown().await.expect("open");
        assert!(matches!(stream, Stream::Fresh(_)), "nobody had to wait");
        assert_eq!(client.read(&mut [0]).await.expect("ended"), 0);
    }
}
