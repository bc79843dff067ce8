//! The kernel's road of a download: page cache to socket.
//!
//! It begins in the task of its session, a piece at a time. A receiver that takes a whole piece at
//! once has a thread of its own from then on, as long as it goes on like that: a worker of the
//! runtime that sends without end is what the system thinks should wait, and is made to wait for
//! a receiver to take each packet as it comes. With a thread each, a receiver finds megabytes
//! when its turn comes: 32 downloads at once took 10,000 changes of threads instead of 210,000
//! for 16 GiB, and half the time.
//!
//! What is small is read and sent instead, and what fills no packet is held back until the stream
//! is closed, so that the last packet carries the end, and the receiver is woken once less: setting
//! up `sendfile` costs more than copying so little.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_cork;
use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use wharf_model::Refusal;
use wharf_vfs::storage::{is_resident, read_resident};

use super::{PumpControl, SMALL_BYTES, TransferError, shortened};

/// Bytes that one call may move in the task of a session: long enough to make the call cheap,
/// short enough that other sessions get their turn.
const PIECE_BYTES: u64 = 1024 * 1024;

/// Bytes that a thread sends before it is another's, where there are no more or its receiver takes little.
const TURN_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes that a thread sends before it looks whether it still should.
const LOOK_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes for which there is room at once where a receiver keeps up.
const MUCH_BYTES: u64 = 256 * 1024;

/// Bytes of a page, and of what is cleared to read a file that is no longer.
const PAGE_BYTES: usize = 4096;

/// How long a thread waits for room. Dozens of downloads on two processors have each of them
/// wait for some milliseconds; a receiver far away is better waited for without a thread.
const MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 25_000_000,
};

/// Bytes that wait in the system until the receiver has room for them. It would hold megabytes
/// for each slow receiver, and, with a thousand of them, have too little memory left for a fast one.
const MOST_UNSENT_BYTES: u32 = 1024 * 1024;

/// Threads of all downloads together.
pub(super) static THREADS: Semaphore = Semaphore::const_new(64);

/// Sends the bytes from `start` up to `end`. Dropping the future is safe: a thread that sends
/// ends within a moment.
pub(super) async fn send_file(
    file: &Arc<File>,
    start: u64,
    end: u64,
    socket: &TcpStream,
    control: &PumpControl,
    threads: &'static Semaphore,
) -> Result<(), TransferError> {
    if end.saturating_sub(start) > PIECE_BYTES {
        // Failing only costs memory of the system.
        let _ = SockRef::from(socket).set_tcp_notsent_lowat(MOST_UNSENT_BYTES);
    }
    let mut offset = start;
    // A fresh socket takes something at once, which the runtime would hear only later.
    let mut is_fresh = true;
    while offset < end {
        let piece = (end - offset).min(PIECE_BYTES);
        let count = usize::try_from(piece).expect("PIECE_BYTES fits every usize");
        make_resident(file, offset, count).await;
        let moved = loop {
            let attempt = || send_some(socket, file, offset, count);
            let attempt = if std::mem::take(&mut is_fresh) {
                attempt()
            } else {
                socket.try_io(Interest::WRITABLE, attempt)
            };
            match attempt {
                Ok(moved) => break moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // May say so without a wait, and the next attempt sets that right.
                    control.guard(socket.writable()).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TransferError::Connection(error)),
            }
        };
        if moved == 0 {
            return Err(shortened());
        }
        offset = offset.saturating_add(moved);
        control.progress.add(moved);
        if control.cancel.is_cancelled() {
            return Err(TransferError::Cancelled);
        }
        if moved == PIECE_BYTES
            && offset < end
            && let Some(thread) = Thread::take(file, socket, control, threads)
        {
            offset = thread.send(offset, end).await?;
        }
        // A fast receiver never makes the socket block; give the others their turn.
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

/// At most `count` bytes from `offset` on, without waiting for room.
fn send_some(
    socket: impl std::os::fd::AsFd,
    file: &File,
    mut offset: u64,
    count: usize,
) -> io::Result<u64> {
    let moved = rustix::fs::sendfile(socket, file, Some(&mut offset), count)?;
    Ok(u64::try_from(moved).unwrap_or(u64::MAX))
}

/// Sends what can be read and sent of a small transfer without waiting, as far as the system can
/// tell, and returns where it ends. If that is all, what fills no packet is held back for the end of
/// the stream.
pub(super) fn send_small(
    file: &File,
    start: u64,
    end: u64,
    socket: BorrowedFd<'_>,
    control: &PumpControl,
) -> Result<u64, TransferError> {
    let Ok(count @ 1..=SMALL_BYTES) = usize::try_from(end.saturating_sub(start)) else {
        return Ok(start);
    };
    // Most are a page at most, and to clear more would take longer than to fill that.
    let (mut page, mut pages);
    let buffer: &mut [u8] = if count <= PAGE_BYTES {
        page = [0; PAGE_BYTES];
        &mut page
    } else {
        pages = [0; SMALL_BYTES];
        &mut pages
    };
    let content = buffer.get_mut(..count).unwrap_or_default();
    // An error here comes again from sendfile, which reports it.
    let length = read_resident(file, start, content).unwrap_or(0);
    let held = match length {
        0 => return Ok(start),
        length if length == count => SendFlags::MORE,
        _ => SendFlags::empty(),
    };
    let flags = held | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let sent = match send(socket, content.get(..length).unwrap_or_default(), flags) {
        Ok(sent) => u64::try_from(sent).unwrap_or(u64::MAX),
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(error) => return Err(TransferError::Connection(error.into())),
    };
    control.progress.add(sent);
    Ok(start.saturating_add(sent))
}

/// Sees to it that `sendfile` will not wait for the disk on a runtime worker:
/// where the page cache lacks an end of the piece, a thread that may block reads it first.
async fn make_resident(file: &Arc<File>, offset: u64, count: usize) {
    // A file system that cannot tell is taken at its best.
    if is_resident(file, offset, count).unwrap_or(true) {
        return;
    }
    let file = Arc::clone(file);
    // An error here comes again from sendfile, which reports it.
    let _ = tokio::task::spawn_blocking(move || {
        let mut sink = vec![0; count];
        std::os::unix::fs::FileExt::read_at(&*file, &mut sink, offset)
    })
    .await;
}

/// A thread that a download may have for a while, and what it needs there.
struct Thread {
    file: Arc<File>,
    socket: OwnedFd,
    control: PumpControl,
    threads: &'static Semaphore,
    _place: SemaphorePermit<'static>,
}

impl Thread {
    /// None while there are too many.
    fn take(
        file: &Arc<File>,
        socket: &TcpStream,
        control: &PumpControl,
        threads: &'static Semaphore,
    ) -> Option<Self> {
        Some(Self {
            _place: threads.try_acquire().ok()?,
            threads,
            file: Arc::clone(file),
            socket: socket.as_fd().try_clone_to_owned().ok()?,
            control: control.clone(),
        })
    }

    /// Sends from `offset` on, as long as the receiver takes what comes; returns how far it got.
    async fn send(mut self, offset: u64, end: u64) -> Result<u64, TransferError> {
        let cancel = self.control.cancel.clone();
        // Nobody tells the thread when this future is dropped.
        self.control.cancel = cancel.child_token();
        let _ends_with_this = self.control.cancel.clone().drop_guard();
        let sending = tokio::task::spawn_blocking(move || self.run(offset, end));
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(TransferError::Cancelled),
            sent = sending => sent.unwrap_or_else(|error| {
                Err(TransferError::Refused(Refusal::Io(io::Error::other(error))))
            }),
        }
    }

    fn run(&self, offset: u64, end: u64) -> Result<u64, TransferError> {
        // Full packets only, as long as more comes behind them. Failing only costs time.
        let _ = set_tcp_cork(&self.socket, true);
        let sent = self.send_corked(offset, end);
        let _ = set_tcp_cork(&self.socket, false);
        sent
    }

    fn send_corked(&self, mut offset: u64, end: u64) -> Result<u64, TransferError> {
        let turn_end = offset.saturating_add(TURN_BYTES);
        let mut takes_much = true;
        while offset < end && !self.control.cancel.is_cancelled() {
            // To take turns for no reason would have the downloads drift apart, and those of one
            // file find its pages in the processor's cache no more.
            let are_more = self.threads.available_permits() > 0;
            if offset >= turn_end && !(are_more && takes_much) {
                break;
            }
            let wanted = (end - offset).min(LOOK_BYTES);
            let count = usize::try_from(wanted).expect("LOOK_BYTES fits every usize");
            let moved = match send_some(&self.socket, &self.file, offset, count) {
                Ok(0) => return Err(shortened()),
                Ok(moved) => moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(TransferError::Connection(error)),
            };
            offset = offset.saturating_add(moved);
            takes_much = moved >= MUCH_BYTES;
            self.control.progress.add(moved);
            if moved < wanted && !self.has_room_soon() {
                break;
            }
        }
        Ok(offset)
    }

    /// Whether the receiver makes room within a moment. An error counts: the next call tells it.
    fn has_room_soon(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        loop {
            match poll(&mut fds, Some(&MOMENT)) {
                Err(Errno::INTR) => {}
                polled => return polled == Ok(1),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::mem::MaybeUninit;
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use wharf_testkit::noise;

    use super::super::Progress;
    use super::*;

    struct Setting {
        content: Vec<u8>,
        file: Arc<File>,
        socket: TcpStream,
        client: TcpStream,
        control: PumpControl,
    }

    /// More than the tests of a process take.
    static PLENTY: Semaphore = Semaphore::const_new(100);
    static ONE: Semaphore = Semaphore::const_new(1);
    static NONE: Semaphore = Semaphore::const_new(0);

    /// A file of so many bytes, and both ends of a connection.
    async fn setting(length: usize) -> Setting {
        let content = noise(length, 3);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&content).expect("written");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound"));
        let (client, accepted) = tokio::join!(client, listener.accept());
        Setting {
            content,
            file: Arc::new(file),
            socket: accepted.expect("accepts").0,
            client: client.expect("connects"),
            control: PumpControl {
                progress: Arc::new(Progress::default()),
                stall: Duration::from_secs(60),
                cancel: CancellationToken::new(),
            },
        }
    }

    impl Setting {
        fn thread(&self) -> Thread {
            Thread::take(&self.file, &self.socket, &self.control, &PLENTY).expect("there is room")
        }

        fn length(&self) -> u64 {
            u64::try_from(self.content.len()).expect("fits")
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_sends_as_long_as_the_receiver_takes_and_then_gives_itself_back() {
        let mut setting = setting(80_000_000).await;
        // Nobody reads: it sends what the sockets hold.
        let full = setting.thread().send(7, setting.length()).await;
        let full = full.expect("sent");
        assert!((8..setting.length()).contains(&full), "{full}");
        assert_eq!(setting.control.progress.bytes(), full - 7);
        // Somebody reads: it goes on, and is another's after its turn, as there are no more.
        let length = setting.length();
        let mut got = vec![0; setting.content.len() - 7];
        let (sent, read) = tokio::join!(
            async {
                let mut offset = full;
                while offset < length {
                    setting.socket.writable().await.expect("open");
                    let next = Thread::take(&setting.file, &setting.socket, &setting.control, &ONE);
                    let before = offset;
                    offset = next
                        .expect("free")
                        .send(offset, length)
                        .await
                        .expect("sent");
                    assert!(offset < before + TURN_BYTES + LOOK_BYTES);
                }
                offset
            },
            setting.client.read_exact(&mut got)
        );
        read.expect("read");
        let corked = SockRef::from(&setting.socket).tcp_cork();
        assert!(!corked.expect("told"), "what comes last would wait");
        assert_eq!(sent, length);
        assert_eq!(setting.control.progress.bytes(), length - 7);
        assert!(got == setting.content[7..]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_goes_on_past_its_turn_while_there_are_more_and_ends_with_its_future() {
        static OWN: Semaphore = Semaphore::const_new(2);
        let mut setting = setting(100_000_000).await;
        let end = setting.length();
        let reading = tokio::spawn(async move {
            let mut sink = vec![0; 1 << 20];
            while setting.client.read(&mut sink).await.expect("read") > 0 {}
        });
        let take = || Thread::take(&setting.file, &setting.socket, &setting.control, &OWN);
        // A busy machine may keep the receiver waiting now and then.
        let (mut longest, mut passes, mut offset) = (0, 0, 0);
        while longest < TURN_BYTES + LOOK_BYTES && passes < 50 {
            setting.socket.writable().await.expect("open");
            let thread = take().expect("there is room");
            let next = thread.send(offset, end).await.expect("sent");
            longest = longest.max(next - offset);
            (offset, passes) = if next == end {
                (0, passes + 1)
            } else {
                (next, passes)
            };
        }
        assert!(longest >= TURN_BYTES + LOOK_BYTES, "{longest}");
        let before = setting.control.progress.bytes();
        let mut sending = Box::pin(take().expect("there is room").send(0, end));
        assert!(futures_util::poll!(&mut sending).is_pending());
        drop(sending);
        let free = OWN.acquire_many(2).await.expect("never closed");
        assert!(setting.control.progress.bytes() < before + end);
        assert!(
            !setting.control.cancel.is_cancelled(),
            "only the thread ends"
        );
        drop((free, setting.socket));
        reading.await.expect("ends");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_ends_with_the_file_the_receiver_or_the_transfer() {
        let shorter = setting(100_000).await;
        let sent = shorter.thread().send(0, 100_001).await;
        let Err(TransferError::Refused(Refusal::Io(error))) = sent else {
            panic!("{sent:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

        let gone = setting(10_000_000).await;
        gone.client.set_zero_linger().expect("set");
        drop(gone.client);
        gone.socket.readable().await.expect("the reset has come");
        let sent = Thread::take(&gone.file, &gone.socket, &gone.control, &PLENTY)
            .expect("there is room")
            .send(0, 10_000_000)
            .await;
        assert!(
            matches!(sent, Err(TransferError::Connection(_))),
            "{sent:?}"
        );

        let cancelled = setting(10_000_000).await;
        cancelled.control.cancel.cancel();
        let sent = cancelled.thread().send(0, 10_000_000).await;
        assert!(matches!(sent, Err(TransferError::Cancelled)), "{sent:?}");
    }

    #[tokio::test]
    async fn what_is_small_is_sent_with_the_end_and_what_is_not_all_there_without() {
        let mut setting = setting(9_000).await;
        let small = |setting: &Setting, start, end| {
            let socket = setting.socket.as_fd();
            send_small(&setting.file, start, end, socket, &setting.control).expect("sent")
        };
        let large = u64::try_from(SMALL_BYTES).expect("fits") + 1;
        assert_eq!(small(&setting, 0, large), 0);
        assert_eq!(small(&setting, 5, 5), 5);
        // The file ends before that.
        assert_eq!(small(&setting, 8_000, 9_001), 9_000);
        let mut got = vec![0; 1_000];
        setting.client.read_exact(&mut got).await.expect("read");
        assert!(got == setting.content[8_000..]);

        let begun = std::time::Instant::now();
        assert_eq!(small(&setting, 7, 9_000), 9_000);
        assert_eq!(setting.control.progress.bytes(), 1_000 + 8_993);
        let held = SockRef::from(&setting.client).peek(&mut [MaybeUninit::uninit()]);
        // The system holds it back for 200 ms at most.
        if begun.elapsed() < Duration::from_millis(100) {
            assert_eq!(held.expect_err("held").kind(), io::ErrorKind::WouldBlock);
        }
        SockRef::from(&setting.socket)
            .shutdown(std::net::Shutdown::Write)
            .expect("open");
        let mut got = Vec::new();
        setting.client.read_to_end(&mut got).await.expect("read");
        assert!(got == setting.content[7..]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_thread_the_same_is_sent_and_little_waits_in_the_system() {
        let mut setting = setting(20_000_000).await;
        let mut got = vec![0; setting.content.len()];
        let length = setting.length();
        let (sent, read) = tokio::join!(
            send_file(
                &setting.file,
                0,
                length,
                &setting.socket,
                &setting.control,
                &NONE
            ),
            setting.client.read_exact(&mut got)
        );
        sent.expect("sent");
        read.expect("read");
        assert!(got == setting.content);
        let unsent = SockRef::from(&setting.socket).tcp_notsent_lowat();
        assert_eq!(unsent.expect("told"), MOST_UNSENT_BYTES);
    }
}
