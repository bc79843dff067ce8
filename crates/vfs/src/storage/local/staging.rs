//! Files in the making on a disk: staged beside their target, or written in place.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::SystemTime;

use bytes::Bytes;
use cap_std::fs::{Dir, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use futures_util::future::BoxFuture;
use wharf_model::{ByteRange, Digest, Entry, EntryKind, Hasher, Refusal, Usage};

use super::beneath::{
    FILE_MODE, INCOMPLETE, PARKED, STAGED, attribute, entry, identity, look, open_directory,
    open_regular, outlive, refusal, remove_attribute, set_attribute, usage_of,
};
use super::digest::{forget, remember};
use super::turn::Turns;
use super::writer::Writer;
use super::{LocalOptions, MOST_AT_ONCE, MOST_REPLACED_AT_ONCE, blocking, read_file};
use crate::storage::{
    Approve, Kept, Landed, LastPiece, Meter, ModeOf, Need, NotLanded, Poured, Reserve, Rights,
    StagedFile, StorageResult, Tap,
};

/// What the writers of one storage share.
#[derive(Default)]
pub(super) struct Tree {
    // Makes "look what stands there, then take it away" one step, so that what
    // is counted is what went. Held for a few system calls on a thread that
    // may block, or in a turn while nobody else holds it; never across an await.
    lock: Mutex<HashSet<(u64, u64)>>,
}

/// The tree, held still.
pub(super) struct HeldTree<'a> {
    /// The files that are being written in place.
    in_place: MutexGuard<'a, HashSet<(u64, u64)>>,
    /// Large files without a name. Below the guard, so that the system frees them when the tree is
    /// nobody's any more: meanwhile every other commit would wait.
    outlived: Vec<File>,
}

impl HeldTree<'_> {
    /// Before what stands under `name` is taken away.
    pub(super) fn outlive(&mut self, directory: &Dir, name: &Path, metadata: &Metadata) {
        self.outlived.extend(outlive(directory, name, metadata));
    }
}

impl Tree {
    pub(super) fn hold(&self) -> HeldTree<'_> {
        HeldTree {
            in_place: self.lock.lock().unwrap_or_else(PoisonError::into_inner),
            outlived: Vec::new(),
        }
    }

    /// Whether nobody holds it now.
    pub(super) fn is_free(&self) -> bool {
        !matches!(self.lock.try_lock(), Err(TryLockError::WouldBlock))
    }
}

/// What stands under `name` now, not following a link; it must not be in use by an in-place writer.
pub(super) fn standing(
    held: &HeldTree<'_>,
    directory: &Dir,
    name: &Path,
) -> Result<Option<Metadata>, Refusal> {
    let found = look(directory, name)?;
    match &found {
        Some(metadata) if held.in_place.contains(&identity(metadata)) => Err(Refusal::Busy),
        _ => Ok(found),
    }
}

/// Removes what a cut overwrite of `name` left, if anything; says what went.
pub(super) fn drop_parked(held: &mut HeldTree<'_>, directory: &Dir, name: &Path) -> Usage {
    let parked = parked_name(name);
    let Ok(metadata) = directory.symlink_metadata(&parked) else {
        return Usage::ZERO;
    };
    held.outlive(directory, &parked, &metadata);
    match directory.remove_file(&parked) {
        Ok(()) => usage_of(&metadata),
        Err(_) => Usage::ZERO,
    }
}

/// A name beside `name` for what a cut overwrite leaves; one for each target.
pub(super) fn parked_name(name: &Path) -> PathBuf {
    own_name(PARKED, name)
}

/// `prefix` and the target's name, cut at the file system's limit. A name that
/// is too long is told apart by a hash of the whole.
fn own_name(prefix: &str, name: &Path) -> PathBuf {
    let length = prefix.len() + name.as_os_str().len();
    let mut own = OsString::with_capacity(length);
    own.push(prefix);
    if length <= wharf_model::FileName::MAX_BYTES {
        own.push(name);
    } else {
        let mut hasher = Hasher::new(wharf_model::DigestAlgorithm::Blake3);
        hasher.update(name.as_os_str().as_bytes());
        own.push("-");
        own.push(hasher.finish().to_string());
    }
    own.into()
}

/// `.wharf-staged.<16 digits>.<target>`; the digits tell parallel uploads apart.
pub(super) fn staged_name(target: &Path) -> Result<PathBuf, Refusal> {
    let random = getrandom::u64().map_err(|error| Refusal::Io(io::Error::other(error)))?;
    Ok(own_name(&format!("{STAGED}{random:016x}."), target))
}

/// The target that a staged name was made for, if it can be told.
pub(super) fn target_of_staged(name: &[u8]) -> Option<&[u8]> {
    let rest = name.strip_prefix(STAGED.as_bytes())?;
    let (digits, rest) = rest.split_at_checked(16)?;
    let target = rest.strip_prefix(b".")?;
    (digits.iter().all(u8::is_ascii_hexdigit) && !target.is_empty()).then_some(target)
}

/// The name that a writer is for.
pub(super) struct Place {
    pub(super) tree: Arc<Tree>,
    /// Held open, so that the writer stays with its directory when that is renamed.
    pub(super) directory: Arc<Dir>,
    pub(super) target: PathBuf,
    /// What its commit may do there.
    pub(super) rights: Rights,
    pub(super) options: LocalOptions,
}

/// What a staged file starts as.
pub(super) struct Copy<'a> {
    pub(super) source: &'a File,
    /// How much of it.
    pub(super) length: u64,
    /// Where writing goes on.
    pub(super) start: u64,
    /// The first byte that may be changed.
    pub(super) first_writable: u64,
}

/// A file in the making, and how it is to end.
pub(super) struct LocalStaged {
    writer: Writer,
    end: End,
    digest: Option<Digest>,
}

enum End {
    Staged(Staged),
    InPlace(InPlace),
}

/// A new file beside its target.
pub(super) struct Staged {
    place: Place,
    name: PathBuf,
    /// It goes on with what a cut upload left, and bears its mark.
    is_marked: bool,
}

/// A file that is written where it stands: an append, the rest of a cut upload, or changes.
pub(super) struct InPlace {
    place: Place,
    identity: (u64, u64),
    was_incomplete: bool,
}

impl Staged {
    /// Stages a new file. `release` is what its commit will replace.
    pub(super) fn create(
        place: Place,
        release: Usage,
        reserve: Reserve,
    ) -> Result<LocalStaged, Refusal> {
        reserve(Need {
            fresh: ONE_ENTRY,
            release,
            ..Need::default()
        })?;
        Self::create_reserved(place)
    }

    /// Stages a copy.
    pub(super) fn copy_of(
        mut place: Place,
        copy: Copy<'_>,
        release: Usage,
        reserve: Reserve,
    ) -> Result<LocalStaged, Refusal> {
        reserve(Need {
            fresh: Usage {
                bytes: copy.length,
                files: 1,
            },
            release,
            ..Need::default()
        })?;
        // Whether the file may be changed was asked of the file itself.
        place.rights.replace = true;
        let mut staged = Self::create_reserved(place)?;
        if let Err(error) = copy_all(copy.source, staged.writer.file(), copy.length) {
            if let End::Staged(end) = &staged.end {
                end.remove()?;
            }
            return Err(match error.kind() {
                // It got shorter since it was looked at.
                io::ErrorKind::UnexpectedEof => Refusal::Busy,
                _ => refusal(error),
            });
        }
        let writer = &mut staged.writer;
        writer.length = copy.length;
        writer.solid.wrote(0, copy.length);
        writer.start = copy.start;
        writer.first_writable = copy.first_writable;
        Ok(staged)
    }

    /// Takes over what a cut overwrite left, if it still is `length` long, to go on at its end.
    pub(super) fn resume_parked(
        place: Place,
        length: u64,
        release: Usage,
        reserve: Reserve,
    ) -> Result<LocalStaged, Refusal> {
        let parked = parked_name(&place.target);
        let name = staged_name(&place.target)?;
        let tree = Arc::clone(&place.tree);
        let _held = tree.hold();
        let mut options = OpenOptions::new();
        let (file, metadata) =
            open_regular(&place.directory, &parked, options.read(true).write(true))?;
        if metadata.len() != length {
            return Err(Refusal::Busy);
        }
        place
            .directory
            .rename(&parked, &place.directory, &name)
            .map_err(refusal)?;
        reserve(Need {
            adopted: Usage {
                bytes: length,
                files: 1,
            },
            release,
            ..Need::default()
        })?;
        Ok(Self::of(place, name, file, length, true))
    }

    fn create_reserved(place: Place) -> Result<LocalStaged, Refusal> {
        let name = staged_name(&place.target)?;
        let mut open = OpenOptions::new();
        open.read(true).write(true).create_new(true).mode(FILE_MODE);
        let tree = Arc::clone(&place.tree);
        // Not while the directory is being emptied in order to go.
        let _held = tree.hold();
        let file = place
            .directory
            .open_with(&name, &open)
            .map_err(refusal)?
            .into_std();
        Ok(Self::of(place, name, file, 0, false))
    }

    fn of(place: Place, name: PathBuf, file: File, length: u64, is_marked: bool) -> LocalStaged {
        let end = Self {
            place,
            name,
            is_marked,
        };
        LocalStaged {
            writer: Writer::new(file, length),
            end: End::Staged(end),
            digest: None,
        }
    }
}

/// Copies `length` bytes within the kernel where it can, sharing blocks where the file system can.
pub(super) fn copy_all(source: &File, target: &File, length: u64) -> io::Result<()> {
    let (mut from, mut to) = (0, 0);
    while from < length {
        let piece = usize::try_from(length - from)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(
                rustix::io::Errno::XDEV
                | rustix::io::Errno::INVAL
                | rustix::io::Errno::NOSYS
                | rustix::io::Errno::OPNOTSUPP,
            ) => {
                return copy_buffered(source, target, from, length);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_buffered(source: &File, target: &File, mut offset: u64, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    while offset < length {
        let wanted =
            usize::try_from(length - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        source.read_exact_at(piece, offset)?;
        target.write_all_at(piece, offset)?;
        offset += u64::try_from(wanted).unwrap_or(0);
    }
    Ok(())
}

/// Runs a commit where it may block.
fn ended(
    commit: impl FnOnce() -> Result<Landed, NotLanded> + Send + 'static,
) -> BoxFuture<'static, Result<Landed, NotLanded>> {
    Box::pin(async move {
        let run = blocking(move || Ok(commit()));
        run.await.unwrap_or_else(|refusal| {
            Err(NotLanded {
                refusal,
                kept: Kept::default(),
            })
        })
    })
}

impl StagedFile for LocalStaged {
    fn start(&self) -> u64 {
        self.writer.start
    }

    fn first_writable(&self) -> u64 {
        self.writer.first_writable
    }

    fn length(&self) -> u64 {
        self.writer.length
    }

    fn write_at(&mut self, offset: u64, content: Vec<Bytes>) -> StorageResult<'_, ()> {
        Box::pin(self.writer.write_at(offset, content))
    }

    fn read_at(&self, offset: u64, length: usize) -> StorageResult<'_, Bytes> {
        Box::pin(self.writer.run(move |file| read_file(file, offset, length)))
    }

    fn set_length(&mut self, length: u64) -> StorageResult<'_, u64> {
        Box::pin(self.writer.set_length(length))
    }

    fn entry(&self) -> StorageResult<'_, Entry> {
        let target = self.end.place().target.clone();
        Box::pin(self.writer.run(move |file| entry_of(file, &target)))
    }

    fn set_modified(&mut self, time: SystemTime) -> StorageResult<'_, ()> {
        Box::pin(self.writer.set_modified(time))
    }

    fn set_mode(&mut self, mode: u32, of: ModeOf) -> StorageResult<'_, ()> {
        match (&self.end, of) {
            // What stands there is no new file.
            (End::InPlace(_), ModeOf::NewFile) => return Box::pin(async { Ok(()) }),
            (_, ModeOf::ThisFile) => self.writer.mode_is_set = true,
            (End::Staged(_), ModeOf::NewFile) => {}
        }
        Box::pin(self.writer.set_mode(mode))
    }

    fn synchronize(&self) -> StorageResult<'_, ()> {
        Box::pin(self.writer.synchronize())
    }

    fn takes_a_tap(&self) -> bool {
        true
    }

    fn pour(
        &mut self,
        offset: u64,
        tap: Box<dyn Tap>,
        meter: Box<dyn Meter>,
    ) -> BoxFuture<'_, Poured> {
        Box::pin(self.writer.pour(offset, tap, meter))
    }

    fn hash_poured(&self, hasher: Hasher, range: ByteRange) -> StorageResult<'static, Hasher> {
        self.writer.hash_poured(hasher, range)
    }

    fn commit(
        self: Box<Self>,
        last: LastPiece,
        approve: Approve,
    ) -> BoxFuture<'static, Result<Landed, NotLanded>> {
        let turns = self.writer.turns.clone();
        let turn = turns
            .as_ref()
            .filter(|_| self.lands_quickly(&last))
            .and_then(|turns| turns.take());
        if turn.is_some() {
            return Box::pin(std::future::ready(self.land(&last, approve)));
        }
        ended(move || self.land(&last, approve))
    }

    fn cut(self: Box<Self>, approve: Approve) -> StorageResult<'static, Kept> {
        Box::pin(blocking(move || match &self.end {
            End::Staged(end) => end.cut(&self.writer, approve),
            End::InPlace(end) => end.cut(&self.writer),
        }))
    }

    fn discard(self: Box<Self>) -> StorageResult<'static, Kept> {
        Box::pin(blocking(move || match &self.end {
            End::Staged(end) => {
                let _closed = self.writer.close();
                end.remove()?;
                Ok(Kept::default())
            }
            End::InPlace(end) => end.discard(&self.writer),
        }))
    }

    fn remember(&mut self, digest: Digest) {
        self.digest = Some(digest);
    }
}

impl LocalStaged {
    /// From now on short writes and the commit may be done in turns.
    pub(super) fn take_turns(&mut self, turns: Arc<Turns>) {
        self.writer.turns = Some(turns);
    }

    /// Whether nothing is known of its commit that could take long.
    fn lands_quickly(&self, last: &LastPiece) -> bool {
        let place = self.end.place();
        // Anything may have come to stand there since the upload began.
        let replaces_little = || match look(&place.directory, &place.target) {
            Ok(Some(old)) => old.len() <= MOST_REPLACED_AT_ONCE,
            Ok(None) => true,
            Err(_) => false,
        };
        !place.options.durable
            && last.content.len() <= MOST_AT_ONCE
            && place.tree.is_free()
            && replaces_little()
    }

    fn land(&self, last: &LastPiece, approve: Approve) -> Result<Landed, NotLanded> {
        let (writer, digest) = (&self.writer, self.digest.as_ref());
        match &self.end {
            End::Staged(end) => {
                if let Err(refusal) = writer.write_last(last) {
                    let kept = end.cut(writer, approve).unwrap_or_default();
                    return Err(NotLanded { refusal, kept });
                }
                let committed = end.commit(writer, approve, digest);
                let landed = committed.map_err(|refusal| NotLanded {
                    refusal,
                    kept: end.remove_or_say(writer),
                })?;
                end.make_durable(&landed)?;
                Ok(landed)
            }
            End::InPlace(end) => {
                if let Err(refusal) = writer.write_last(last) {
                    let kept = end.cut(writer).unwrap_or_else(|_| kept_in_place(writer));
                    return Err(NotLanded { refusal, kept });
                }
                let committed = end.commit(writer, approve, digest);
                committed.map_err(|refusal| NotLanded {
                    refusal,
                    kept: kept_in_place(writer),
                })
            }
        }
    }
}

impl End {
    fn place(&self) -> &Place {
        match self {
            Self::Staged(Staged { place, .. }) | Self::InPlace(InPlace { place, .. }) => place,
        }
    }
}

impl Staged {
    fn commit(
        &self,
        writer: &Writer,
        approve: Approve,
        digest: Option<&Digest>,
    ) -> Result<Landed, Refusal> {
        let _closed = writer.close();
        let file = writer.file();
        let Place {
            tree,
            directory,
            target,
            rights,
            options,
        } = &self.place;
        if options.durable {
            file.sync_data().map_err(refusal)?;
        }
        let mut held = tree.hold();
        let old = standing(&held, directory, target)?;
        rights.land(old.is_some())?;
        if let Some(old) = &old {
            require_file(old)?;
            held.outlive(directory, target, old);
        }
        let parked = look(directory, &parked_name(target))?;
        let released = [&old, &parked]
            .into_iter()
            .flatten()
            .map(usage_of)
            .fold(Usage::ZERO, |sum, usage| sum + usage);
        approve(released)?;
        let mut entry = entry_of(file, target)?;
        if let Some(old) = &old
            && !writer.mode_is_set
        {
            // The new content keeps the mode that somebody gave the file.
            let mode = old.mode() & 0o777;
            if entry.mode != mode {
                let mode = rustix::fs::Mode::from_raw_mode(mode);
                rustix::fs::fchmod(file, mode).map_err(|error| refusal(error.into()))?;
            }
            entry.mode = mode;
        }
        if self.is_marked {
            remove_attribute(file, INCOMPLETE);
        }
        directory
            .rename(&self.name, directory, target)
            .map_err(refusal)?;
        if parked.is_some() {
            drop_parked(&mut held, directory, target);
        }
        drop(held);
        if let Some(digest) = digest {
            remember(file, digest);
        }
        Ok(Landed { entry, released })
    }

    /// Puts the new name on the disk too. The file stands by now, also when this fails.
    fn make_durable(&self, landed: &Landed) -> Result<(), NotLanded> {
        if !self.place.options.durable {
            return Ok(());
        }
        let synchronised = open_directory(&self.place.directory, Path::new("."))
            .and_then(|directory| directory.sync_all().map_err(refusal));
        synchronised.map_err(|refusal| NotLanded {
            refusal,
            kept: Kept {
                held: Usage {
                    bytes: landed.entry.size,
                    files: 1,
                },
                released: landed.released,
            },
        })
    }

    fn cut(&self, writer: &Writer, approve: Approve) -> Result<Kept, Refusal> {
        let kept = self.keep(writer, approve);
        if kept.is_err() {
            self.remove()?;
        }
        match kept {
            // What may not be kept is gone, which is what was asked for.
            Err(Refusal::OverQuota(_)) => Ok(Kept::default()),
            kept => kept,
        }
    }

    /// Under the target's name when nothing stands there, else parked beside it.
    fn keep(&self, writer: &Writer, approve: Approve) -> Result<Kept, Refusal> {
        let _closed = writer.close();
        let Place {
            tree,
            directory,
            target,
            ..
        } = &self.place;
        let length = writer.cut_at_hole()?;
        if length == 0 {
            // Nothing arrived: nothing to resume.
            self.remove()?;
            return Ok(Kept::default());
        }
        set_attribute(writer.file(), INCOMPLETE, b"1");
        let mut held = tree.hold();
        let parked = parked_name(target);
        let (name, replaced) = match look(directory, target) {
            Ok(None) => (target, None),
            // Also when that cannot be told: what arrived is worth keeping.
            Ok(Some(_)) | Err(_) => (&parked, look(directory, &parked)?),
        };
        let released = replaced.as_ref().map_or(Usage::ZERO, usage_of);
        approve(released)?;
        if let Some(replaced) = &replaced {
            held.outlive(directory, name, replaced);
        }
        directory
            .rename(&self.name, directory, name)
            .map_err(refusal)?;
        Ok(Kept {
            held: Usage {
                bytes: length,
                files: 1,
            },
            released,
        })
    }

    fn remove(&self) -> Result<(), Refusal> {
        self.place
            .directory
            .remove_file(&self.name)
            .map_err(refusal)
    }

    /// Removes the file, and says what is left of it when that fails.
    fn remove_or_say(&self, writer: &Writer) -> Kept {
        let Err(error) = self.remove() else {
            return Kept::default();
        };
        tracing::warn!(%error, "a staged file was left as it is");
        let bytes = writer.disk_length().unwrap_or(0);
        Kept {
            held: Usage { bytes, files: 1 },
            released: Usage::ZERO,
        }
    }
}

/// Where somebody wants to write in place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spot {
    /// At the end.
    End,
    /// From this byte on, which is the end or within a file that is marked incomplete.
    From(u64),
    /// Anywhere.
    Anywhere,
}

impl Drop for InPlace {
    fn drop(&mut self) {
        self.place.tree.hold().in_place.remove(&self.identity);
    }
}

impl InPlace {
    /// Takes the file for itself.
    pub(super) fn open(place: Place, spot: Spot, reserve: Reserve) -> Result<LocalStaged, Refusal> {
        let tree = Arc::clone(&place.tree);
        let mut held = tree.hold();
        standing(&held, &place.directory, &place.target)?;
        let mut options = OpenOptions::new();
        let (file, metadata) = open_regular(
            &place.directory,
            &place.target,
            options.read(true).write(true),
        )?;
        let size = metadata.len();
        let was_incomplete = attribute(&file, INCOMPLETE).is_some();
        let (start, first_writable) = match spot {
            Spot::End => (size, size),
            Spot::From(offset) if offset > size => {
                return Err(Refusal::OffsetBeyondEnd { offset, size });
            }
            // Another upload of it was committed since it was looked at.
            Spot::From(offset) if offset < size && !was_incomplete => return Err(Refusal::Busy),
            Spot::From(offset) => (offset, offset),
            Spot::Anywhere => (0, place.rights.first_writable(was_incomplete, size)?),
        };
        // It got a second name since it was looked at.
        if metadata.nlink() != 1 {
            return Err(Refusal::Busy);
        }
        if !matches!(spot, Spot::Anywhere) {
            place.rights.write_in_place(was_incomplete)?;
        }
        reserve(Need::default())?;
        let identity = identity(&metadata);
        held.in_place.insert(identity);
        drop(held);
        // From the first write on it is not whole; a crash must leave it marked.
        set_attribute(&file, INCOMPLETE, b"1");
        forget(&file);
        let mut writer = Writer::new(file, size);
        writer.start = start;
        writer.first_writable = first_writable;
        writer.base = size;
        Ok(LocalStaged {
            writer,
            end: End::InPlace(Self {
                place,
                identity,
                was_incomplete,
            }),
            digest: None,
        })
    }

    fn commit(
        &self,
        writer: &Writer,
        approve: Approve,
        digest: Option<&Digest>,
    ) -> Result<Landed, Refusal> {
        let _closed = writer.close();
        let file = writer.file();
        if self.place.options.durable {
            file.sync_data().map_err(refusal)?;
        }
        let (directory, target) = (&self.place.directory, &self.place.target);
        let mut held = self.place.tree.hold();
        let parked = look(directory, &parked_name(target))?;
        approve(parked.as_ref().map_or(Usage::ZERO, usage_of))?;
        let released = drop_parked(&mut held, directory, target);
        drop(held);
        // Somebody may have asked for one in the meantime.
        forget(file);
        remove_attribute(file, INCOMPLETE);
        if let Some(digest) = digest {
            remember(file, digest);
        }
        Ok(Landed {
            entry: entry_of(file, target)?,
            released,
        })
    }

    fn cut(&self, writer: &Writer) -> Result<Kept, Refusal> {
        let _closed = writer.close();
        writer.cut_at_hole()?;
        if !writer.solid.touched() && !self.was_incomplete {
            // Nothing arrived: the file is as whole as it was.
            remove_attribute(writer.file(), INCOMPLETE);
        }
        Ok(kept_in_place(writer))
    }

    fn discard(&self, writer: &Writer) -> Result<Kept, Refusal> {
        let _closed = writer.close();
        if writer.disk_length()? > writer.base {
            writer.file().set_len(writer.base).map_err(refusal)?;
        }
        if !self.was_incomplete {
            remove_attribute(writer.file(), INCOMPLETE);
        }
        Ok(kept_in_place(writer))
    }
}

/// By how much a file that is written in place is longer than what was counted before.
fn kept_in_place(writer: &Writer) -> Kept {
    let length = writer.disk_length().unwrap_or(writer.base);
    Kept {
        held: Usage {
            bytes: length.saturating_sub(writer.base),
            files: 0,
        },
        released: Usage::ZERO,
    }
}

/// The entry of an open file, which no rename in the meantime can mix up.
fn entry_of(file: &File, name: &Path) -> Result<Entry, Refusal> {
    let metadata = Metadata::from_file(file).map_err(refusal)?;
    Ok(entry(&metadata, name.as_os_str().as_bytes()))
}

/// The standing entry, if it is a file that an upload may replace or continue.
pub(super) fn require_file(metadata: &Metadata) -> Result<&Metadata, Refusal> {
    match super::beneath::kind_of(metadata) {
        EntryKind::File => Ok(metadata),
        EntryKind::Directory => Err(Refusal::IsADirectory),
        EntryKind::Symlink | EntryKind::Other => Err(Refusal::NotAFile),
    }
}

/// What a file counts before its first byte.
const ONE_ENTRY: Usage = Usage { bytes: 0, files: 1 };
