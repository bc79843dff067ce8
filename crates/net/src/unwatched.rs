//! TCP connections that the runtime does not watch, for threads that block in calls on them.
//!
//! The runtime is woken by each packet that comes for a socket it watches, also while whoever reads
//! is far from having read what came before.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, ReadBuf};

use crate::Stream;

/// A TCP connection, with TLS on it or without, that the runtime has given up.
#[derive(Debug)]
pub struct Unwatched(Stream);

/// Whether a read waits where nothing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Once, for as long as [`Unwatched::take`] was told.
    Some,
    /// Not at all.
    None,
}

/// Most calls that one read makes. TLS asks for more until it has content, or as much of it as
/// is wanted, and a peer can send for ever what is none.
const MOST_CALLS: usize = 16;

impl Unwatched {
    /// Takes what `stream` is, and leaves [`Stream::Detached`]; `None` where it is not TCP, with
    /// TLS on it or without, and stays as it is. A read waits for `longest` at most.
    ///
    /// # Errors
    /// What the system says; the connection is closed then.
    pub fn take(stream: &mut Stream, longest: Duration) -> io::Result<Option<Self>> {
        let bottom = stream.bottom_mut();
        let socket = match std::mem::replace(bottom, Stream::Detached) {
            Stream::Tcp(socket) => socket.into_std()?,
            Stream::Fresh(socket) => socket,
            other => {
                *bottom = other;
                return Ok(None);
            }
        };
        socket.set_read_timeout(Some(longest))?;
        socket.set_nonblocking(false)?;
        *bottom = Stream::Unwatched(UnwatchedSocket {
            socket,
            patience: Patience::None,
            calls_left: 0,
        });
        Ok(Some(Self(std::mem::replace(stream, Stream::Detached))))
    }

    /// Has the runtime watch the connection again.
    ///
    /// # Errors
    /// What the system says; the connection is closed then.
    pub fn watch(mut self) -> io::Result<Stream> {
        let bottom = self.0.bottom_mut();
        let taken = std::mem::replace(bottom, Stream::Detached);
        if let Stream::Unwatched(UnwatchedSocket { socket, .. }) = taken {
            socket.set_read_timeout(None)?;
            socket.set_nonblocking(true)?;
            *bottom = tokio::net::TcpStream::from_std(socket)?.into();
        }
        Ok(self.0)
    }

    /// Another handle to the socket of a stream that can be taken, below TLS where there is some.
    ///
    /// # Errors
    /// The process has no descriptor left; `Unsupported` for a stream that cannot be taken.
    pub fn handle(stream: &Stream) -> io::Result<TcpStream> {
        let socket = stream.bottom().as_plain_descriptor();
        let socket = socket.ok_or(io::ErrorKind::Unsupported)?;
        Ok(socket.try_clone_to_owned()?.into())
    }

    /// Reads what is there, decrypted; none at the end. However a peer sends, it waits once, and
    /// takes no more than a megabyte off the system.
    ///
    /// # Errors
    /// `WouldBlock` where no content came; otherwise what the stream says.
    pub fn read(&mut self, buffer: &mut [u8], patience: Patience) -> io::Result<usize> {
        if let Stream::Unwatched(bottom) = self.0.bottom_mut() {
            (bottom.patience, bottom.calls_left) = (patience, MOST_CALLS);
        }
        let mut buffer = ReadBuf::new(buffer);
        // Whoever calls is there already when something comes.
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.0).poll_read(&mut context, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// The socket of [`Unwatched`]. Where its calls say that they would block, nobody is woken later.
#[derive(Debug)]
pub struct UnwatchedSocket {
    socket: TcpStream,
    /// Of the next call.
    patience: Patience,
    /// How many are made before a new read begins.
    calls_left: usize,
}

impl UnwatchedSocket {
    /// Adds what came to `buffer`, up to its capacity.
    pub(crate) fn read_ahead(&mut self, buffer: &mut Vec<u8>) -> Poll<io::Result<()>> {
        self.receive(|socket, flags| {
            let space = rustix::buffer::spare_capacity(buffer);
            recv(socket, space, flags).map(drop)
        })
    }

    pub(crate) fn poll_read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.receive(|socket, flags| {
            let space = buffer.initialize_unfilled();
            let (length, _) = recv(socket, space, flags)?;
            buffer.advance(length);
            Ok(())
        })
    }

    /// Makes the call, if there is one left, and spends the patience.
    fn receive(
        &mut self,
        mut call: impl FnMut(&TcpStream, RecvFlags) -> Result<(), Errno>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.calls_left.checked_sub(1) else {
            return Poll::Pending;
        };
        self.calls_left = left;
        let flags = match std::mem::replace(&mut self.patience, Patience::None) {
            Patience::Some => RecvFlags::empty(),
            Patience::None => RecvFlags::DONTWAIT,
        };
        ready_unless_blocked(|| call(&self.socket, flags))
    }

    pub(crate) fn poll_write(&self, content: &[u8]) -> Poll<io::Result<usize>> {
        ready_unless_blocked(|| {
            send(
                &self.socket,
                content,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )
        })
    }

    pub(crate) fn poll_shutdown(&self) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
    }
}

fn ready_unless_blocked<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Poll::Pending,
            result => return Poll::Ready(result.map_err(io::Error::from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn a_read_waits_once_and_makes_so_many_calls_whatever_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound"));
        let mut client = client.expect("connects");
        client.write_all(&[7; 2 * MOST_CALLS]).expect("sent");
        let (socket, _) = listener.accept().expect("accepts");
        socket.set_nonblocking(true).expect("set");
        let mut stream = tokio::net::TcpStream::from_std(socket)
            .expect("watched")
            .into();
        let taken = Unwatched::take(&mut stream, Duration::from_secs(60));
        let mut taken = taken.expect("nothing fails").expect("TCP");
        let mut byte = [0];
        assert_eq!(taken.read(&mut byte, Patience::Some).expect("there"), 1);
        let Stream::Unwatched(socket) = &mut taken.0 else {
            panic!("{taken:?}");
        };
        // As TLS would go on within that read.
        assert_eq!(socket.patience, Patience::None);
        let mut calls = 1;
        while socket.poll_read(&mut ReadBuf::new(&mut byte)).is_ready() {
            calls += 1;
        }
        assert_eq!(calls, MOST_CALLS);
        assert_eq!(taken.read(&mut byte, Patience::None).expect("there"), 1);
    }

    #[tokio::test]
    async fn what_is_no_tcp_stays_as_it_is() {
        let (mut ours, _theirs) = tokio::io::duplex(64);
        ours.write_all(b"before").await.expect("room");
        let mut stream = Stream::from(ours);
        let error = Unwatched::handle(&stream).expect_err("no socket");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        let taken = Unwatched::take(&mut stream, Duration::ZERO).expect("nothing fails");
        assert!(taken.is_none());
        stream.write_all(b"after").await.expect("room");
    }
}
