//! The kernel's road of an upload: socket to page cache, by a pipe between them.

use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};
use wharf_net::Stream;
use wharf_vfs::Upload;
use wharf_vfs::storage::{Stop, Tap};

use super::{BUFFER_BYTES, PumpControl, TransferError};

/// How long a thread waits for more: what is fast comes within it. The system rounds up to its
/// ticks, and one more: to 8 ms where it has 250 a second.
const MOMENT: Duration = Duration::from_millis(2);

/// An upload that has brought so much is likely to bring more.
const WORTH_BYTES: u64 = 256 * 1024;

/// Bytes that go through buffers where the road was not worth it, or not to be had.
const PAUSE_BYTES: u64 = 1024 * 1024;

/// When so much comes at once, more will come within a moment; when less does, a
/// thread is better given back than kept waiting.
const FAST_BYTES: usize = 64 * 1024;

/// Has the kernel move what comes, for as long as it comes quickly, and leaves the socket to the
/// runtime after that. Returns the tap, or None once the stream has ended. Dropping the future ends
/// the connection.
///
/// # Errors
/// [`TransferError`].
pub(super) async fn pour(
    upload: &mut Upload,
    stream: &mut Stream,
    mut tap: Box<dyn Tap>,
    control: &PumpControl,
) -> Result<Option<Box<dyn Tap>>, TransferError> {
    let loan = Loan::take(stream).map_err(TransferError::Connection)?;
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
        Stop::Dry | Stop::Turn => given_back.map(|()| tap).map_err(TransferError::Connection),
        Stop::Stream(_) if control.cancel.is_cancelled() => Err(TransferError::Cancelled),
        Stop::Stream(error) => Err(TransferError::Connection(error)),
        Stop::Refused(refusal) => Err(refusal.into()),
    }
}

/// When an upload goes the kernel's road.
pub(super) struct Road {
    tap: Option<Box<dyn Tap>>,
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
    /// The tap, if it is worth a pipe after a piece of that length, and that can be had.
    pub(super) fn take(
        &mut self,
        piece: usize,
        upload: &Upload,
        stream: &Stream,
        control: &PumpControl,
    ) -> Option<Box<dyn Tap>> {
        let bytes = control.progress.bytes();
        if !self.is_worth_it(piece, bytes) || !upload.takes_a_tap() {
            return None;
        }
        self.taken_at = bytes;
        let socket = stream.as_plain_socket()?;
        let tap = self.tap.take().or_else(|| {
            let tap = SocketTap::new(socket, control)?;
            Some(Box::new(tap))
        });
        if tap.is_none() {
            self.worth_from = bytes.saturating_add(PAUSE_BYTES);
        }
        tap
    }

    fn is_worth_it(&self, piece: usize, bytes: u64) -> bool {
        piece >= FAST_BYTES && bytes >= self.worth_from
    }

    /// The stream has slowed down.
    pub(super) fn leave(&mut self, tap: Option<Box<dyn Tap>>, control: &PumpControl) {
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

/// A plain socket that the runtime has lent, as each packet would wake it for nothing. Calls on it,
/// or on a copy of it, wait for [`MOMENT`], and then say `WouldBlock`. When it is dropped without
/// [`Loan::give_back`], the connection ends, and so does whatever waits for it.
#[derive(Debug)]
struct Loan(Option<TcpStream>);

impl Loan {
    /// Takes the socket out of `stream`.
    fn take(stream: &mut Stream) -> io::Result<Self> {
        let socket = stream.detach()?.ok_or(io::ErrorKind::NotConnected)?;
        socket.set_read_timeout(Some(MOMENT))?;
        socket.set_nonblocking(false)?;
        Ok(Self(Some(socket)))
    }

    /// Has the runtime watch it again, as `stream`.
    fn give_back(mut self, stream: &mut Stream) -> io::Result<()> {
        if let Some(socket) = self.0.take() {
            socket.set_read_timeout(None)?;
            socket.set_nonblocking(true)?;
            *stream = Stream::attach(socket)?;
        }
        Ok(())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            // Fails where the peer was first.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// A socket and the pipe through which the kernel moves its bytes.
pub(super) struct SocketTap {
    socket: OwnedFd,
    /// What is drawn, and not poured yet.
    pipe: (OwnedFd, OwnedFd),
    capacity: usize,
    /// The next draw may wait: so much came with the last one.
    is_fast: bool,
    /// The file system takes nothing from a pipe.
    copies: bool,
    control: PumpControl,
}

impl SocketTap {
    /// Bytes that the pipe should hold: what a socket has at a time, and what
    /// an unprivileged process may ask for (pipe(7)).
    const PIPE_BYTES: usize = 1024 * 1024;

    /// With less the pipe costs more than it saves; pipes(7) leaves that much
    /// to a user who has too many of them.
    const LEAST_PIPE_BYTES: usize = 128 * 1024;

    /// None where the system has no pipe for it.
    pub(super) fn new(socket: &tokio::net::TcpStream, control: &PumpControl) -> Option<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        let _ = fcntl_setpipe_size(&writer, Self::PIPE_BYTES);
        let capacity = fcntl_getpipe_size(&writer).ok()?;
        Some(Self {
            socket: socket.as_fd().try_clone_to_owned().ok()?,
            pipe: (reader, writer),
            capacity,
            is_fast: true,
            copies: false,
            control: control.clone(),
        })
        .filter(|tap| tap.capacity >= Self::LEAST_PIPE_BYTES)
    }

    fn splice_in(&self) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE;
        let writer = &self.pipe.1;
        loop {
            match splice(&self.socket, None, writer, None, self.capacity, flags) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Whether all was drawn, and no more will come. Never waits; `WouldBlock` where that is open.
    fn has_ended(&self) -> io::Result<bool> {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (_, length) = recv(&self.socket, &mut byte, flags)?;
        Ok(length == 0)
    }

    fn copy_out(&self, file: &File, offset: u64, length: usize) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let mut buffer = vec![0; length.min(BUFFER_BYTES)];
        let count = rustix::io::read(&self.pipe.0, &mut buffer)?;
        file.write_all_at(buffer.get(..count).unwrap_or_default(), offset)?;
        Ok(count)
    }
}

impl Tap for SocketTap {
    fn draw(&mut self) -> io::Result<usize> {
        if self.control.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        // Whoever draws again after `WouldBlock` has seen that the stream is fast again.
        if !std::mem::replace(&mut self.is_fast, true) && self.has_ended()? {
            return Ok(0);
        }
        let drawn = self.splice_in()?;
        // At the mark of urgent data (RFC 6093) `splice` stops for ever, and says the same as at the
        // end; a read goes past it.
        if drawn == 0 && !self.has_ended()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.is_fast = drawn >= FAST_BYTES;
        Ok(drawn)
    }

    fn pour(&mut self, file: &File, offset: u64, length: usize) -> io::Result<usize> {
        let poured = if self.copies {
            self.copy_out(file, offset, length)?
        } else {
            let mut position = offset;
            match splice(
                &self.pipe.0,
                None,
                file,
                Some(&mut position),
                length,
                SpliceFlags::MOVE,
            ) {
                Err(Errno::INVAL) => {
                    self.copies = true;
                    self.copy_out(file, offset, length)?
                }
                result => result?,
            }
        };
        self.control.progress_by(poured);
        Ok(poured)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::sync::{Arc, mpsc};

    use tokio::io::AsyncReadExt as _;
    use tokio_util::sync::CancellationToken;

    use super::super::Progress;
    use super::*;

    /// Both ends of a connection; ours as the runtime has it.
    fn sockets() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (socket, _) = listener.accept().expect("accepts");
        socket.set_nonblocking(true).expect("set");
        (client, Stream::attach(socket).expect("attached"))
    }

    #[tokio::test]
    async fn a_tap_does_not_wait_after_it_has_drawn_little() {
        let (mut client, mut stream) = sockets();
        let control = PumpControl {
            progress: Arc::new(Progress::default()),
            stall: Duration::from_secs(60),
            cancel: CancellationToken::new(),
        };
        let socket = stream.as_plain_socket().expect("plain");
        let mut tap = SocketTap::new(socket, &control).expect("a pipe");
        let loan = Loan::take(&mut stream).expect("lent");
        // One that waits now waits for ever.
        let socket = loan.0.as_ref().expect("is there");
        socket.set_read_timeout(None).expect("set");
        client.write_all(b"little").expect("sent");
        let (says, hears) = mpsc::channel();
        let drawing = std::thread::spawn(move || {
            for _ in 0..2 {
                let drawn = tap.draw().map_err(|error| error.kind());
                says.send(drawn).expect("is heard");
            }
        });
        let long = Duration::from_secs(10);
        assert_eq!(hears.recv_timeout(long), Ok(Ok(6)));
        assert_eq!(hears.recv_timeout(long), Ok(Err(io::ErrorKind::WouldBlock)));
        drawing.join().expect("ended");
    }

    #[tokio::test]
    async fn what_is_lent_is_back_as_it_was_or_the_connection_ends() {
        let (mut client, mut stream) = sockets();
        let loan = Loan::take(&mut stream).expect("lent");
        let mut buffer = [0; 4];
        let read = stream.read(&mut buffer).await;
        let error = read.expect_err("nothing is there meanwhile");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        loan.give_back(&mut stream).expect("given back");
        let socket = stream.as_plain_socket().expect("plain");
        let error = socket.try_read(&mut buffer).expect_err("nothing has come");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"more").expect("sent");
        stream.read_exact(&mut buffer).await.expect("read");
        assert_eq!(&buffer, b"more");

        drop(Loan::take(&mut stream).expect("lent"));
        assert_eq!(io::Read::read(&mut client, &mut buffer).expect("ended"), 0);
    }

    #[test]
    fn a_pipe_is_for_what_comes_fast_and_not_for_short_bursts() {
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
