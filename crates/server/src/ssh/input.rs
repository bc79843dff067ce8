//! What a peer has sent on its channels and nobody has read yet.
//!
//! russh opens a channel's window again as soon as data has come, not when it
//! was read. So the window says nothing about memory here; this does: once
//! [`Backlog::SLACK_BYTES`] wait on a connection, windows are opened by a packet
//! or two at a time, each after a pause, and at [`Backlog::MOST_BYTES`] nothing
//! is read from the connection until somebody reads. The pauses end, so that a
//! peer's word that it takes output again is heard between them: a program that
//! waits for it reads nothing either. Each is twice as long as the one before:
//! a program that hears that word soon reads on soon, and one that never reads
//! gets little more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Notify, mpsc};

use crate::transfer::Progress;

/// The window of a channel while all is read: 8 MiB are 80 MB/s over 100 ms.
pub(super) const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// The window while too much waits; two packets, since russh opens it again below its half.
const NARROW_WINDOW_BYTES: u32 = 2 * super::transport::PACKET_BYTES;

/// How many bytes wait to be read on all the channels of a connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    fewer: Notify,
}

impl Backlog {
    /// From here on windows stay narrow.
    const SLACK_BYTES: usize = 1024 * 1024;

    /// Nothing is read from the peer beyond this; what one full window per
    /// channel may bring before it is narrowed.
    const MOST_BYTES: usize = 32 * 1024 * 1024;

    /// How wide windows should be now.
    pub(super) fn window(&self, pace: &mut Pace) -> u32 {
        pace.is_narrow = self.bytes() >= Self::SLACK_BYTES;
        if pace.is_narrow {
            NARROW_WINDOW_BYTES
        } else {
            WINDOW_BYTES
        }
    }

    /// Waits before more is read from the peer: for a moment where much waits,
    /// until somebody has read where it is too much. Dropping the future is safe.
    pub(super) async fn hold_back(&self, pace: &mut Pace) {
        if std::mem::take(&mut pace.is_narrow) {
            let drained = tokio::time::timeout(pace.pause, self.below(Self::SLACK_BYTES)).await;
            pace.pause = match drained {
                Ok(()) => Pace::SHORTEST,
                Err(_) => Pace::LONGEST.min(pace.pause * 2),
            };
        }
        self.below(Self::MOST_BYTES).await;
    }

    async fn below(&self, bytes: usize) {
        loop {
            let fewer = self.0.fewer.notified();
            if self.bytes() < bytes {
                return;
            }
            fewer.await;
        }
    }

    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Acquire)
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn remove(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.0.fewer.notify_one();
    }
}

/// How fast a peer may send more than is read.
#[derive(Debug)]
pub(super) struct Pace {
    /// Whether windows were last opened by a packet or two only.
    is_narrow: bool,
    /// Before they are opened again.
    pause: Duration,
}

impl Pace {
    const SHORTEST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_secs(1);
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            is_narrow: false,
            pause: Self::SHORTEST,
        }
    }
}

enum Piece {
    Data(Bytes),
    End,
}

/// Both ends of a channel's standard input.
pub(super) fn pipe(backlog: &Backlog) -> (Feed, Stdin) {
    let (sender, pieces) = mpsc::unbounded_channel();
    let feed = Feed {
        sender,
        backlog: backlog.clone(),
    };
    let stdin = Stdin {
        pieces,
        current: Bytes::new(),
        ended: false,
        backlog: backlog.clone(),
        moved: Arc::default(),
    };
    (feed, stdin)
}

/// Takes what the peer sends. Dropped without [`Feed::end`], the input was cut.
#[derive(Debug)]
pub(super) struct Feed {
    // Bounded by the backlog, which counts bytes and not pieces.
    sender: mpsc::UnboundedSender<Piece>,
    backlog: Backlog,
}

impl Feed {
    /// Adds data; what nobody will read is dropped.
    pub(super) fn push(&self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.backlog.add(data.len());
        if self
            .sender
            .send(Piece::Data(Bytes::copy_from_slice(data)))
            .is_err()
        {
            self.backlog.remove(data.len());
        }
    }

    /// The peer has sent all there is.
    pub(super) fn end(&self) {
        let _ = self.sender.send(Piece::End);
    }
}

/// A channel's standard input: an error where the peer went away before it
/// said that this was all, so that no cut upload looks whole.
#[derive(Debug)]
pub struct Stdin {
    pieces: mpsc::UnboundedReceiver<Piece>,
    current: Bytes,
    ended: bool,
    backlog: Backlog,
    moved: Arc<Progress>,
}

impl Stdin {
    /// Where it is counted what was read; outputs of the same channel count there, too.
    pub(super) fn moved(&self) -> &Arc<Progress> {
        &self.moved
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.current.is_empty() && !this.ended {
            match ready!(this.pieces.poll_recv(cx)) {
                Some(Piece::Data(data)) => this.current = data,
                Some(Piece::End) => this.ended = true,
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            }
        }
        let count = this.current.len().min(buf.remaining());
        if let Some(part) = this.current.get(..count) {
            buf.put_slice(part);
        }
        this.current.advance(count);
        this.backlog.remove(count);
        this.moved.add(u64::try_from(count).unwrap_or(0));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        self.pieces.close();
        let mut unread = self.current.len();
        while let Ok(Piece::Data(data)) = self.pieces.try_recv() {
            unread += data.len();
        }
        self.backlog.remove(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::time::Instant;

    #[tokio::test]
    async fn an_end_is_told_from_a_cut() {
        let backlog = Backlog::default();
        let (feed, mut stdin) = pipe(&backlog);
        feed.push(b"all of it");
        feed.end();
        drop(feed);
        let mut text = String::new();
        stdin.read_to_string(&mut text).await.expect("ends");
        assert_eq!(text, "all of it");
        let (feed, mut stdin) = pipe(&backlog);
        feed.push(b"some");
        drop(feed);
        let error = stdin.read_to_string(&mut text).await.expect_err("cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_input_nobody_reads_is_slowed_and_then_held() {
        let backlog = Backlog::default();
        let mut pace = Pace::default();
        let (feed, mut stdin) = pipe(&backlog);
        feed.push(&vec![0; Backlog::SLACK_BYTES - 1]);
        assert_eq!(backlog.window(&mut pace), WINDOW_BYTES);
        let started = Instant::now();
        backlog.hold_back(&mut pace).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        feed.push(&[0]);
        for milliseconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000] {
            assert_eq!(backlog.window(&mut pace), NARROW_WINDOW_BYTES);
            let started = Instant::now();
            backlog.hold_back(&mut pace).await;
            assert_eq!(started.elapsed(), Duration::from_millis(milliseconds));
        }
        stdin.read_exact(&mut [0]).await.expect("reads");
        assert_eq!(backlog.window(&mut pace), WINDOW_BYTES);
        feed.push(&vec![0; Backlog::MOST_BYTES - Backlog::SLACK_BYTES + 1]);
        let mut held = std::pin::pin!(backlog.hold_back(&mut pace));
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, &mut held).await.is_err());
        let mut buffer = vec![0; 1];
        stdin.read_exact(&mut buffer).await.expect("reads");
        held.await;
    }

    #[tokio::test]
    async fn what_is_never_read_counts_no_longer_than_its_reader_lives() {
        let backlog = Backlog::default();
        let (feed, mut stdin) = pipe(&backlog);
        feed.push(&[0; 100]);
        feed.push(&[0; 100]);
        stdin.read_exact(&mut [0; 10]).await.expect("reads");
        assert_eq!(backlog.bytes(), 190);
        drop(stdin);
        assert_eq!(backlog.bytes(), 0);
        feed.push(&[0; 100]);
        assert_eq!(backlog.bytes(), 0);
    }
}
