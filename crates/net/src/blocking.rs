//! Services written with plain, blocking sockets, a thread each.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::{
    Connection, Drain, Endpoint, Failure, Peer, Refused, ServiceError, Stream, StreamService,
};

/// A connected socket of the standard library.
#[derive(Debug)]
pub enum BlockingStream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl BlockingStream {
    /// Another handle to the same socket.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => Ok(Self::Tcp(socket.try_clone()?)),
            Self::Unix(socket) => Ok(Self::Unix(socket.try_clone()?)),
        }
    }

    /// Ends the reading half, the writing half, or both, of every handle to the socket.
    ///
    /// # Errors
    /// What the system says, such as that the peer is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(how),
            Self::Unix(socket) => socket.shutdown(how),
        }
    }
}

impl Read for BlockingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for BlockingStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(buffer),
            Self::Unix(socket) => socket.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<BlockingStream> for OwnedFd {
    fn from(stream: BlockingStream) -> Self {
        match stream {
            BlockingStream::Tcp(socket) => socket.into(),
            BlockingStream::Unix(socket) => socket.into(),
        }
    }
}

impl Stream {
    /// The socket, for blocking use; TLS and pipes within the process have none.
    ///
    /// # Errors
    /// What the system says, and `Unsupported` where there is no plain socket.
    pub fn into_blocking(self) -> io::Result<BlockingStream> {
        match self {
            Self::Tcp(socket) => {
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                Ok(BlockingStream::Tcp(socket))
            }
            Self::Unix(socket) => {
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                Ok(BlockingStream::Unix(socket))
            }
            Self::Tls(_) | Self::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// One admitted connection of a service that blocks.
#[derive(Debug)]
pub struct BlockingConnection {
    /// The bytes. Reading and writing end when the connection is cut.
    pub stream: BlockingStream,
    /// The other end; behind a proxy, the one that the proxy announced.
    pub peer: Peer,
    /// This end.
    pub local: Endpoint,
    /// The server's end: a service asks it now and then.
    pub drain: Drain,
}

/// Serves stream connections with blocking calls, on a thread each.
pub trait BlockingService: Send + Sync + 'static {
    /// Serves one connection to its end. When it is cut, its socket is shut
    /// down, so that whatever waits for the socket ends.
    ///
    /// # Errors
    /// Any; it ends this connection only.
    fn serve(&self, connection: BlockingConnection) -> Result<(), ServiceError>;

    /// Hears how the service of a peer failed; by default it goes to the log.
    fn failed(&self, peer: &Peer, failure: &Failure) {
        failure.log(peer);
    }
}

/// Makes a [`StreamService`] of a service that blocks. It brings a thread a
/// connection with it, as many as the server admits: [`Concurrency::Tasks`](crate::Concurrency::Tasks)
/// is the model to choose, or `Serial`.
#[derive(Debug)]
pub struct Blocking<S>(pub Arc<S>);

impl<S: BlockingService> StreamService for Blocking<S> {
    async fn serve(self: Arc<Self>, connection: Connection) -> Result<(), ServiceError> {
        let Connection {
            stream,
            peer,
            local,
            drain,
            slot,
            ..
        } = connection;
        // Counted until its end.
        let _slot = slot;
        let stream = stream.into_blocking()?;
        let mut cut = ShutDownOnDrop(Some(stream.try_clone()?));
        let connection = BlockingConnection {
            stream,
            peer,
            local,
            drain,
        };
        let service = Arc::clone(&self.0);
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new()
            .name("wharf-net".to_owned())
            .spawn(move || {
                let end = catch_unwind(AssertUnwindSafe(|| service.serve(connection)));
                let _ = ended.send(end);
            })?;
        let end = end.await?;
        cut.0 = None;
        match end {
            Ok(end) => end,
            // The server tells it as it does any panic.
            Err(panic) => resume_unwind(panic),
        }
    }

    async fn refuse(&self, stream: Stream, reason: Refused) {
        let _ = (stream, reason);
    }

    fn failed(&self, peer: &Peer, failure: &Failure) {
        self.0.failed(peer, failure);
    }
}

/// Ends what waits for a socket, if it is dropped early.
struct ShutDownOnDrop(Option<BlockingStream>);

impl Drop for ShutDownOnDrop {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndpointOptions, Listener, Server};
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Echo {
        ended: mpsc::Sender<usize>,
        failures: mpsc::Sender<String>,
    }

    impl BlockingService for Echo {
        fn serve(&self, mut connection: BlockingConnection) -> Result<(), ServiceError> {
            let mut buffer = [0; 64];
            loop {
                let length = connection.stream.read(&mut buffer)?;
                assert!(!buffer.starts_with(b"panic"), "asked to");
                if length == 0 {
                    self.ended.send(length)?;
                    return Ok(());
                }
                connection.stream.write_all(&buffer[..length])?;
            }
        }

        fn failed(&self, _peer: &Peer, failure: &Failure) {
            self.failures.send(failure.to_string()).expect("is awaited");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_that_blocks_serves_fails_and_is_cut() {
        for endpoint in ["tcp:127.0.0.1:0", "unix:@wharf-net-blocking"] {
            let (ended, ends) = mpsc::channel();
            let (failures, failed) = mpsc::channel();
            let server = Server::new(Arc::new(Blocking(Arc::new(Echo { ended, failures }))));
            let endpoint = endpoint.parse().expect("an endpoint");
            let listener = Listener::bind(endpoint, EndpointOptions::default()).expect("free");
            let target = listener.endpoint().clone();
            let drain = server.drain();
            tokio::spawn(server.serve(listener));

            let mut panicking = Stream::connect(&target).await.expect("connects");
            panicking.write_all(b"panic").await.expect("writes");
            assert_eq!(panicking.read(&mut [0]).await.ok(), Some(0));
            let patience = Duration::from_secs(60);
            let failure = failed.recv_timeout(patience).expect("is told");
            assert_eq!(failure, "the service panicked: asked to");

            let mut staying = Stream::connect(&target).await.expect("connects");
            staying.write_all(b"x").await.expect("writes");
            assert_eq!(staying.read_u8().await.expect("is echoed"), b'x');
            let report = drain.finish(Duration::ZERO).await;
            assert_eq!(report.peers.len(), 1);
            // Its thread waited for the socket, and waits no more.
            ends.recv_timeout(patience).expect("ends");
        }
    }
}
