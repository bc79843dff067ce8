//! What a peer has sent on its channels and nobody has read yet.
//!
//! russh opens a channel's window again when data has come, not when it was
//! read, and to one width for all channels of a connection. That width is what
//! bounds memory: it is the room that [`WINDOW_BYTES`] leave beside what waits,
//! shared by the channels. While there is too little of it windows stay closed,
//! and nothing else is held up: a program that waits for its output to be taken
//! reads nothing, and the peer's word that it takes more comes on the same
//! connection as data does.
//!
//! russh closes no window for good, or it would never look at it again. A closed
//! one takes [`CLOSED_BYTES`], which are its question whether there is room now;
//! between two of them the [`Gate`] pauses. Invariant: at most
//! [`Backlog::MOST_BYTES`] wait, and a peer that sends what no window allowed is
//! given up there.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;

use crate::transfer::Progress;

/// The window of the only channel while all is read. russh opens it again below its half, so that
/// 16 MiB are 80 MB/s over 100 ms at least.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// The window of a channel that is new, of which there may be many.
pub(super) const FIRST_WINDOW_BYTES: u32 = 1024 * 1024;

/// With less room than this windows are closed; many narrow ones would make many small packets.
const LEAST_ROOM_BYTES: usize = WINDOW_BYTES / 4;

/// The window while there is no room: the least that russh opens again.
const CLOSED_BYTES: u32 = 2;

/// Between two questions for room; what is held up so is also the peer's word
/// that it takes output, of which OpenSSH's client takes 2 MiB at a time.
const PAUSE: Duration = Duration::from_millis(10);

/// Memory that is taken for input at a time, at least: what a peer sends a byte
/// at a time takes no more.
const BLOCK_BYTES: usize = 512;

/// How many bytes wait to be read on all the channels of a connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    fewer: Notify,
    /// A closed window has taken its question, and the gate has not paused for it yet.
    asked: AtomicBool,
}

impl Backlog {
    /// More than windows allow together: the room is shared, but a channel keeps
    /// what it was given when there were fewer.
    const MOST_BYTES: usize = 5 * WINDOW_BYTES;

    /// How wide a window should be that is opened now, of so many.
    pub(super) fn window(&self, channels: usize) -> u32 {
        let share = self.room() / channels.max(1);
        u32::try_from(share).unwrap_or(u32::MAX).max(CLOSED_BYTES)
    }

    /// Whether the peer has sent more than it was ever allowed to.
    pub(super) fn is_flooded(&self) -> bool {
        self.bytes() > Self::MOST_BYTES
    }

    /// What the gate lets through of the connection that these channels are on.
    pub(super) fn gate(&self) -> Gate {
        Gate {
            backlog: self.clone(),
            pause: None,
        }
    }

    /// The room there is, if it is worth opening a window.
    fn room(&self) -> usize {
        let room = WINDOW_BYTES.saturating_sub(self.bytes());
        if room < LEAST_ROOM_BYTES { 0 } else { room }
    }

    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Acquire)
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
        if bytes <= CLOSED_BYTES as usize && self.room() == 0 {
            self.0.asked.store(true, Ordering::Release);
        }
    }

    fn remove(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.0.fewer.notify_one();
    }

    async fn has_room(self) {
        self.until(|| self.room() > 0).await;
    }

    async fn until(&self, is_enough: impl Fn() -> bool) {
        loop {
            let fewer = self.0.fewer.notified();
            if is_enough() {
                return;
            }
            fewer.await;
        }
    }
}

/// Has the connection read no more often than is needed while windows are closed.
pub(super) struct Gate {
    backlog: Backlog,
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Gate {
    /// Ready when the connection may be read.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.backlog.0.asked.swap(false, Ordering::AcqRel) {
            let room = self.backlog.clone().has_room();
            self.pause = Some(Box::pin(async {
                let _ = tokio::time::timeout(PAUSE, room).await;
            }));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

/// Both ends of a channel's standard input.
pub(super) fn pipe(backlog: &Backlog) -> (Feed, Stdin) {
    let pipe = Arc::new(Pipe::default());
    let feed = Feed {
        pipe: Arc::clone(&pipe),
        backlog: backlog.clone(),
    };
    let stdin = Stdin {
        pipe,
        backlog: backlog.clone(),
        moved: Arc::default(),
    };
    (feed, stdin)
}

/// What both ends of an input share.
#[derive(Debug, Default)]
struct Pipe(
    // Held while bytes are copied, never across an await.
    Mutex<Input>,
);

/// Invariant: all blocks are full but the last and those before an empty one, which is an
/// end that a reader meets once; there are no two of these one after the other.
#[derive(Debug, Default)]
struct Input {
    blocks: VecDeque<BytesMut>,
    end: Option<End>,
    reader: Option<Waker>,
    /// Nobody will read any more.
    is_deserted: bool,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Whole,
    Cut,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Input> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the input, unless it has ended.
    fn end(&self, end: End) {
        let mut input = self.lock();
        input.end.get_or_insert(end);
        input.wake();
    }
}

impl Input {
    fn push(&mut self, mut data: &[u8]) {
        if let Some(last) = self.blocks.back_mut() {
            let count = data.len().min(last.capacity() - last.len());
            let (fits, rest) = data.split_at(count);
            last.put_slice(fits);
            data = rest;
        }
        if !data.is_empty() {
            let mut block = BytesMut::with_capacity(data.len().max(BLOCK_BYTES));
            block.put_slice(data);
            self.blocks.push_back(block);
        }
        self.wake();
    }

    /// Moves what has come into `buf`; how much it was.
    fn take(&mut self, buf: &mut ReadBuf<'_>) -> usize {
        let room = buf.remaining();
        while let Some(block) = self.blocks.front_mut() {
            if block.is_empty() {
                if room == buf.remaining() {
                    self.blocks.pop_front();
                }
                break;
            }
            let count = block.len().min(buf.remaining());
            buf.put_slice(block.get(..count).unwrap_or_default());
            block.advance(count);
            if !block.is_empty() {
                break;
            }
            self.blocks.pop_front();
        }
        room - buf.remaining()
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// Takes what the peer sends. Dropped without [`Feed::end`], the input was cut.
#[derive(Debug)]
pub(super) struct Feed {
    pipe: Arc<Pipe>,
    backlog: Backlog,
}

impl Feed {
    /// Adds data; what nobody will read is dropped, and so is what comes behind the end.
    pub(super) fn push(&self, data: &[u8]) {
        let mut input = self.pipe.lock();
        if !data.is_empty() && !input.is_deserted && input.end.is_none() {
            self.backlog.add(data.len());
            input.push(data);
        }
    }

    /// The peer has sent all there is.
    pub(super) fn end(&self) {
        self.pipe.end(End::Whole);
    }

    /// An end for whoever reads there, behind which more may come: Ctrl-D.
    pub(super) fn end_once(&self) {
        let mut input = self.pipe.lock();
        if input.blocks.back().is_none_or(|last| !last.is_empty()) {
            input.blocks.push_back(BytesMut::new());
            input.wake();
        }
    }

    /// Takes back what nobody has read.
    pub(super) fn clear(&self) {
        let unread = std::mem::take(&mut self.pipe.lock().blocks);
        self.backlog.remove(unread.iter().map(BytesMut::len).sum());
    }

    /// Waits until fewer bytes than this wait. For one waiter at a time.
    pub(super) async fn waits_for_less_than(&self, bytes: usize) {
        self.backlog.until(|| self.backlog.bytes() < bytes).await;
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.pipe.end(End::Cut);
    }
}

/// A channel's standard input: an error where the peer went away before it
/// said that this was all, so that no cut upload looks whole.
#[derive(Debug)]
pub struct Stdin {
    pipe: Arc<Pipe>,
    backlog: Backlog,
    moved: Arc<Progress>,
}

impl Stdin {
    /// Where it is counted what was read; outputs of the same channel count there, too.
    pub(super) fn moved(&self) -> &Arc<Progress> {
        &self.moved
    }

    /// What tells later whether something waits to be read.
    pub(super) fn unread(&self) -> Unread {
        Unread(Arc::clone(&self.pipe))
    }
}

/// Tells whether something waits to be read.
pub(super) struct Unread(Arc<Pipe>);

impl Unread {
    pub(super) fn is_some(&self) -> bool {
        !self.0.lock().blocks.is_empty()
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut input = self.pipe.lock();
        if input.blocks.is_empty() {
            return match input.end {
                Some(End::Whole) => Poll::Ready(Ok(())),
                Some(End::Cut) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                None => {
                    input.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let count = input.take(buf);
        drop(input);
        self.backlog.remove(count);
        self.moved.add(u64::try_from(count).unwrap_or(0));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        let mut input = self.pipe.lock();
        input.is_deserted = true;
        let unread = std::mem::take(&mut input.blocks);
        drop(input);
        self.backlog.remove(unread.iter().map(BytesMut::len).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::future::poll_fn;
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

    #[tokio::test]
    async fn a_reader_that_waits_gets_what_comes_and_hears_the_end() {
        let (feed, mut stdin) = pipe(&Backlog::default());
        let reading = tokio::spawn(async move {
            let mut text = String::new();
            stdin.read_to_string(&mut text).await.map(|_| text)
        });
        for text in ["one ", "two"] {
            tokio::task::yield_now().await;
            feed.push(text.as_bytes());
        }
        tokio::task::yield_now().await;
        feed.end();
        feed.push(b" and more");
        let read = reading.await.expect("no panic").expect("ends");
        assert_eq!(read, "one two");
    }

    #[tokio::test]
    async fn an_end_that_is_no_last_one_is_met_once() {
        let (feed, mut stdin) = pipe(&Backlog::default());
        feed.push(b"one");
        feed.end_once();
        feed.end_once();
        feed.push(b"two");
        feed.end();
        for expected in ["one", "two", ""] {
            let mut text = String::new();
            stdin.read_to_string(&mut text).await.expect("ends");
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn windows_are_the_room_beside_what_waits_shared_by_the_channels() {
        const MIB: usize = 1024 * 1024;
        let backlog = Backlog::default();
        let (feed, _stdin) = pipe(&backlog);
        let mib = |count: u32| count * 1024 * 1024;
        assert_eq!(backlog.window(1), mib(16));
        assert_eq!(backlog.window(4), mib(4));
        feed.push(&vec![0; 8 * MIB]);
        assert_eq!(backlog.window(1), mib(8));
        assert_eq!(backlog.window(4), mib(2));
        feed.push(&vec![0; 4 * MIB]);
        assert_eq!(backlog.window(1), mib(4));
        feed.push(&[0]);
        assert_eq!(backlog.window(1), 2);
        assert_eq!(backlog.window(4), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn only_questions_of_closed_windows_are_paused_for_and_only_until_there_is_room() {
        let backlog = Backlog::default();
        let mut gate = backlog.gate();
        let started = Instant::now();
        let (feed, mut stdin) = pipe(&backlog);
        // What is under way when windows are closed, and small packets while they are open.
        feed.push(&[0; 2]);
        feed.push(&vec![0; 2 * WINDOW_BYTES]);
        poll_fn(|cx| gate.poll_open(cx)).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        feed.push(&[0; 2]);
        poll_fn(|cx| gate.poll_open(cx)).await;
        assert_eq!(started.elapsed(), Duration::from_millis(10));
        poll_fn(|cx| gate.poll_open(cx)).await;
        assert_eq!(started.elapsed(), Duration::from_millis(10));
        feed.push(&[0; 2]);
        let mut waiting = std::pin::pin!(poll_fn(|cx| gate.poll_open(cx)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let mut read = vec![0; WINDOW_BYTES + LEAST_ROOM_BYTES + 6];
        stdin.read_exact(&mut read).await.expect("reads");
        waiting.await;
        assert_eq!(started.elapsed(), Duration::from_millis(10));
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

    #[test]
    fn single_bytes_take_no_more_memory_than_packets() {
        let (feed, stdin) = pipe(&Backlog::default());
        for _ in 0..1_000_000 {
            feed.push(&[0]);
        }
        let input = stdin.pipe.lock();
        let taken: usize = input.blocks.iter().map(BytesMut::capacity).sum();
        assert!(taken < 1_000_000 + 2 * BLOCK_BYTES, "{taken}");
        assert!(input.blocks.len() < 1_000_000 / 256);
    }

    proptest! {
        /// Whatever share of what it may a peer sends on which channel, and nobody reads.
        #[test]
        fn a_peer_that_keeps_to_its_windows_is_not_given_up(
            sends in prop::collection::vec((0usize..10, 1u32..=100), 1..3000),
            opened_early in 1usize..=10,
        ) {
            let backlog = Backlog::default();
            let mut channels = Vec::new();
            let mut target = FIRST_WINDOW_BYTES;
            let open = |channels: &mut Vec<_>| {
                channels.push((FIRST_WINDOW_BYTES, pipe(&backlog)));
            };
            (0..opened_early).for_each(|_| open(&mut channels));
            for (channel, percent) in sends {
                if channel >= channels.len() {
                    open(&mut channels);
                    continue;
                }
                let open = channels.len();
                let (window, (feed, _)) = &mut channels[channel];
                let length = (u64::from(*window) * u64::from(percent)).div_ceil(100);
                let length = u32::try_from(length).expect("no longer than the window");
                // As russh does it.
                *window -= length;
                if *window < target / 2 {
                    *window = target;
                    target = backlog.window(open);
                }
                feed.push(&vec![0; usize::try_from(length).expect("64 bits")]);
                prop_assert!(!backlog.is_flooded(), "{}", backlog.bytes());
            }
        }
    }
}
