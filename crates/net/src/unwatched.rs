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
    /// For as long as [`Unwatched::take`] was told.
    Some,
    /// Not at all.
    None,
}

impl Unwatched {
    /// Whether `stream` can be taken: it is TCP, with TLS on it or without.
    pub fn is_for(stream: &Stream) -> bool {
        matches!(stream.bottom(), Stream::Tcp(_))
    }

    /// Takes what `stream` is, and leaves [`Stream::Detached`]; `None` where [`Unwatched::is_for`]
    /// says no, and `stream` stays as it is. Reads wait for `longest` at most.
    ///
    /// # Errors
    /// What the system says; the connection is closed then.
    pub fn take(stream: &mut Stream, longest: Duration) -> io::Result<Option<Self>> {
        let bottom = stream.bottom_mut();
        match std::mem::replace(bottom, Stream::Detached) {
            Stream::Tcp(socket) => {
                let socket = socket.into_std()?;
                socket.set_read_timeout(Some(longest))?;
                socket.set_nonblocking(false)?;
                let patience = Patience::Some;
                *bottom = Stream::Unwatched(UnwatchedSocket { socket, patience });
                Ok(Some(Self(std::mem::replace(stream, Stream::Detached))))
            }
            other => {
                *bottom = other;
                Ok(None)
            }
        }
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

    /// Another handle to the socket, below TLS where there is some.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn socket(&mut self) -> io::Result<TcpStream> {
        match self.0.bottom_mut() {
            Stream::Unwatched(bottom) => bottom.socket.try_clone(),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads what is there, decrypted; none at the end.
    ///
    /// # Errors
    /// `WouldBlock` where nothing came; otherwise what the stream says.
    pub fn read(&mut self, buffer: &mut [u8], patience: Patience) -> io::Result<usize> {
        if let Stream::Unwatched(bottom) = self.0.bottom_mut() {
            bottom.patience = patience;
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
    patience: Patience,
}

impl UnwatchedSocket {
    /// Adds what came to `buffer`, up to its capacity.
    pub(crate) fn read_ahead(&self, buffer: &mut Vec<u8>) -> Poll<io::Result<()>> {
        ready_unless_blocked(|| {
            let space = rustix::buffer::spare_capacity(buffer);
            recv(&self.socket, space, self.flags()).map(drop)
        })
    }

    pub(crate) fn poll_read(&self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready_unless_blocked(|| {
            let space = buffer.initialize_unfilled();
            let (length, _) = recv(&self.socket, space, self.flags())?;
            buffer.advance(length);
            Ok(())
        })
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

    fn flags(&self) -> RecvFlags {
        match self.patience {
            Patience::Some => RecvFlags::empty(),
            Patience::None => RecvFlags::DONTWAIT,
        }
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
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn what_is_no_tcp_stays_as_it_is() {
        let (mut ours, _theirs) = tokio::io::duplex(64);
        ours.write_all(b"before").await.expect("room");
        let mut stream = Stream::from(ours);
        assert!(!Unwatched::is_for(&stream));
        let taken = Unwatched::take(&mut stream, Duration::ZERO).expect("nothing fails");
        assert!(taken.is_none());
        stream.write_all(b"after").await.expect("room");
    }
}
