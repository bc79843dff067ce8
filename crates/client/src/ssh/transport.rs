//! What a connection of SSH runs on: a socket that is read while it is written to, and that is
//! given up when its other end answers no more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::error::{ClientError, Waiting};

/// `socket`, written to by a task of its own: the SSH library reads nothing while it waits for
/// its writes, and so two of it that both have much to say would wait for each other for ever.
pub(super) fn transport(
    socket: TcpStream,
    patience: Arc<Patience>,
) -> impl AsyncRead + AsyncWrite + Send + Unpin {
    let (reading, writing) = socket.into_split();
    let (sending, unsent) = tokio::io::duplex(MOST_UNSENT_BYTES);
    // A write that fails drops the other end, and the next one is told.
    tokio::spawn(send(unsent, writing, Arc::clone(&patience)));
    tokio::io::join(Attentive::new(reading, patience), sending)
}

/// Moves bytes to where the system takes them, until there are no more.
async fn send(
    unsent: impl AsyncRead + Unpin,
    mut writing: impl AsyncWrite + Unpin,
    patience: Arc<Patience>,
) -> io::Result<()> {
    let mut unsent = BufReader::with_capacity(SENT_TOGETHER_BYTES, unsent);
    loop {
        let bytes = unsent.fill_buf().await?;
        if bytes.is_empty() {
            return writing.shutdown().await;
        }
        patience.is_sending.store(true, Ordering::Relaxed);
        let taken = writing.write(bytes).await?;
        patience.is_sending.store(false, Ordering::Relaxed);
        patience.writes.fetch_add(1, Ordering::Relaxed);
        unsent.consume(taken);
    }
}

/// How long the other end of a connection may be silent, and whether it was for longer.
#[derive(Debug)]
pub(super) struct Patience {
    longest_silence: Duration,
    is_limited: AtomicBool,
    is_over: AtomicBool,
    /// There is more to send than the system takes at once.
    is_sending: AtomicBool,
    /// How often it has taken some. While it does so, what asks for an answer may stand behind
    /// more.
    writes: AtomicU64,
}

impl Patience {
    /// Without a limit until [`Self::begin`].
    pub(super) fn new(longest_silence: Duration) -> Arc<Self> {
        Arc::new(Self {
            longest_silence,
            is_limited: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_sending: AtomicBool::new(false),
            writes: AtomicU64::new(0),
        })
    }

    /// From now on the other end is asked for answers ([`Self::interval`]), and owes them.
    pub(super) fn begin(&self) {
        self.is_limited.store(true, Ordering::Relaxed);
    }

    /// How long after the last bytes the other end is asked whether it is there, and how long
    /// after each question.
    pub(super) fn interval(&self) -> Duration {
        self.longest_silence / TIMES
    }

    /// Whether the other end has no question to answer yet, `writes` having been so many when it
    /// was to be sent.
    fn owes_nothing(&self, writes: u64) -> bool {
        let still_sends = self.is_sending.load(Ordering::Relaxed)
            && self.writes.load(Ordering::Relaxed) != writes;
        still_sends || !self.is_limited.load(Ordering::Relaxed)
    }

    /// What ended the connection, where it was silence.
    pub(super) fn explain(&self) -> Option<ClientError> {
        self.is_over
            .load(Ordering::Relaxed)
            .then_some(ClientError::Timeout {
                waiting: Waiting::SignOfLife,
                after: self.longest_silence,
            })
    }
}

/// Reads, and fails once the other end was silent for too long while somebody waited for it.
struct Attentive<R> {
    reading: R,
    patience: Arc<Patience>,
    timer: Pin<Box<Sleep>>,
    is_waiting: bool,
    /// Intervals in which an answer was owed and nothing came. Counted, and not read off the clock: this
    /// process may have been stopped for longer, and then nobody was asked.
    silent_intervals: u32,
    writes_before: u64,
}

impl<R> Attentive<R> {
    fn new(reading: R, patience: Arc<Patience>) -> Self {
        Self {
            reading,
            timer: Box::pin(sleep(patience.interval())),
            patience,
            is_waiting: false,
            silent_intervals: 0,
            writes_before: 0,
        }
    }

    /// The next interval begins.
    fn restart(&mut self) {
        self.timer
            .as_mut()
            .reset(Instant::now() + self.patience.interval());
        self.writes_before = self.patience.writes.load(Ordering::Relaxed);
    }

    /// Ready when the other end is given up.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_waiting {
            self.is_waiting = true;
            self.silent_intervals = 0;
            self.restart();
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.patience.owes_nothing(self.writes_before) {
                self.silent_intervals = 0;
            } else {
                self.silent_intervals += 1;
            }
            if self.silent_intervals == TIMES {
                self.patience.is_over.store(true, Ordering::Relaxed);
                return Poll::Ready(());
            }
            self.restart();
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Attentive<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.reading).poll_read(cx, buffer) {
            self.is_waiting = false;
            return Poll::Ready(read);
        }
        ready!(self.poll_silence(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Most bytes that wait to be sent: more than a peer's windows let anybody have under way.
const MOST_UNSENT_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that are handed to the system at a time, if there are so many.
const SENT_TOGETHER_BYTES: usize = 256 * 1024;

/// Intervals in the longest silence: three questions before it is over, as
/// `ServerAliveCountMax` of ssh_config(5) has it.
const TIMES: u32 = 4;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, DuplexStream};
    use tokio::time::{advance, timeout};

    use super::*;

    const SILENCE: Duration = Duration::from_secs(60);

    /// What reads, and the other end of it.
    fn pair() -> (Attentive<DuplexStream>, DuplexStream, Arc<Patience>) {
        let (reading, other) = tokio::io::duplex(64);
        let patience = Patience::new(SILENCE);
        let attentive = Attentive::new(reading, Arc::clone(&patience));
        (attentive, other, patience)
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_is_silent_is_given_up_after_as_long_and_it_is_said_why() {
        let (mut attentive, _other, patience) = pair();
        patience.begin();
        let begun = Instant::now();
        let error = attentive.read_u8().await.expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), SILENCE);
        let why = patience.explain().expect("it was silence").to_string();
        assert!(why.starts_with("the server was silent for 60 s"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_is_a_sign_of_life() {
        let (mut attentive, mut other, patience) = pair();
        patience.begin();
        for _ in 0..5 {
            let late = async {
                sleep(SILENCE - Duration::from_secs(1)).await;
                other.write_u8(7).await
            };
            let (read, written) = tokio::join!(attentive.read_u8(), late);
            written.expect("room");
            assert_eq!(read.expect("it came"), 7);
        }
        assert!(patience.explain().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_login_others_judge_how_long_it_takes() {
        let (mut attentive, _other, _patience) = pair();
        let read = timeout(10 * SILENCE, attentive.read_u8()).await;
        assert!(read.is_err(), "given up");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_listening_or_was_stopped_gives_nobody_up() {
        let (mut attentive, _other, patience) = pair();
        patience.begin();
        // Nobody reads for an hour: a pager holds the output up.
        advance(60 * SILENCE).await;
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut attentive).poll_read(cx, &mut read)));
        assert!(first.await.is_pending());
        // The process is stopped for an hour while somebody reads.
        advance(60 * SILENCE).await;
        let mut read = ReadBuf::new(&mut byte);
        let later = poll_fn(|cx| Poll::Ready(Pin::new(&mut attentive).poll_read(cx, &mut read)));
        assert!(later.await.is_pending());
        assert!(patience.explain().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_still_takes_bytes_slowly_is_not_silent_and_one_that_stops_is() {
        let (mut attentive, _other, patience) = pair();
        patience.begin();
        let (mut link, slow) = tokio::io::duplex(64);
        let (mut sending, unsent) = tokio::io::duplex(4096);
        tokio::spawn(send(unsent, slow, Arc::clone(&patience)));
        sending.write_all(&[0; 2048]).await.expect("room");
        let takes_slowly = async {
            let mut bytes = [0; 64];
            for _ in 0..20 {
                link.read_exact(&mut bytes).await.expect("sent");
                sleep(SILENCE / 5).await;
            }
        };
        tokio::select! {
            _ = attentive.read_u8() => panic!("given up while bytes move"),
            () = takes_slowly => {}
        }
        let begun = Instant::now();
        let error = attentive.read_u8().await.expect_err("nothing moves");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() <= SILENCE * 5 / 4, "{:?}", begun.elapsed());
    }
}
