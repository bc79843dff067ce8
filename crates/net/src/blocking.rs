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
            Self::Tcp(socket) => Self::Fresh(socket.into_std()?).into_blocking(),
            Self::Fresh(socket) => {
                socket.set_nonblocking(false)?;
                Ok(BlockingStream::Tcp(socket))
            }
            Self::Unix(socket) => {
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                Ok(BlockingStream::Unix(socket))
            }
            Self::Tls(_) | Self::Memory(_) | Self::Unwatched(_) | Self::Detached => {
                Err(io::ErrorKind::Unsupported.into())
            }
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

    /// Tells a peer that it is not served. Its socket is shut down after a
    /// second. By default the peer is told nothing.
    fn refuse(&self, stream: BlockingStream, reason: Refused) {
        let _ = (stream, reason);
    }

    /// Hears how the service of a peer failed; by default it goes to the log.
    fn failed(&self, peer: &Peer, failure: &Failure) {
        failure.log(peer);
    }
}

/// Makes a [`StreamService`] of a service that blocks. It brings a thread a
/// connection with it, as many as the server admits: a connection that is cut
/// keeps its place in the limits until its thread has ended. [`Concurrency::Tasks`](crate::Concurrency::Tasks)
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
        let stream = stream.into_blocking()?;
        let mut cut = ShutDownOnDrop(Some(stream.try_clone()?));
        let connection = BlockingConnection {
            stream,
            peer,
            local,
            drain,
        };
        let service = Arc::clone(&self.0);
        let end = on_thread(move || {
            // Counted until the thread's end, which a cut only asks for.
            let _slot = slot;
            catch_unwind(AssertUnwindSafe(|| service.serve(connection)))
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
        let Ok(stream) = stream.into_blocking() else {
            return;
        };
        let Ok(handle) = stream.try_clone() else {
            return;
        };
        let _cut = ShutDownOnDrop(Some(handle));
        let service = Arc::clone(&self.0);
        match on_thread(move || service.refuse(stream, reason)) {
            Ok(end) => {
                let _ = end.await;
            }
            Err(error) => tracing::error!(%error, "no thread could be started to refuse a peer"),
        }
    }

    fn failed(&self, peer: &Peer, failure: &Failure) {
        self.0.failed(peer, failure);
    }
}

/// What `work` returns, from a thread of its own; an error where it panics.
fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("wharf-net".to_owned())
        .spawn(move || {
            let _ = ended.send(work());
        })?;
    Ok(end)
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
    use crate::{ConnectionLimits, ConnectionSlots, EndpointOptions, Listener, Server};
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

    /// Waits for something else than its socket.
    struct Busy {
        begun: tokio::sync::mpsc::UnboundedSender<()>,
        ends: std::sync::Mutex<mpsc::Receiver<()>>,
    }

    impl BlockingService for Busy {
        fn serve(&self, _: BlockingConnection) -> Result<(), ServiceError> {
            self.begun.send(())?;
            Ok(self.ends.lock().expect("no panic").recv()?)
        }

        fn refuse(&self, mut stream: BlockingStream, reason: Refused) {
            let _ = stream.write_all(format!("{reason:?}").as_bytes());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_place_is_free_when_its_thread_has_ended_and_who_finds_none_is_told() {
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (end, ends) = mpsc::channel();
        let ends = ends.into();
        let limits = ConnectionLimits::everyone(1);
        let server = Server::new(Arc::new(Blocking(Arc::new(Busy { begun, ends }))))
            .with_slots(ConnectionSlots::new(limits))
            .with_deadline(Duration::from_millis(1));
        let slots = server.slots();
        let endpoint = "tcp:127.0.0.1:0".parse().expect("an endpoint");
        let listener = Listener::bind(endpoint, EndpointOptions::default()).expect("free");
        let target = listener.endpoint().clone();
        tokio::spawn(server.serve(listener));

        let told = async || {
            let mut stream = Stream::connect(&target).await.expect("connects");
            let mut told = String::new();
            stream.read_to_string(&mut told).await.expect("reads");
            told
        };
        // Its end is that of the deadline, and the thread waits on.
        assert_eq!(told().await, "");
        begins.recv().await.expect("serves");
        assert_eq!(slots.total(), 1);
        assert_eq!(told().await, "Limit(Total)");
        end.send(()).expect("is awaited");
        while slots.total() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(told().await, "");
        begins.recv().await.expect("serves");
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
