//! The pump: moves bytes between a data stream and the virtual file system.
//!
//! One loop each way, with progress, a stall limit and cancellation. Which road
//! a download takes depends on what the stream and the storage are: a plain
//! socket and a local file go through `sendfile`; everything else through a
//! buffer. Both give the same bytes.

#[cfg(target_os = "linux")]
mod sendfile;

use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
#[cfg(target_os = "linux")]
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::Timespec,
    io::Errno,
};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use wharf_model::Refusal;
use wharf_net::Stream;
use wharf_proto::ascii::{FromWire, ToWire};
use wharf_vfs::storage::{Stop, Tap};
use wharf_vfs::{Download, Upload};

#[cfg(target_os = "linux")]
use self::sendfile::{THREADS, send_file};

/// Bytes moved through one buffer at a time. At 256 KiB the cost of handing a
/// write to a thread that may block is under a tenth of the write itself.
const BUFFER_BYTES: usize = 256 * 1024;

/// Most bytes of a refused upload that are taken in and forgotten. A client that
/// stops at once has up to 10 MiB under way (the largest receive and send
/// buffers that Linux gives by default, tcp(7)); curl, which listens only once it
/// has sent everything, gets this much further.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;

/// Longest time for that.
const DISCARD_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes forgotten at a time.
const DISCARD_BUFFER_BYTES: usize = 32 * 1024;

/// How far a running transfer is; shared between its task and its session.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
}

impl Progress {
    /// Bytes of content moved so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a pump obeys.
#[derive(Debug, Clone)]
pub struct PumpControl {
    /// Where it counts.
    pub progress: Arc<Progress>,
    /// Longest time without a byte moved.
    pub stall: Duration,
    /// Ends the transfer between two pieces of content.
    pub cancel: CancellationToken,
}

/// Whether line ends are translated on the wire (RFC 959 §3.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translation {
    /// Bytes as they are (TYPE I).
    None,
    /// CRLF on the wire, LF in the file (TYPE A).
    LineEnds,
}

/// Why a transfer did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// [`PumpControl::cancel`].
    #[error("aborted by the client")]
    Cancelled,
    /// [`PumpControl::stall`].
    #[error("no data moved within the stall timeout")]
    Stalled,
    /// The data connection broke.
    #[error("the data connection broke")]
    Connection(#[source] io::Error),
    /// The file system below refused or failed.
    #[error("the transfer was refused")]
    Refused(#[from] Refusal),
}

impl PumpControl {
    /// Waits for `operation`, but no longer than the stall limit and not past a cancellation.
    async fn guard<T>(
        &self,
        operation: impl Future<Output = io::Result<T>>,
    ) -> Result<T, TransferError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(TransferError::Cancelled),
            finished = tokio::time::timeout(self.stall, operation) => match finished {
                Ok(result) => result.map_err(TransferError::Connection),
                Err(_) => Err(TransferError::Stalled),
            },
        }
    }

    /// Counts bytes that moved without the pump.
    pub(crate) fn progress_by(&self, bytes: usize) {
        self.progress.add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Writes all of `content`; any progress restarts the stall limit.
    ///
    /// # Errors
    /// [`TransferError`], except `Refused`.
    pub async fn write_all<W: AsyncWrite + Unpin>(
        &self,
        stream: &mut W,
        mut content: &[u8],
    ) -> Result<(), TransferError> {
        while !content.is_empty() {
            let written = self.guard(stream.write(content)).await?;
            if written == 0 {
                return Err(TransferError::Connection(io::ErrorKind::WriteZero.into()));
            }
            content = content.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Takes in and forgets what the peer has on its way, to the end of the
    /// stream or one of the bounds. Closing with bytes unread would reset the
    /// connection (RFC 1122 §4.2.2.13), and a client that sees a reset in the
    /// middle of its upload does not look for the reply that says why.
    pub(crate) async fn discard(&self, stream: &mut Stream) {
        let draining = async {
            let mut buffer = vec![0; DISCARD_BUFFER_BYTES];
            let mut left = MAX_DISCARDED_BYTES;
            while left > 0 {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => left = left.saturating_sub(length),
                }
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {}
            _ = tokio::time::timeout(DISCARD_PATIENCE, draining) => {}
        }
    }

    /// Closes the sending direction, so that the receiver sees the end.
    ///
    /// # Errors
    /// [`TransferError`], except `Refused`.
    pub async fn close<W: AsyncWrite + Unpin>(&self, stream: &mut W) -> Result<(), TransferError> {
        self.guard(stream.shutdown()).await
    }
}

/// Sends the bytes from `start` up to `end` of `download` and closes the stream's sending direction.
///
/// A file that becomes shorter meanwhile ends the transfer with an error: the
/// peer must not take it for whole. Dropping the future is safe.
///
/// # Errors
/// [`TransferError`].
pub async fn send(
    download: &Download,
    start: u64,
    end: u64,
    stream: &mut Stream,
    translation: Translation,
    control: &PumpControl,
) -> Result<(), TransferError> {
    match (download.as_file(), stream.as_plain_socket(), translation) {
        #[cfg(target_os = "linux")]
        (Some(file), Some(socket), Translation::None) => {
            send_file(file, start, end, socket, control, &THREADS).await?;
        }
        _ => send_buffered(download, start, end, stream, translation, control).await?,
    }
    control.close(stream).await
}

async fn send_buffered(
    download: &Download,
    start: u64,
    end: u64,
    stream: &mut Stream,
    translation: Translation,
    control: &PumpControl,
) -> Result<(), TransferError> {
    let mut offset = start;
    let mut translator = ToWire::new();
    let mut translated = Vec::new();
    while offset < end {
        let wanted =
            usize::try_from(end - offset).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
        let content = download.read_at(offset, wanted).await?;
        if content.is_empty() {
            return Err(shortened());
        }
        match translation {
            Translation::None => control.write_all(stream, &content).await?,
            Translation::LineEnds => {
                translated.clear();
                translator.translate(&content, &mut translated);
                control.write_all(stream, &translated).await?;
            }
        }
        let moved = u64::try_from(content.len()).unwrap_or(u64::MAX);
        offset = offset.saturating_add(moved);
        control.progress.add(moved);
    }
    Ok(())
}

fn shortened() -> TransferError {
    TransferError::Refused(Refusal::Io(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file became shorter while it was sent",
    )))
}

/// Takes in what the stream brings until its end. Commits nothing: the caller
/// decides whether what arrived is whole. Returns the last piece, which is not
/// written yet, so that a small file is written and committed in one step.
///
/// A piece of content that was read is always written before a cancellation is
/// seen, so `upload` is never left in the middle of a write.
///
/// # Errors
/// [`TransferError`].
pub async fn receive(
    upload: &mut Upload,
    stream: &mut Stream,
    translation: Translation,
    control: &PumpControl,
) -> Result<Bytes, TransferError> {
    let mut translator = FromWire::new();
    let mut unwritten = Bytes::new();
    loop {
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
        let filled = {
            let filling = control.guard(fill(stream, &mut buffer));
            write_while(upload, std::mem::take(&mut unwritten), filling).await?
        };
        control.progress_by(buffer.len());
        #[cfg(target_os = "linux")]
        let is_fast = buffer.len() >= SocketTap::FAST_BYTES
            && control.progress.bytes() >= SocketTap::WORTH_BYTES;
        unwritten = match translation {
            Translation::None => buffer.freeze(),
            Translation::LineEnds => {
                let mut translated = Vec::with_capacity(buffer.len());
                translator.translate(&buffer, &mut translated);
                translated.into()
            }
        };
        match filled {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => {
                upload.write(unwritten).await?;
                return Err(error);
            }
        }
        #[cfg(target_os = "linux")]
        if is_fast && translation == Translation::None && upload.takes_a_tap() {
            // Worth a pipe, where that can be had.
            if let Some(tap) = stream
                .as_plain_socket()
                .and_then(|socket| SocketTap::new(socket, control))
            {
                upload.write(std::mem::take(&mut unwritten)).await?;
                pour(upload, stream, tap, control).await?;
                break;
            }
        }
    }
    if translation == Translation::LineEnds {
        let mut rest = Vec::new();
        translator.finish(&mut rest);
        upload.write(std::mem::take(&mut unwritten)).await?;
        unwritten = rest.into();
    }
    Ok(unwritten)
}

/// Writes a piece while the next one is awaited; what that gave.
async fn write_while<T>(
    upload: &mut Upload,
    content: Bytes,
    awaited: impl Future<Output = T>,
) -> Result<T, TransferError> {
    let writing = upload.write(content);
    tokio::pin!(writing, awaited);
    tokio::select! {
        biased;
        written = &mut writing => {
            written?;
            Ok(awaited.await)
        }
        came = &mut awaited => {
            writing.await?;
            Ok(came)
        }
    }
}

/// The kernel's road: socket to page cache, by a pipe between them.
#[cfg(target_os = "linux")]
async fn pour(
    upload: &mut Upload,
    stream: &Stream,
    tap: SocketTap,
    control: &PumpControl,
) -> Result<(), TransferError> {
    let mut tap: Box<dyn Tap> = Box::new(tap);
    loop {
        if let Some(socket) = stream.as_plain_socket() {
            control.guard(await_content(socket)).await?;
        }
        let poured = upload.pour(tap).await;
        match poured.stop {
            Stop::End => return Ok(()),
            Stop::Dry => {}
            Stop::Stream(_) if control.cancel.is_cancelled() => {
                return Err(TransferError::Cancelled);
            }
            Stop::Stream(error) => return Err(TransferError::Connection(error)),
            Stop::Refused(refusal) => return Err(refusal.into()),
        }
        tap = poured.tap.ok_or_else(|| {
            TransferError::Refused(Refusal::Io(io::Error::other("a thread panicked")))
        })?;
    }
}

/// Waits until there is something to read, or the end.
///
/// The tap reads past the runtime, whose idea of "readable" may be old: only a
/// look within `try_io` renews it without missing what comes meanwhile.
#[cfg(target_os = "linux")]
async fn await_content(socket: &tokio::net::TcpStream) -> io::Result<()> {
    use rustix::net::{RecvFlags, recv};
    loop {
        socket.readable().await?;
        let look = socket.try_io(tokio::io::Interest::READABLE, || {
            let mut byte = [0];
            recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
            Ok(())
        });
        match look {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// A socket and the pipe through which the kernel moves its bytes.
#[cfg(target_os = "linux")]
struct SocketTap {
    socket: OwnedFd,
    /// What is drawn, and not poured yet.
    pipe: (OwnedFd, OwnedFd),
    capacity: usize,
    last_draw: usize,
    /// The file system takes nothing from a pipe.
    copies: bool,
    control: PumpControl,
}

#[cfg(target_os = "linux")]
impl SocketTap {
    /// Bytes that the pipe should hold: what a socket has at a time, and what
    /// an unprivileged process may ask for (pipe(7)).
    const PIPE_BYTES: usize = 1024 * 1024;

    /// With less the pipe costs more than it saves; pipes(7) leaves that much
    /// to a user who has too many of them.
    const LEAST_PIPE_BYTES: usize = 128 * 1024;

    /// An upload that has brought so much is likely to bring more.
    const WORTH_BYTES: u64 = 256 * 1024;

    /// When so much comes at once, more will come within a moment; when less does, a
    /// thread is better given back than kept waiting.
    const FAST_BYTES: usize = 64 * 1024;

    /// How long that moment is.
    const MOMENT: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };

    /// None where the system has no pipe for it.
    fn new(socket: &tokio::net::TcpStream, control: &PumpControl) -> Option<Self> {
        use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        let _ = fcntl_setpipe_size(&writer, Self::PIPE_BYTES);
        let capacity = fcntl_getpipe_size(&writer).ok()?;
        Some(Self {
            socket: socket.as_fd().try_clone_to_owned().ok()?,
            pipe: (reader, writer),
            capacity,
            last_draw: 0,
            copies: false,
            control: control.clone(),
        })
        .filter(|tap| tap.capacity >= Self::LEAST_PIPE_BYTES)
    }

    fn splice_in(&self) -> io::Result<usize> {
        use rustix::pipe::{SpliceFlags, splice};
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let writer = &self.pipe.1;
        loop {
            match splice(&self.socket, None, writer, None, self.capacity, flags) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Whether something comes within a moment.
    fn comes_soon(&self) -> bool {
        is_ready_within(&self.socket, PollFlags::IN, Self::MOMENT)
    }

    fn copy_out(&self, file: &File, offset: u64, length: usize) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let mut buffer = vec![0; length.min(BUFFER_BYTES)];
        let count = rustix::io::read(&self.pipe.0, &mut buffer)?;
        file.write_all_at(buffer.get(..count).unwrap_or_default(), offset)?;
        Ok(count)
    }
}

#[cfg(target_os = "linux")]
impl Tap for SocketTap {
    fn draw(&mut self) -> io::Result<usize> {
        if self.control.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let was_fast = std::mem::take(&mut self.last_draw) >= Self::FAST_BYTES;
        let drawn = match self.splice_in() {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && was_fast && self.comes_soon() =>
            {
                self.splice_in()?
            }
            result => result?,
        };
        self.last_draw = drawn;
        Ok(drawn)
    }

    fn pour(&mut self, file: &File, offset: u64, length: usize) -> io::Result<usize> {
        use rustix::pipe::{SpliceFlags, splice};
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

/// Whether a socket is ready before the time has passed, waited for on a thread that may block.
/// An error counts: the next call tells it.
#[cfg(target_os = "linux")]
fn is_ready_within(socket: &OwnedFd, flags: PollFlags, time: Timespec) -> bool {
    let mut fds = [PollFd::new(socket, flags)];
    loop {
        match poll(&mut fds, Some(&time)) {
            Err(Errno::INTR) => {}
            polled => return polled == Ok(1),
        }
    }
}

/// Waits for content, then takes what else is there already, up to the
/// buffer's capacity. Returns whether the stream has ended. With an error the
/// buffer still holds what came before it; the system reports a reset once and
/// a plain end of file ever after, so the error must not be dropped.
async fn fill(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<bool> {
    if stream.read_buf(buffer).await? == 0 {
        return Ok(true);
    }
    while buffer.len() < buffer.capacity() {
        match stream.read_buf(buffer).now_or_never() {
            None => return Ok(false),
            Some(Ok(0)) => return Ok(true),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
        }
    }
    Ok(false)
}
