//! The pump: moves bytes between a data stream and the virtual file system.
//!
//! One loop each way, with progress, a stall limit and cancellation. Which road
//! a download takes depends on what the stream and the storage are: with a plain
//! socket and a local file it goes through `sendfile`, or is read and sent at once
//! where it is small; everything else goes through a buffer. All give the same bytes.

#[cfg(target_os = "linux")]
mod decrypt;
#[cfg(target_os = "linux")]
mod fast_road;
#[cfg(target_os = "linux")]
mod sendfile;
#[cfg(target_os = "linux")]
mod splice;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use wharf_model::Refusal;
use wharf_net::Stream;
use wharf_proto::ascii::{FromWire, ToWire};
use wharf_vfs::{Download, Upload};

#[cfg(target_os = "linux")]
use self::fast_road::{Road, pour};
#[cfg(target_os = "linux")]
use self::sendfile::{THREADS, send_file, send_small};

/// Bytes moved through one buffer at a time. At 256 KiB the cost of handing a
/// write to a thread that may block is under a tenth of the write itself.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes up to which a download is small: it is there at once, and its end with it.
const SMALL_BYTES: usize = 16 * 1024;

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
        if self.cancel.is_cancelled() {
            return Err(TransferError::Cancelled);
        }
        let mut operation = pin!(operation);
        // What does not have to wait needs no timer.
        if let Poll::Ready(result) = futures_util::poll!(operation.as_mut()) {
            return result.map_err(TransferError::Connection);
        }
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
    #[cfg(target_os = "linux")]
    let start = match (
        download.as_file(),
        stream.as_plain_descriptor(),
        translation,
    ) {
        (Some(file), Some(socket), Translation::None) => {
            send_small(file, start, end, socket, control)?
        }
        _ => start,
    };
    if start < end {
        // What is left has to wait.
        stream.watch().map_err(TransferError::Connection)?;
    }
    match (download.as_file(), stream.as_plain_socket(), translation) {
        _ if start >= end => {}
        #[cfg(target_os = "linux")]
        (Some(file), Some(socket), Translation::None) => {
            send_file(file, start, end, socket, control, &THREADS).await?;
        }
        _ => {
            if matches!(usize::try_from(end - start), Ok(..=SMALL_BYTES)) {
                // With TLS there is little left to send behind the content, and it goes along.
                stream.send_full_packets();
            }
            send_buffered(download, start, end, stream, translation, control).await?;
        }
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
    #[cfg(target_os = "linux")]
    let mut road = Road::default();
    loop {
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
        let filled = {
            let filling = control.guard(fill(stream, &mut buffer));
            write_while(upload, std::mem::take(&mut unwritten), filling).await?
        };
        control.progress_by(buffer.len());
        #[cfg(target_os = "linux")]
        let length = buffer.len();
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
        if translation == Translation::None
            && let Some(tap) = road.take(length, upload, stream, control)
        {
            upload.write(std::mem::take(&mut unwritten)).await?;
            match pour(upload, stream, tap, control).await? {
                None => break,
                tap => road.leave(tap, control),
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
