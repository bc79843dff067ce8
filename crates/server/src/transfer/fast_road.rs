//! The fast road of an upload: a thread that blocks belongs to it for as long as bytes come quickly.
//!
//! The runtime does not watch the socket meanwhile, as each packet would wake it for nothing. In
//! the clear the kernel moves the bytes ([`super::splice`]); with TLS the thread decrypts and writes
//! them ([`super::decrypt`]).

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wharf_net::{Stream, Unwatched};
use wharf_vfs::Upload;
use wharf_vfs::storage::{Stop, Tap};

use super::decrypt::TlsTap;
use super::splice::SocketTap;
use super::{PumpControl, TransferError};

/// How long a thread waits for more: what is fast comes within it. The system rounds up to its
/// ticks, and one more: to 8 ms where it has 250 a second.
const MOMENT: Duration = Duration::from_millis(2);

/// An upload that has brought so much is likely to bring more.
const WORTH_BYTES: u64 = 256 * 1024;

/// Bytes that go through buffers where the road was not worth it, or not to be had.
const PAUSE_BYTES: u64 = 1024 * 1024;

/// When so much comes at once, more will come within a moment; when less does, a
/// thread is better given back than kept waiting.
pub(super) const FAST_BYTES: usize = 64 * 1024;

/// A stream on loan, for the tap that reads it. Empty while it is with the runtime.
pub(super) type Lent = Arc<Mutex<Option<Unwatched>>>;

/// A tap and the stream that it reads while that is on loan.
pub(super) struct LentTap {
    tap: Box<dyn Tap>,
    lent: Lent,
    /// A handle to the stream's socket, whoever has the stream.
    socket: Arc<TcpStream>,
}

impl LentTap {
    /// None where there is none for such a stream, or the system has no pipe or descriptor for it.
    fn new(stream: &Stream, control: &PumpControl) -> Option<Self> {
        let lent = Lent::default();
        let socket = Arc::new(Unwatched::handle(stream).ok()?);
        let tap: Box<dyn Tap> = match stream {
            Stream::Tls(_) => Box::new(TlsTap::new(Arc::clone(&lent), control)),
            _ => Box::new(SocketTap::new(Arc::clone(&socket), control)?),
        };
        Some(Self { tap, lent, socket })
    }
}

/// Has a thread move what comes, for as long as it comes quickly, and leaves the socket to the
/// runtime after that. Returns the tap, or None once the stream has ended. Dropping the future
/// ends the connection.
///
/// # Errors
/// [`TransferError`].
pub(super) async fn pour(
    upload: &mut Upload,
    stream: &mut Stream,
    tap: LentTap,
    control: &PumpControl,
) -> Result<Option<LentTap>, TransferError> {
    let LentTap {
        mut tap,
        lent,
        socket,
    } = tap;
    let loan = Loan::take(stream, &lent, &socket).map_err(TransferError::Connection)?;
    let (stop, tap) = loop {
        let poured = upload.pour(tap).await;
        match (poured.stop, poured.tap) {
            (Stop::Turn, Some(again)) => tap = again,
            stopped => break stopped,
        }
    };
    let given_back = loan.give_back(stream);
    match stop {
        Stop::End => Ok(None),
        Stop::Dry | Stop::Turn => {
            given_back.map_err(TransferError::Connection)?;
            Ok(tap.map(|tap| LentTap { tap, lent, socket }))
        }
        Stop::Stream(_) if control.cancel.is_cancelled() => Err(TransferError::Cancelled),
        Stop::Stream(error) => Err(TransferError::Connection(error)),
        Stop::Refused(refusal) => Err(refusal.into()),
    }
}

/// When an upload goes the fast road.
pub(super) struct Road {
    tap: Option<LentTap>,
    /// Bytes that the upload had when it went there.
    taken_at: u64,
    /// Not before the upload has so many.
    worth_from: u64,
}

impl Default for Road {
    fn default() -> Self {
        Self {
            tap: None,
            taken_at: 0,
            worth_from: WORTH_BYTES,
        }
    }
}

impl Road {
    /// The tap, if the road is worth it after a piece of that length, and there is one.
    pub(super) fn take(
        &mut self,
        piece: usize,
        upload: &Upload,
        stream: &Stream,
        control: &PumpControl,
    ) -> Option<LentTap> {
        let bytes = control.progress.bytes();
        if !self.is_worth_it(piece, bytes) || !upload.takes_a_tap() {
            return None;
        }
        self.taken_at = bytes;
        let tap = self.tap.take();
        let tap = tap.or_else(|| LentTap::new(stream, control));
        if tap.is_none() {
            self.worth_from = bytes.saturating_add(PAUSE_BYTES);
        }
        tap
    }

    fn is_worth_it(&self, piece: usize, bytes: u64) -> bool {
        piece >= FAST_BYTES && bytes >= self.worth_from
    }

    /// The stream has slowed down.
    pub(super) fn leave(&mut self, tap: Option<LentTap>, control: &PumpControl) {
        let bytes = control.progress.bytes();
        self.tap = self.keeps_on(bytes).then_some(tap).flatten();
    }

    /// Whether it was worth it, and may be again at once. A stream that comes in short bursts is
    /// better off with buffers for a while.
    fn keeps_on(&mut self, bytes: u64) -> bool {
        let was_worth_it = bytes.saturating_sub(self.taken_at) >= WORTH_BYTES;
        if !was_worth_it {
            self.worth_from = bytes.saturating_add(PAUSE_BYTES);
        }
        was_worth_it
    }
}

/// A stream that the runtime has lent. Reads of it wait for [`MOMENT`], and then say
/// `WouldBlock`. When it is dropped without [`Loan::give_back`], the connection ends, and so does
/// whatever waits for it.
#[derive(Debug)]
struct Loan {
    lent: Lent,
    /// None once it is given back.
    socket: Option<Arc<TcpStream>>,
}

impl Loan {
    /// Takes what is in `stream`, whose `socket` it is, and puts it where the tap reads it.
    fn take(stream: &mut Stream, lent: &Lent, socket: &Arc<TcpStream>) -> io::Result<Self> {
        let taken = Unwatched::take(stream, MOMENT)?;
        *of(lent) = Some(taken.ok_or(io::ErrorKind::NotConnected)?);
        Ok(Self {
            lent: Arc::clone(lent),
            socket: Some(Arc::clone(socket)),
        })
    }

    /// Has the runtime watch it again, as `stream`.
    fn give_back(mut self, stream: &mut Stream) -> io::Result<()> {
        self.socket = None;
        if let Some(lent) = of(&self.lent).take() {
            *stream = lent.watch()?;
        }
        Ok(())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // Fails where the peer was first.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// What is on loan, for as long as the guard lives.
pub(super) fn of(lent: &Lent) -> std::sync::MutexGuard<'_, Option<Unwatched>> {
    lent.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::CancellationToken;
    use wharf_testkit::Wire;

    use super::super::BUFFER_BYTES;
    use super::*;

    fn tap(stream: &Stream) -> LentTap {
        let control = PumpControl {
            progress: Arc::default(),
            stall: Duration::from_secs(60),
            cancel: CancellationToken::new(),
        };
        LentTap::new(stream, &control).expect("a pipe")
    }

    #[tokio::test]
    async fn a_tap_waits_once_and_not_after_it_has_drawn_little() {
        for wire in Wire::ALL {
            let (mut client, mut stream) = wire.streams().await;
            let lent = tap(&stream);
            let loan = Loan::take(&mut stream, &lent.lent, &lent.socket).expect("lent");
            // Whoever waits for what does not come waits for ever.
            lent.socket.set_read_timeout(None).expect("set");
            client.write_all(b"little").await.expect("sent");
            client.flush().await.expect("sent");
            let (says, hears) = mpsc::channel();
            let drawing = std::thread::spawn(move || {
                let LentTap { mut tap, .. } = lent;
                for _ in 0..2 {
                    let drawn = tap.draw().map_err(|error| error.kind());
                    says.send(drawn).expect("is heard");
                }
            });
            let long = Duration::from_secs(10);
            assert_eq!(hears.recv_timeout(long), Ok(Ok(6)), "{wire:?}");
            let nothing = Ok(Err(io::ErrorKind::WouldBlock));
            assert_eq!(hears.recv_timeout(long), nothing, "{wire:?}");
            drawing.join().expect("ended");
            loan.give_back(&mut stream).expect("given back");
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_behind_what_was_drawn_has_not_ended() {
        for wire in Wire::ALL {
            let (mut client, mut stream) = wire.streams().await;
            let mut lent = tap(&stream);
            let _loan = Loan::take(&mut stream, &lent.lent, &lent.socket).expect("lent");
            client.write_all(b"all").await.expect("sent");
            client.flush().await.expect("sent");
            client.set_reset_on_drop(true);
            drop(client);
            assert_eq!(lent.tap.draw().expect("there"), 3, "{wire:?}");
            // The system says it once, and that the stream has ended ever after.
            let error = lent.tap.draw().expect_err("broken");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{wire:?}");
        }
    }

    #[tokio::test]
    async fn what_is_lent_is_back_as_it_was_or_the_connection_ends() {
        let (mut client, mut stream) = Wire::Clear.streams().await;
        let lent = tap(&stream);
        let loan = Loan::take(&mut stream, &lent.lent, &lent.socket).expect("lent");
        let mut buffer = [0; 4];
        let read = stream.read(&mut buffer).await;
        let error = read.expect_err("nothing is there meanwhile");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        loan.give_back(&mut stream).expect("given back");
        let socket = stream.as_plain_socket().expect("plain");
        let error = socket.try_read(&mut buffer).expect_err("nothing has come");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"more").await.expect("sent");
        stream.read_exact(&mut buffer).await.expect("read");
        assert_eq!(&buffer, b"more");

        drop(Loan::take(&mut stream, &lent.lent, &lent.socket).expect("lent"));
        assert_eq!(client.read(&mut buffer).await.expect("ended"), 0);
    }

    #[test]
    fn the_road_is_for_what_comes_fast_and_not_for_short_bursts() {
        let piece = BUFFER_BYTES / 3;
        let mut road = Road::default();
        assert!(!road.is_worth_it(piece, 200_000), "may end any time");
        assert!(!road.is_worth_it(10_000, 300_000), "too slow");
        assert!(road.is_worth_it(piece, 300_000));
        road.taken_at = 300_000;
        assert!(road.keeps_on(10_000_000));
        assert!(road.is_worth_it(piece, 10_000_000));
        road.taken_at = 10_000_000;
        assert!(!road.keeps_on(10_100_000), "a burst");
        assert!(!road.is_worth_it(piece, 11_000_000));
        assert!(road.is_worth_it(piece, 12_000_000));
    }
}
