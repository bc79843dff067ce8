//! Moves a file's bytes between a connection and the disk, and hashes them on the way.
//!
//! The disk side runs on a thread that may block; a few buffers circulate
//! between it and the network side, so that reading, hashing and writing go on
//! at the same time and a slow side holds up the other.

use std::fs::File;
use std::io::{Read, Write};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wharf_model::Hasher;

use crate::error::ClientError;
use crate::limit::RateLimit;
use crate::remote::{RemoteRead, RemoteWrite};

/// What a pump minds beside its bytes.
pub(crate) struct PumpContext<'a> {
    /// Bandwidth limit.
    pub(crate) limit: Option<&'a RateLimit>,
    /// Ends the pump between two buffers.
    pub(crate) cancel: &'a CancellationToken,
    /// Is told of every piece that was moved.
    pub(crate) advanced: &'a (dyn Fn(u64) + Sync),
    /// The local file as a person knows it.
    pub(crate) path: &'a str,
}

impl PumpContext<'_> {
    async fn pay(&self, bytes: usize) {
        if let Some(limit) = self.limit {
            limit.take(bytes).await;
        }
    }

    fn piece_bytes(&self) -> usize {
        self.limit.map_or(BUFFER_BYTES, |limit| {
            limit.largest_piece().min(BUFFER_BYTES)
        })
    }

    fn local(&self, source: std::io::Error) -> ClientError {
        ClientError::Local {
            path: self.path.to_owned(),
            source,
        }
    }
}

/// Reads `source` into `file`, to its end or until more than `room` bytes have
/// come, which tells the caller that there may be no end. Returns the hasher,
/// fed with what was written.
///
/// All that was received when an error occurs is in the file when this
/// returns. Dropping the future writes what was handed over, a little later.
///
/// # Errors
/// Those of the connection, [`ClientError::Local`], [`ClientError::Interrupted`].
pub(crate) async fn pump_to_file(
    source: &mut dyn RemoteRead,
    mut file: File,
    room: Option<u64>,
    mut hasher: Option<Hasher>,
    context: &PumpContext<'_>,
) -> Result<Option<Hasher>, ClientError> {
    let (full_sender, mut full) = mpsc::channel::<(Vec<u8>, usize)>(BUFFERS);
    let (empty_sender, mut empty) = mpsc::channel(BUFFERS);
    let writer = tokio::task::spawn_blocking(move || {
        while let Some((buffer, filled)) = full.blocking_recv() {
            let piece = buffer.get(..filled).unwrap_or_default();
            file.write_all(piece)?;
            if let Some(hasher) = &mut hasher {
                hasher.update(piece);
            }
            // Full only if the other side is gone.
            let _ = empty_sender.try_send(buffer);
        }
        Ok(hasher)
    });
    let received = async {
        let mut made = 0;
        let mut received: u64 = 0;
        while room.is_none_or(|room| received <= room) {
            let mut buffer = next_buffer(&mut empty, &mut made).await;
            let limit = context.piece_bytes();
            let piece = buffer.get_mut(..limit).unwrap_or_default();
            let count = tokio::select! {
                biased;
                () = context.cancel.cancelled() => return Err(ClientError::Interrupted),
                count = source.read(piece) => match count {
                    // All is there that the size promises: nobody can have cut it.
                    Err(ClientError::BareEnd) if room == Some(received) => 0,
                    count => count?,
                },
            };
            if count == 0 {
                return Ok(());
            }
            if full_sender.send((buffer, count)).await.is_err() {
                // The writer has failed; what it says comes below.
                return Ok(());
            }
            received += count as u64;
            (context.advanced)(count as u64);
            context.pay(count).await;
        }
        Ok(())
    }
    .await;
    drop(full_sender);
    let written = writer.await.expect("the writer does not panic");
    let hasher = written.map_err(|source| context.local(source))?;
    received.map(|()| hasher)
}

/// Writes `file` from where it stands to its end into `target`, as it comes: it may be a pipe.
/// Returns the hasher, fed with what was sent. After an error a thread may still read.
///
/// # Errors
/// As [`pump_to_file`].
pub(crate) async fn pump_from(
    mut file: impl Read + Send + 'static,
    target: &mut dyn RemoteWrite,
    mut hasher: Option<Hasher>,
    context: &PumpContext<'_>,
) -> Result<Option<Hasher>, ClientError> {
    let (full_sender, mut full) = mpsc::channel::<(Vec<u8>, usize)>(BUFFERS);
    let (empty_sender, mut empty) = mpsc::channel::<Vec<u8>>(BUFFERS);
    for _ in 0..BUFFERS {
        empty_sender
            .try_send(vec![0; context.piece_bytes()])
            .expect("the channel has room for all buffers");
    }
    let reader = tokio::task::spawn_blocking(move || {
        while let Some(mut buffer) = empty.blocking_recv() {
            let filled = read_some(&mut file, &mut buffer)?;
            if filled == 0 {
                break;
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(buffer.get(..filled).unwrap_or_default());
            }
            if full_sender.blocking_send((buffer, filled)).is_err() {
                break;
            }
        }
        Ok(hasher)
    });
    let sent = async {
        loop {
            let next = tokio::select! {
                biased;
                () = context.cancel.cancelled() => return Err(ClientError::Interrupted),
                next = full.recv() => next,
            };
            let Some((buffer, filled)) = next else {
                return Ok(());
            };
            let piece = buffer.get(..filled).unwrap_or_default();
            context.pay(filled).await;
            tokio::select! {
                biased;
                () = context.cancel.cancelled() => return Err(ClientError::Interrupted),
                written = target.write(piece) => written?,
            }
            (context.advanced)(filled as u64);
            // Closed when the reader has reached the end.
            let _ = empty_sender.try_send(buffer);
        }
    }
    .await;
    drop(empty_sender);
    drop(full);
    // The reader may wait for a pipe in which nothing comes.
    sent?;
    let read = reader.await.expect("the reader does not panic");
    read.map_err(|source| context.local(source))
}

/// Hashes the first `bytes` of `file`, which is at its begin, and leaves it behind them.
///
/// # Errors
/// What reading fails with; `UnexpectedEof` when the file is shorter.
pub(crate) async fn hash_begin(
    mut file: File,
    bytes: u64,
    mut hasher: Hasher,
) -> std::io::Result<Hasher> {
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = bytes;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(BUFFER_BYTES)
                .min(BUFFER_BYTES);
            let room = buffer.get_mut(..most).unwrap_or_default();
            let count = read_full(&mut file, room)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(room.get(..count).unwrap_or_default());
            left -= count as u64;
        }
        Ok(hasher)
    })
    .await
    .expect("hashing does not panic")
}

/// Reads until `buffer` is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match read_some(file, room)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Reads what there is, and waits where there is nothing yet.
fn read_some(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// A buffer that came back, or a new one as long as there are not [`BUFFERS`].
async fn next_buffer(empty: &mut mpsc::Receiver<Vec<u8>>, made: &mut usize) -> Vec<u8> {
    if let Ok(buffer) = empty.try_recv() {
        return buffer;
    }
    if *made < BUFFERS {
        *made += 1;
        return vec![0; BUFFER_BYTES];
    }
    // Without an answer the writer has failed; a fresh buffer lets the caller find out.
    empty.recv().await.unwrap_or_else(|| vec![0; BUFFER_BYTES])
}

/// Large enough that neither a system call nor a hand-over matters.
const BUFFER_BYTES: usize = 256 * 1024;

/// One at each end and two on the way.
const BUFFERS: usize = 4;
