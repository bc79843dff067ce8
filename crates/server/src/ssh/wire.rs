//! The byte stream under a session: it can be cut from outside, it gives a peer
//! up that takes nothing, and it is read through a gate.
//!
//! russh runs a session as a task of its own, which nothing but its stream can
//! end; whoever drops the [`Cutter`] ends it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use wharf_net::Stream;

use super::input::Gate;

/// A stream that ends when its [`Cutter`] is dropped.
pub(super) struct Wire {
    stream: Stream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    stall: StallTimer,
    gate: Gate,
}

/// Cuts a wire when it is dropped.
pub(super) struct Cutter {
    token: CancellationToken,
    _guard: DropGuard,
}

impl Cutter {
    /// Cancelled together with the wire.
    pub(super) fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl Wire {
    /// `stream`, read through `gate`, and given up when a write waits longer than `stall`.
    pub(super) fn new(stream: Stream, stall: Duration, gate: Gate) -> (Self, Cutter) {
        let token = CancellationToken::new();
        let wire = Self {
            stream,
            cut: Box::pin(token.clone().cancelled_owned()),
            stall: StallTimer::new(stall),
            gate,
        };
        let cutter = Cutter {
            token: token.clone(),
            _guard: token.drop_guard(),
        };
        (wire, cutter)
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        ready!(this.gate.poll_open(cx));
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.stall.watch(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.stall.watch(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.stall.watch(cx, polled)
    }
}

/// Makes an error of a write that waits too long.
pub(super) struct StallTimer {
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl StallTimer {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            waiting: None,
        }
    }

    /// Hands on what a write came to, or an error where it has come to nothing for too long.
    pub(super) fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::Backlog;
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    const STALL: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_after_the_stall_timeout() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let (mut wire, _cutter) = Wire::new(ours.into(), STALL, Backlog::default().gate());
        let started = Instant::now();
        let error = wire.write_all(&[0; 9]).await.expect_err("stalls");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), STALL);
        // One that takes a little now and then is not.
        theirs.read_exact(&mut [0; 8]).await.expect("reads");
        let writing = tokio::spawn(async move { wire.write_all(&[0; 24]).await });
        for _ in 0..3 {
            tokio::time::sleep(STALL - Duration::from_secs(1)).await;
            theirs.read_exact(&mut [0; 8]).await.expect("reads");
        }
        assert!(writing.await.expect("no panic").is_ok());
    }

    #[tokio::test]
    async fn a_wire_ends_with_its_cutter() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let (mut wire, cutter) = Wire::new(ours.into(), STALL, Backlog::default().gate());
        let reading = tokio::spawn(async move { wire.read(&mut [0]).await });
        drop(cutter);
        let error = reading.await.expect("no panic").expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
