//! Files in the making on a disk: staged beside their target, or written in place.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use wharf_model::{Digest, Entry, EntryKind, Refusal, Usage};

use super::beneath::{
    FILE_MODE, INCOMPLETE, PARKED, STAGED, attribute, entry, open_directory, open_regular, refusal,
    remove_attribute, set_attribute, usage_of,
};
use super::digest::remember;
use super::{LocalOptions, blocking};
use crate::storage::{Approve, StagedFile, StorageResult};

/// What the writers of one storage share.
#[derive(Default)]
pub(super) struct Tree {
    // Makes "look what stands there, then take it away" one step, so that what
    // is counted is what went. Held for a few system calls on a thread that
    // may block; never across an await.
    lock: Mutex<HashSet<(u64, u64)>>,
}

/// The tree, held still. The set holds the files that are being written in place.
pub(super) type HeldTree<'a> = MutexGuard<'a, HashSet<(u64, u64)>>;

impl Tree {
    pub(super) fn hold(&self) -> HeldTree<'_> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands under `name` now, not following a link; it must not be in use by an in-place writer.
pub(super) fn standing(
    held: &HeldTree<'_>,
    directory: &Dir,
    name: &Path,
) -> Result<Option<cap_std::fs::Metadata>, Refusal> {
    use cap_std::fs::MetadataExt as _;
    match directory.symlink_metadata(name) {
        Ok(metadata) if held.contains(&(metadata.dev(), metadata.ino())) => Err(Refusal::Busy),
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refusal(error)),
    }
}

/// Removes what a cut overwrite of `name` left, if anything; says what went.
pub(super) fn drop_parked(directory: &Dir, name: &Path) -> Usage {
    let parked = parked_name(name);
    let Ok(metadata) = directory.symlink_metadata(&parked) else {
        return Usage::ZERO;
    };
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
    let name = name.as_os_str().as_bytes();
    let mut bytes = prefix.as_bytes().to_vec();
    if prefix.len() + name.len() <= wharf_model::FileName::MAX_BYTES {
        bytes.extend_from_slice(name);
    } else {
        let mut hasher = wharf_model::Hasher::new(wharf_model::DigestAlgorithm::Blake3);
        hasher.update(name);
        bytes.extend_from_slice(b"-");
        bytes.extend_from_slice(hasher.finish().to_string().as_bytes());
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

/// `.wharf-staged.<16 digits>.<target>`; the digits tell parallel uploads apart.
fn staged_name(target: &Path) -> Result<PathBuf, Refusal> {
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

/// A new file beside its target.
pub(super) struct Staged {
    core: Arc<StagedCore>,
    offset: u64,
    length: u64,
    initial: Usage,
    expected: Usage,
    digest: Option<Digest>,
}

struct StagedCore {
    tree: Arc<Tree>,
    directory: Dir,
    target: PathBuf,
    name: PathBuf,
    file: File,
    options: LocalOptions,
}

impl Staged {
    /// Stages a new file for `target`. `expected` is what its commit will replace.
    pub(super) fn create(
        tree: &Arc<Tree>,
        directory: Dir,
        target: PathBuf,
        expected: Usage,
        options: LocalOptions,
    ) -> Result<Self, Refusal> {
        let name = staged_name(&target)?;
        let mut open = OpenOptions::new();
        open.read(true).write(true).create_new(true).mode(FILE_MODE);
        let file = directory
            .open_with(&name, &open)
            .map_err(refusal)?
            .into_std();
        let core = StagedCore {
            tree: Arc::clone(tree),
            directory,
            target,
            name,
            file,
            options,
        };
        Ok(Self {
            core: Arc::new(core),
            offset: 0,
            length: 0,
            initial: Usage { bytes: 0, files: 1 },
            expected,
            digest: None,
        })
    }

    /// Starts with a copy of `source`, to be overwritten from `offset` on.
    pub(super) fn copy_from(
        mut self,
        source: &File,
        length: u64,
        offset: u64,
    ) -> Result<Self, Refusal> {
        if let Err(error) = copy_all(source, &self.core.file, length) {
            let _ = self.core.directory.remove_file(&self.core.name);
            return Err(refusal(error));
        }
        self.length = length;
        self.offset = offset;
        self.initial.bytes = length;
        Ok(self)
    }

    /// Takes over what a cut overwrite left, to go on at its end.
    pub(super) fn resume_parked(
        tree: &Arc<Tree>,
        directory: Dir,
        target: PathBuf,
        expected: Usage,
        options: LocalOptions,
    ) -> Result<Self, Refusal> {
        let held = tree.hold();
        let name = staged_name(&target)?;
        directory
            .rename(parked_name(&target), &directory, &name)
            .map_err(refusal)?;
        drop(held);
        let (file, metadata) =
            open_regular(&directory, &name, OpenOptions::new().read(true).write(true))?;
        let length = metadata.len();
        let core = StagedCore {
            tree: Arc::clone(tree),
            directory,
            target,
            name,
            file,
            options,
        };
        Ok(Self {
            core: Arc::new(core),
            offset: length,
            length,
            // It was counted while it was parked.
            initial: Usage::ZERO,
            expected,
            digest: None,
        })
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

/// Writes all of `content`; a write that fails half-way leaves no longer file than before.
fn write_or_take_back(
    file: &File,
    content: &[u8],
    offset: u64,
    length: u64,
) -> Result<(), Refusal> {
    file.write_all_at(content, offset).map_err(|error| {
        let _ = file.set_len(length);
        refusal(error)
    })
}

fn length_of(content: &Bytes) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

impl StagedFile for Staged {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn initial_usage(&self) -> Usage {
        self.initial
    }

    fn expected_release(&self) -> Usage {
        self.expected
    }

    fn growth(&self, length: u64) -> u64 {
        self.offset
            .saturating_add(length)
            .saturating_sub(self.length)
    }

    fn write(&mut self, content: Bytes) -> StorageResult<'_, ()> {
        let (core, offset, length) = (Arc::clone(&self.core), self.offset, self.length);
        let end = offset + length_of(&content);
        Box::pin(async move {
            blocking(move || write_or_take_back(&core.file, &content, offset, length)).await?;
            self.offset = end;
            self.length = self.length.max(end);
            Ok(())
        })
    }

    fn commit(self: Box<Self>, approve: Approve) -> StorageResult<'static, Entry> {
        Box::pin(blocking(move || {
            let result = self.core.commit(approve, self.digest.as_ref());
            if result.is_err() {
                let _ = self.core.directory.remove_file(&self.core.name);
            }
            result
        }))
    }

    fn cut(self: Box<Self>, approve: Approve) -> StorageResult<'static, ()> {
        Box::pin(blocking(move || {
            let result = self.core.keep(approve);
            if result.is_err() {
                let _ = self.core.directory.remove_file(&self.core.name);
            }
            result
        }))
    }

    fn discard(self: Box<Self>) -> StorageResult<'static, ()> {
        Box::pin(blocking(move || {
            self.core
                .directory
                .remove_file(&self.core.name)
                .map_err(refusal)
        }))
    }

    fn remember(&mut self, digest: Digest) {
        self.digest = Some(digest);
    }
}

impl StagedCore {
    fn commit(&self, approve: Approve, digest: Option<&Digest>) -> Result<Entry, Refusal> {
        if self.options.durable {
            self.file.sync_data().map_err(refusal)?;
        }
        let held = self.tree.hold();
        let mut released = Usage::ZERO;
        if let Some(old) = standing(&held, &self.directory, &self.target)? {
            if old.is_dir() {
                return Err(Refusal::IsADirectory);
            }
            if old.is_file() {
                use cap_std::fs::MetadataExt as _;
                // The new content keeps the mode that somebody gave the file.
                let mode = rustix::fs::Mode::from_raw_mode(old.mode() & 0o777);
                let _ = rustix::fs::fchmod(&self.file, mode);
            }
            released = usage_of(&old);
        }
        let parked = self
            .directory
            .symlink_metadata(parked_name(&self.target))
            .ok();
        approve(released + parked.as_ref().map_or(Usage::ZERO, usage_of))?;
        remove_attribute(&self.file, INCOMPLETE);
        self.directory
            .rename(&self.name, &self.directory, &self.target)
            .map_err(refusal)?;
        drop_parked(&self.directory, &self.target);
        drop(held);
        if let Some(digest) = digest {
            remember(&self.file, digest);
        }
        if self.options.durable {
            open_directory(&self.directory, Path::new("."))?
                .sync_all()
                .map_err(refusal)?;
        }
        let metadata = self
            .directory
            .symlink_metadata(&self.target)
            .map_err(refusal)?;
        Ok(entry(&metadata, self.target.as_os_str().as_bytes()))
    }

    /// Under the target's name when nothing stands there, else parked beside it.
    fn keep(&self, approve: Approve) -> Result<(), Refusal> {
        let held = self.tree.hold();
        if self.file.metadata().map_err(refusal)?.len() == 0 {
            // Nothing arrived: nothing to resume.
            approve(Usage { bytes: 0, files: 1 })?;
            return self.directory.remove_file(&self.name).map_err(refusal);
        }
        set_attribute(&self.file, INCOMPLETE, b"1");
        match standing(&held, &self.directory, &self.target) {
            Ok(None) => {
                approve(Usage::ZERO)?;
                self.directory
                    .rename(&self.name, &self.directory, &self.target)
            }
            // Also when the file is busy or gone wrong: what arrived is worth keeping.
            _ => {
                let parked = parked_name(&self.target);
                let old = self.directory.symlink_metadata(&parked).ok();
                approve(old.as_ref().map_or(Usage::ZERO, usage_of))?;
                self.directory.rename(&self.name, &self.directory, &parked)
            }
        }
        .map_err(refusal)
    }
}

/// A file that is written where it stands: an append, or the rest of a cut upload.
pub(super) struct InPlace {
    core: Arc<InPlaceCore>,
    offset: u64,
    length: u64,
    digest: Option<Digest>,
}

struct InPlaceCore {
    tree: Arc<Tree>,
    directory: Dir,
    target: PathBuf,
    file: File,
    identity: (u64, u64),
    /// Length before the first write: what a discard goes back to.
    base: u64,
    was_incomplete: bool,
    options: LocalOptions,
}

impl Drop for InPlaceCore {
    fn drop(&mut self) {
        self.tree.hold().remove(&self.identity);
    }
}

impl InPlace {
    /// Takes the file for itself. `offset` must not be beyond its end; `None` is the end.
    pub(super) fn open(
        tree: &Arc<Tree>,
        directory: Dir,
        target: PathBuf,
        offset: Option<u64>,
        options: LocalOptions,
    ) -> Result<Self, Refusal> {
        let mut held = tree.hold();
        standing(&held, &directory, &target)?;
        let (file, _) = open_regular(
            &directory,
            &target,
            OpenOptions::new().read(true).write(true),
        )?;
        let metadata = file.metadata().map_err(refusal)?;
        let identity = (metadata.dev(), metadata.ino());
        let size = metadata.len();
        let offset = offset.unwrap_or(size);
        if offset > size {
            return Err(Refusal::OffsetBeyondEnd { offset, size });
        }
        if !held.insert(identity) {
            return Err(Refusal::Busy);
        }
        drop(held);
        let was_incomplete = attribute(&file, INCOMPLETE).is_some();
        // From the first write on it is not whole; a crash must leave it marked.
        set_attribute(&file, INCOMPLETE, b"1");
        let core = InPlaceCore {
            tree: Arc::clone(tree),
            directory,
            target,
            file,
            identity,
            base: size,
            was_incomplete,
            options,
        };
        Ok(Self {
            core: Arc::new(core),
            offset,
            length: size,
            digest: None,
        })
    }
}

impl StagedFile for InPlace {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn initial_usage(&self) -> Usage {
        Usage::ZERO
    }

    fn expected_release(&self) -> Usage {
        Usage::ZERO
    }

    fn growth(&self, length: u64) -> u64 {
        self.offset
            .saturating_add(length)
            .saturating_sub(self.length)
    }

    fn write(&mut self, content: Bytes) -> StorageResult<'_, ()> {
        let (core, offset, length) = (Arc::clone(&self.core), self.offset, self.length);
        let end = offset + length_of(&content);
        Box::pin(async move {
            blocking(move || write_or_take_back(&core.file, &content, offset, length)).await?;
            self.offset = end;
            self.length = self.length.max(end);
            Ok(())
        })
    }

    fn commit(self: Box<Self>, approve: Approve) -> StorageResult<'static, Entry> {
        Box::pin(blocking(move || {
            let core = &self.core;
            if core.options.durable {
                core.file.sync_data().map_err(refusal)?;
            }
            approve(Usage::ZERO)?;
            remove_attribute(&core.file, INCOMPLETE);
            if let Some(digest) = &self.digest {
                remember(&core.file, digest);
            }
            let metadata = core
                .directory
                .symlink_metadata(&core.target)
                .map_err(refusal)?;
            Ok(entry(&metadata, core.target.as_os_str().as_bytes()))
        }))
    }

    fn cut(self: Box<Self>, approve: Approve) -> StorageResult<'static, ()> {
        Box::pin(blocking(move || {
            if self.length == self.core.base
                && !self.core.was_incomplete
                && self.offset == self.core.base
            {
                // Nothing arrived: the file is as whole as it was.
                remove_attribute(&self.core.file, INCOMPLETE);
            }
            approve(Usage::ZERO)
        }))
    }

    fn discard(self: Box<Self>) -> StorageResult<'static, ()> {
        Box::pin(blocking(move || {
            let core = &self.core;
            core.file.set_len(core.base).map_err(refusal)?;
            if !core.was_incomplete {
                remove_attribute(&core.file, INCOMPLETE);
            }
            Ok(())
        }))
    }

    fn remember(&mut self, digest: Digest) {
        self.digest = Some(digest);
    }
}

/// Whether the standing entry is a file that an upload may replace or continue.
pub(super) fn require_file(metadata: &cap_std::fs::Metadata) -> Result<(), Refusal> {
    match super::beneath::kind_of(metadata) {
        EntryKind::File => Ok(()),
        EntryKind::Directory => Err(Refusal::IsADirectory),
        EntryKind::Symlink | EntryKind::Other => Err(Refusal::NotAFile),
    }
}
