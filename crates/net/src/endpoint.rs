//! Where a server listens: an address, its socket options, and the listener made of both.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// An address that a server can listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP over IPv4 or IPv6; port 0 lets the system choose.
    Tcp(SocketAddr),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// Socket options of a listener.
#[derive(Debug, Clone, Copy)]
pub struct EndpointOptions {
    /// Connections that the kernel completes before the server accepts them.
    pub backlog: u32,
    /// Whether a port whose last connections are in TIME_WAIT can be bound again.
    pub reuse_address: bool,
    /// Whether an IPv6 endpoint leaves IPv4 alone; off, `[::]` serves both.
    pub only_v6: bool,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            // The kernel cuts it down to net.core.somaxconn.
            backlog: 4096,
            reuse_address: true,
            only_v6: false,
        }
    }
}

/// A bound, listening endpoint that no runtime watches yet: connections wait in
/// the kernel. A server that gives up privileges makes it before that, and
/// before it has threads.
#[derive(Debug)]
pub struct BoundEndpoint {
    socket: std::net::TcpListener,
    endpoint: Endpoint,
}

impl BoundEndpoint {
    /// Binds and listens.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint.
    pub fn bind(endpoint: Endpoint, options: EndpointOptions) -> Result<Self, BindError> {
        let Endpoint::Tcp(address) = endpoint;
        match bind_tcp(address, options) {
            Ok(socket) => Ok(Self { socket, endpoint }),
            Err(source) => Err(BindError { endpoint, source }),
        }
    }

    /// Has the runtime within which this is called watch it.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint.
    pub fn listener(self) -> Result<Listener, BindError> {
        let Self { socket, endpoint } = self;
        let watch = || {
            let socket = TcpListener::from_std(socket)?;
            let address = socket.local_addr()?;
            Ok(Listener { socket, address })
        };
        watch().map_err(|source| BindError { endpoint, source })
    }
}

/// A bound, listening endpoint.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds and listens. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], which names the endpoint.
    pub fn bind(endpoint: Endpoint, options: EndpointOptions) -> Result<Self, BindError> {
        BoundEndpoint::bind(endpoint, options)?.listener()
    }

    /// The address in use; its port is the real one where 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// What `accept(2)` reports; some of it concerns a single peer, some passes.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept().await
    }
}

fn bind_tcp(address: SocketAddr, options: EndpointOptions) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    // On Windows the option means that another process may steal the port.
    if cfg!(unix) {
        socket.set_reuse_address(options.reuse_address)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.only_v6)?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {endpoint}: {}", explain(.source))]
pub struct BindError {
    /// What was to be bound.
    pub endpoint: Endpoint,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use by another program; stop it or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_the_endpoint() {
        let any = Endpoint::Tcp("127.0.0.1:0".parse().expect("an address"));
        let first = Listener::bind(any, EndpointOptions::default()).expect("a free port");
        let taken = Endpoint::Tcp(first.local_address());
        let error = Listener::bind(taken, EndpointOptions::default()).expect_err("taken");
        let text = error.to_string();
        assert!(text.contains(&first.local_address().to_string()), "{text}");
        assert!(text.contains("in use"), "{text}");
    }
}
