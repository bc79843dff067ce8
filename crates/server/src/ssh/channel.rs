//! A session channel, as what runs on it sees it (RFC 4254 §6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use russh::ChannelWriteHalf;
use russh::server::Msg;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub use super::input::Stdin;
use super::wire::StallTimer;
use crate::activity::Activity;
use crate::process::TerminalSize;
use crate::registry::Transfers;
use crate::transfer::Progress;

/// What something that runs on a channel works with.
pub struct SessionChannel {
    /// What the peer sends. An end is what the peer meant as one; a peer that goes away is an error.
    pub stdin: Stdin,
    /// What is at work for the peer, which is not idle then.
    pub activity: Activity,
    /// What the peer gets. A write waits until the peer takes it.
    pub stdout: Output,
    /// What the peer gets as errors (RFC 4254 §5.2).
    pub stderr: Output,
    /// What the peer asked to have set, of what may be: LANG, LC_* and TERM.
    pub environment: Vec<(String, String)>,
    /// The peer's terminal, if it has one.
    pub terminal: Option<Terminal>,
    /// Names of signals that the peer sends, without SIG, such as `INT`.
    pub signals: mpsc::Receiver<String>,
    /// Where files that are moved are listed.
    pub transfers: Transfers,
    /// The peer has closed the channel or is gone. What runs gets a few
    /// seconds to end, and is dropped then.
    pub closed: CancellationToken,
}

/// A peer's terminal.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// Its kind, for TERM.
    pub kind: String,
    /// Its size now; changes as the peer's window does.
    pub size: watch::Receiver<TerminalSize>,
    /// Its modes: opcodes and values of RFC 4254 §8.
    pub modes: Vec<(u8, u32)>,
}

/// How something that ran on a channel has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status; 0 for success.
    Status(u32),
    /// By a signal, named without SIG.
    Signal {
        /// Its name, such as `KILL`.
        name: String,
        /// Whether there is a core dump.
        core_dumped: bool,
        /// What to tell the peer.
        message: String,
    },
}

/// One of the outputs of a channel.
pub struct Output {
    sink: Sink,
    below: Pin<Box<dyn AsyncWrite + Send>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    stall: StallTimer,
}

/// Where an output leads, and when it is given up.
#[derive(Clone)]
pub(super) struct Sink {
    pub(super) write: Arc<ChannelWriteHalf<Msg>>,
    /// The kind of extended data, if it is one (RFC 4254 §5.2).
    pub(super) extended: Option<u32>,
    pub(super) closed: CancellationToken,
    /// How long the peer may take nothing.
    pub(super) patience: Duration,
    pub(super) activity: Activity,
    /// Counts what goes over the channel, whichever way.
    pub(super) moved: Arc<Progress>,
}

impl Output {
    pub(super) fn new(sink: Sink) -> Self {
        Self {
            below: Box::pin(sink.write.make_writer_ext(sink.extended)),
            closed: Box::pin(sink.closed.clone().cancelled_owned()),
            stall: StallTimer::new(sink.patience),
            sink,
        }
    }

    /// Another output to the same place.
    pub(super) fn another(&self) -> Self {
        Self::new(self.sink.clone())
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let polled = this.below.as_mut().poll_write(cx, buf);
        if let Poll::Ready(result) = &polled {
            this.sink.activity.note();
            let written = result.as_ref().copied().unwrap_or(0);
            this.sink.moved.add(u64::try_from(written).unwrap_or(0));
        }
        this.stall.watch(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().below.as_mut().poll_flush(cx)
    }

    /// The end is told when what runs has ended, for both outputs.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
