//! The one type of byte stream that services see.

use std::io::{self, IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::{Endpoint, TlsStream, UnwatchedSocket};

/// A connected byte stream, whatever carries it.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection without encryption.
    Tcp(TcpStream),
    /// The same before the runtime watches it: it does once somebody reads or writes, or asks for it
    /// ([`Stream::watch`]). Some connections end without ever having to wait.
    Fresh(StdTcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS on another stream. Boxed, so that a stream without it is no larger than its socket.
    Tls(Box<TlsStream>),
    /// A pipe within the process, for tests of services.
    Memory(DuplexStream),
    /// A TCP connection that the runtime does not watch, within [`Unwatched`](crate::Unwatched).
    Unwatched(UnwatchedSocket),
    /// What [`Unwatched::take`](crate::Unwatched::take) leaves: broken, so that nobody takes it for
    /// a stream that has ended.
    Detached,
}

impl Stream {
    /// Connects to an endpoint for streams.
    ///
    /// # Errors
    /// What the system says, with the endpoint; `InvalidInput` for an endpoint for datagrams.
    /// A Unix socket whose server has its queue full says `WouldBlock` at once.
    pub async fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let connected = match endpoint {
            Endpoint::Tcp(address) => TcpStream::connect(address).await.map(Self::from),
            Endpoint::Unix(name) => UnixStream::connect(name.to_os_path()).await.map(Self::from),
            Endpoint::Udp(_) | Endpoint::UnixDatagram(_) => {
                let text = "it is for datagrams";
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        };
        connected.map_err(|error| {
            let text = format!("cannot connect to {endpoint}: {error}");
            io::Error::new(error.kind(), text)
        })
    }

    /// The plain TCP socket below, where content may be handed to the kernel
    /// (`sendfile`, `splice`) without passing through this process. None while it is fresh.
    pub fn as_plain_socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Fresh(_)
            | Self::Unix(_)
            | Self::Tls(_)
            | Self::Memory(_)
            | Self::Unwatched(_)
            | Self::Detached => None,
        }
    }

    /// The plain TCP socket below, fresh or not, for calls that do not wait.
    pub fn as_plain_descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(socket) => Some(socket.as_fd()),
            Self::Fresh(socket) => Some(socket.as_fd()),
            Self::Unix(_)
            | Self::Tls(_)
            | Self::Memory(_)
            | Self::Unwatched(_)
            | Self::Detached => None,
        }
    }

    /// Has the runtime within which this is called watch a fresh stream from now on.
    ///
    /// # Errors
    /// The runtime cannot; the connection is closed then.
    pub fn watch(&mut self) -> io::Result<()> {
        if matches!(self, Self::Fresh(_))
            && let Self::Fresh(socket) = std::mem::replace(self, Self::Detached)
        {
            *self = Self::Tcp(TcpStream::from_std(socket)?);
        }
        Ok(())
    }

    /// A TCP socket, to be asked or told something.
    pub(crate) fn as_tcp(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Tcp(socket) => Some(SockRef::from(socket)),
            Self::Fresh(socket) => Some(SockRef::from(socket)),
            _ => None,
        }
    }

    /// What carries all else.
    pub(crate) fn bottom(&self) -> &Self {
        match self {
            Self::Tls(stream) => stream.below().bottom(),
            bottom => bottom,
        }
    }

    /// What carries all else.
    pub(crate) fn bottom_mut(&mut self) -> &mut Self {
        match self {
            Self::Tls(stream) => stream.below_mut().bottom_mut(),
            bottom => bottom,
        }
    }

    /// The encryption, if there is one.
    pub fn as_tls(&self) -> Option<&TlsStream> {
        match self {
            Self::Tls(stream) => Some(stream),
            Self::Tcp(_)
            | Self::Fresh(_)
            | Self::Unix(_)
            | Self::Memory(_)
            | Self::Unwatched(_)
            | Self::Detached => None,
        }
    }

    /// Sends small writes at once instead of gathering them (TCP_NODELAY).
    /// A stream that is no TCP connection has nothing to set.
    pub fn set_nodelay(&self) {
        if let Some(socket) = self.bottom().as_tcp() {
            // Failing only costs time, and only on a socket that is already broken.
            let _ = socket.set_tcp_nodelay(true);
        }
    }

    /// Sends full packets only, and the last one with the end of the stream (TCP_CORK). Until that is
    /// sent, what would be a smaller one waits, for 200 ms at most (tcp(7)).
    /// A stream that is no TCP connection has nothing to set.
    pub fn send_full_packets(&self) {
        #[cfg(target_os = "linux")]
        if let Some(socket) = self.bottom().as_tcp() {
            // Failing only costs time, and only on a socket that is already broken.
            let _ = socket.set_tcp_cork(true);
        }
    }

    /// Whether the peer sees a reset when the stream is dropped, even when the
    /// process is killed, or an end like any other (SO_LINGER with no time).
    /// A stream that is no TCP connection has nothing to set.
    pub fn set_reset_on_drop(&self, reset: bool) {
        if let Some(socket) = self.bottom().as_tcp() {
            let linger = reset.then_some(Duration::ZERO);
            // Failing leaves the ordinary end.
            let _ = socket.set_linger(linger);
        }
    }

    /// Reads what has come to a plain socket already; `None` where nothing has,
    /// and for every other stream.
    ///
    /// A read ends at the mark of urgent data even if more has come behind it.
    /// The runtime takes such a short read for the last one and waits for an
    /// arrival, which has passed. Whoever expects urgent data asks here before it waits.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at_once(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(socket) = self.as_tcp() else {
            return Ok(None);
        };
        match (&*socket).read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            read => read.map(Some),
        }
    }

    /// Whether the peer has ended a TCP connection, or it broke, and all that came was read: as the
    /// system knows it now, and the runtime may hear of it only later. `false` for other streams.
    pub fn is_over(&self) -> bool {
        let Some(socket) = self.as_tcp() else {
            return match self {
                Self::Tls(stream) => stream.is_over(),
                other => matches!(other, Self::Detached),
            };
        };
        let mut byte = [MaybeUninit::uninit()];
        match socket.peek(&mut byte) {
            Ok(length) => length == 0,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ),
        }
    }

    /// Has the kernel acknowledge what has come without waiting for something to send with it (TCP_QUICKACK).
    pub(crate) fn acknowledge_at_once(&self) {
        #[cfg(target_os = "linux")]
        if let Some(socket) = self.as_tcp() {
            let _ = socket.set_tcp_quickack(true);
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(socket)
    }
}

impl From<DuplexStream> for Stream {
    fn from(pipe: DuplexStream) -> Self {
        Self::Memory(pipe)
    }
}

/// An address with an IPv4-mapped IPv6 form written as IPv4, so that one peer
/// has one address; any other keeps its scope.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if let Err(error) = stream.watch() {
            return Poll::Ready(Err(error));
        }
        match stream {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unwatched(socket) => socket.poll_read(buf),
            Self::Fresh(_) | Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if let Err(error) = stream.watch() {
            return Poll::Ready(Err(error));
        }
        match stream {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unwatched(socket) => socket.poll_write(buf),
            Self::Fresh(_) | Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    // Without it TLS would hand each of its records to the system alone.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        if let Err(error) = stream.watch() {
            return Poll::Ready(Err(error));
        }
        match stream {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unwatched(socket) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                socket.poll_write(first.map_or(&[], |buf| buf))
            }
            Self::Fresh(_) | Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Memory(stream) => stream.is_write_vectored(),
            // It will be watched by then.
            Self::Fresh(_) => true,
            Self::Unwatched(_) | Self::Detached => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
            // What was written is the system's already.
            Self::Fresh(_) | Self::Unwatched(_) => Poll::Ready(Ok(())),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Fresh(socket) => Poll::Ready(match socket.shutdown(Shutdown::Write) {
                // The peer was faster; the runtime's own streams take it so, too.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                ended => ended,
            }),
            Self::Unwatched(socket) => socket.poll_shutdown(),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}
