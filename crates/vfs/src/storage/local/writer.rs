//! The content of a file in the making on a disk, wherever it will end.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use wharf_model::{ByteRange, Hasher, Refusal};

use super::beneath::refusal;
use super::digest::take_in;
use super::pour::pour;
use super::turn::Turns;
use super::{OWNER_FILE_MODE, blocking, set_file_modified, while_wanted};
use crate::storage::solid::Solid;
use crate::storage::{LastPiece, Meter, Poured, Stop, StorageResult, Tap};

/// Most bytes that are written where they came from: what a transfer brings at a time. Into memory
/// they take a tenth of a millisecond, which is less than to wake a thread and to be woken by it.
const MOST_IN_PLACE: usize = 256 * 1024;

/// A file that is being written.
pub(super) struct Writer {
    content: Arc<Content>,
    /// Where a writer that goes on in order begins.
    pub(super) start: u64,
    /// The first byte that may be changed.
    pub(super) first_writable: u64,
    /// How much of the file is counted elsewhere.
    pub(super) base: u64,
    /// How long the file is, as far as writes have come back.
    pub(super) length: u64,
    pub(super) solid: Solid,
    /// Somebody has set the mode of this very file.
    pub(super) mode_is_set: bool,
    /// There where short writes and the commit may be done in them.
    pub(super) turns: Option<Arc<Turns>>,
}

struct Content {
    file: File,
    closed: Mutex<bool>,
}

impl Writer {
    /// Writes to `file`, which is `length` long.
    pub(super) fn new(file: File, length: u64) -> Self {
        Self {
            content: Arc::new(Content {
                file,
                closed: Mutex::default(),
            }),
            start: length,
            first_writable: 0,
            base: 0,
            length,
            solid: Solid::new(length),
            mode_is_set: false,
            turns: None,
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.content.file
    }

    /// Ends the writing. While the guard is held, a write that was dropped midway is over,
    /// and after it none begins.
    pub(super) fn close(&self) -> MutexGuard<'_, bool> {
        let mut closed = self.content.lock();
        *closed = true;
        closed
    }

    pub(super) fn disk_length(&self) -> Result<u64, Refusal> {
        Ok(self.file().metadata().map_err(refusal)?.len())
    }

    /// Takes away what lies behind the first hole, and returns how long the file is then.
    pub(super) fn cut_at_hole(&self) -> Result<u64, Refusal> {
        let (length, end) = (self.disk_length()?, self.solid.end());
        if length > end {
            self.file().set_len(end).map_err(refusal)?;
        }
        Ok(length.min(end))
    }

    pub(super) async fn write_at(
        &mut self,
        offset: u64,
        pieces: Vec<Bytes>,
    ) -> Result<(), Refusal> {
        let added: usize = pieces.iter().map(Bytes::len).sum();
        let end = offset.saturating_add(u64::try_from(added).unwrap_or(u64::MAX));
        let length = self.length;
        self.solid.touch();
        if !self.write_in_place(&pieces, offset, added)? {
            self.run(move |file| write_or_take_back(file, &pieces, offset, length))
                .await?;
        }
        if added > 0 {
            self.length = length.max(end);
            self.solid.wrote(offset, end);
        }
        Ok(())
    }

    /// Writes what is short in a turn, while the processor still has it in its cache. Whether
    /// there was one.
    fn write_in_place(&self, pieces: &[Bytes], offset: u64, added: usize) -> Result<bool, Refusal> {
        let Some(turns) = self.turns.as_ref().filter(|_| added <= MOST_IN_PLACE) else {
            return Ok(false);
        };
        let (Some(_turn), Ok(closed)) = (turns.take(), self.content.closed.try_lock()) else {
            return Ok(false);
        };
        if *closed {
            return Err(Refusal::NotFound);
        }
        write_or_take_back(self.file(), pieces, offset, self.length).map(|()| true)
    }

    /// Pours a stream into the file, on a thread that may block for as long as bytes come.
    pub(super) async fn pour(
        &mut self,
        offset: u64,
        tap: Box<dyn Tap>,
        mut meter: Box<dyn Meter>,
    ) -> Poured {
        let content = Arc::clone(&self.content);
        let length = self.length;
        self.solid.touch();
        let pouring = blocking(move || {
            let closed = content.lock();
            if *closed {
                return Err(Refusal::NotFound);
            }
            Ok(pour(&content.file, offset, length, tap, meter.as_mut()))
        });
        let poured = pouring.await.unwrap_or_else(|refusal| Poured {
            tap: None,
            bytes: 0,
            stop: Stop::Refused(refusal),
        });
        let end = offset.saturating_add(poured.bytes);
        self.length = length.max(end);
        self.solid.wrote(offset, end);
        poured
    }

    /// Reads back what was poured. The kernel still has it in memory; and where it does not, the
    /// digest is that of what it has written.
    pub(super) fn hash_poured(
        &self,
        mut hasher: Hasher,
        range: ByteRange,
    ) -> StorageResult<'static, Hasher> {
        let content = Arc::clone(&self.content);
        while_wanted(move |wanted| {
            let end = take_in(&mut hasher, &content.file, range, wanted)?;
            if end < range.end {
                return Err(Refusal::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(hasher)
        })
    }

    /// Writes what a commit brings, where that may block; the content is not closed yet.
    pub(super) fn write_last(&self, last: &LastPiece) -> Result<(), Refusal> {
        if last.content.is_empty() {
            return Ok(());
        }
        let _open = self.content.lock();
        let pieces = std::slice::from_ref(&last.content);
        write_or_take_back(self.file(), pieces, last.offset, self.length)
    }

    pub(super) async fn set_length(&mut self, length: u64) -> Result<u64, Refusal> {
        self.solid.touch();
        self.run(move |file| file.set_len(length).map_err(refusal))
            .await?;
        self.length = length;
        self.solid.shortened(length);
        let gone = self.base.saturating_sub(length);
        self.base -= gone;
        Ok(gone)
    }

    pub(super) async fn set_modified(&self, time: SystemTime) -> Result<(), Refusal> {
        self.run(move |file| set_file_modified(file, time)).await
    }

    pub(super) async fn set_mode(&self, mode: u32) -> Result<(), Refusal> {
        let mode = rustix::fs::Mode::from_raw_mode(mode & 0o777 | OWNER_FILE_MODE);
        self.run(move |file| rustix::fs::fchmod(file, mode).map_err(|error| refusal(error.into())))
            .await
    }

    pub(super) async fn synchronize(&self) -> Result<(), Refusal> {
        self.run(|file| file.sync_all().map_err(refusal)).await
    }

    /// Does something with the file where it may block, unless the writing has ended.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let content = Arc::clone(&self.content);
        blocking(move || {
            let closed = content.lock();
            if *closed {
                return Err(Refusal::NotFound);
            }
            work(&content.file)
        })
        .await
    }
}

impl Content {
    // Held, on a thread that may block or in a turn, for the whole of a write and of the end: a
    // write that was dropped midway is over before the end looks at the file, or is not begun after it.
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all pieces; a write that fails half-way leaves no longer file than before.
fn write_or_take_back(
    file: &File,
    pieces: &[Bytes],
    offset: u64,
    length: u64,
) -> Result<(), Refusal> {
    write_all(file, pieces, offset).map_err(|error| {
        let is_longer = file.metadata().is_ok_and(|now| now.len() > length);
        if is_longer {
            let _ = file.set_len(length);
        }
        refusal(error)
    })
}

fn write_all(file: &File, pieces: &[Bytes], mut offset: u64) -> io::Result<()> {
    if let [piece] = pieces {
        return file.write_all_at(piece, offset);
    }
    // Linux takes at most 1024 pieces in one call (IOV_MAX).
    for pieces in pieces.chunks(1024) {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(file, left, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += u64::try_from(written).unwrap_or(0);
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
