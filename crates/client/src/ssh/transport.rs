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
        let taken = writing.write(bytes).await?;
        let counted = u64::try_from(taken).unwrap_or(u64::MAX);
        patience.sent.fetch_add(counted, Ordering::Relaxed);
        unsent.consume(taken);
    }
}

/// How long the other end of a connection may be silent, and whether it was for longer.
#[derive(Debug)]
pub(super) struct Patience {
    longest_silence: Duration,
    is_limited: AtomicBool,
    is_over: AtomicBool,
    /// Bytes that the system has taken.
    sent: AtomicU64,
}

impl Patience {
    /// Without a limit until [`Self::begin`].
    pub(super) fn new(longest_silence: Duration) -> Arc<Self> {
        Arc::new(Self {
            longest_silence,
            is_limited: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            sent: AtomicU64::new(0),
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
    /// Intervals in which an answer was owed and nothing came. Counted, and not read off the
    /// clock: this process may have been stopped for longer, and then nobody was asked.
    silent_intervals: u32,
    backlog: Backlog,
}

/// What may stand in front of a question: the system takes megabytes at once, and a slow link
/// carries them for minutes.
struct Backlog {
    bytes: u64,
    /// Of all that was sent.
    counted: u64,
    at: Instant,
}

impl Backlog {
    fn update(&mut self, sent: u64) {
        let now = Instant::now();
        // Waits are short where much comes: in milliseconds they would count as none.
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let carried = elapsed.saturating_mul(SLOWEST_BYTES_A_SECOND) / NANOSECONDS;
        let carried = u64::try_from(carried).unwrap_or(u64::MAX);
        let added = sent.saturating_sub(self.counted);
        let taken = self.bytes.saturating_add(added).min(MOST_TAKEN_BYTES);
        *self = Self {
            // What was added late counts as carried, too: a question itself is no backlog.
            bytes: taken.saturating_sub(carried),
            counted: sent,
            at: now,
        };
    }
}

impl<R> Attentive<R> {
    fn new(reading: R, patience: Arc<Patience>) -> Self {
        Self {
            reading,
            timer: Box::pin(sleep(patience.interval())),
            patience,
            is_waiting: false,
            silent_intervals: 0,
            backlog: Backlog {
                bytes: 0,
                counted: 0,
                at: Instant::now(),
            },
        }
    }

    /// The next interval begins.
    fn restart(&mut self) {
        self.backlog
            .update(self.patience.sent.load(Ordering::Relaxed));
        self.timer
            .as_mut()
            .reset(Instant::now() + self.patience.interval());
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
            self.restart();
            if self.backlog.bytes == 0 && self.patience.is_limited.load(Ordering::Relaxed) {
                self.silent_intervals += 1;
            }
            if self.silent_intervals == TIMES {
                self.patience.is_over.store(true, Ordering::Relaxed);
                return Poll::Ready(());
            }
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

/// The most that systems on the way hold, as ours gives its sockets (tcp(7)).
const MOST_TAKEN_BYTES: u64 = 8 * 1024 * 1024;

/// What the slowest link carries of it.
const SLOWEST_BYTES_A_SECOND: u128 = 32 * 1024;

/// In a second.
const NANOSECONDS: u128 = 1_000_000_000;

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
    async fn what_the_system_took_at_once_has_time_to_be_carried() {
        let (mut attentive, mut other, patience) = pair();
        patience.begin();
        let (mut sending, unsent) = tokio::io::duplex(4 * 1024 * 1024);
        // It takes everything, as the buffers of sockets do.
        tokio::spawn(send(unsent, tokio::io::sink(), Arc::clone(&patience)));
        sending.write_all(&[0; 3 << 20]).await.expect("room");
        // 3 MiB at 32 KiB a second: the question behind them arrives after 96 s.
        let answer = async {
            sleep(Duration::from_secs(100)).await;
            other.write_u8(7).await
        };
        let (read, written) = tokio::join!(attentive.read_u8(), answer);
        written.expect("room");
        assert_eq!(read.expect("it came"), 7);
        // What came says nothing of how much is still on its way, and time does.
        let begun = Instant::now();
        let error = attentive.read_u8().await.expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn many_short_waits_carry_as_much_as_a_long_one() {
        let mut backlog = Backlog {
            bytes: 1 << 20,
            counted: 0,
            at: Instant::now(),
        };
        // 1 MiB at 32 KiB a second is gone after 32 s.
        for _ in 0..64_000 {
            advance(Duration::from_micros(500)).await;
            backlog.update(0);
        }
        assert!(backlog.bytes < 32 * 1024, "{}", backlog.bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn the_questions_themselves_are_no_reason_to_wait() {
        let (mut attentive, _other, patience) = pair();
        patience.begin();
        let asks = async {
            loop {
                sleep(patience.interval()).await;
                patience.sent.fetch_add(100, Ordering::Relaxed);
            }
        };
        let begun = Instant::now();
        tokio::select! {
            read = attentive.read_u8() => assert!(read.is_err()),
            () = asks => {}
        }
        assert_eq!(begun.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn however_much_was_sent_an_end_that_is_silent_is_given_up() {
        let (mut attentive, _other, patience) = pair();
        patience.begin();
        patience.sent.fetch_add(1 << 40, Ordering::Relaxed);
        let begun = Instant::now();
        let error = attentive.read_u8().await.expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // 8 MiB at 32 KiB a second, and the silence behind them; to the interval.
        let longest = Duration::from_secs(256) + SILENCE;
        assert!(begun.elapsed() <= longest + SILENCE / TIMES);
    }
}
