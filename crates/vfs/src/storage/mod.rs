//! Storages: where files are kept.
//!
//! One object-safe trait. Paths are virtual and relative to the storage's own
//! root; permission and quota are the caller's business. Everything that
//! takes away files says how much it took, counted in the same step.

use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use wharf_model::{
    ByteRange, Digest, DigestAlgorithm, Entry, FileName, Hasher, PathError, Refusal, Usage,
    VirtualPath,
};

pub mod local;
pub mod memory;
mod resident;
mod solid;
#[cfg(test)]
mod suite;
mod tap;

pub use resident::is_resident;
#[cfg(target_os = "linux")]
pub use resident::read_resident;
pub use tap::{Meter, Poured, Stop, Tap};

/// What a storage operation returns.
pub type StorageResult<'a, T> = BoxFuture<'a, Result<T, Refusal>>;

/// Called with what a commit or cut is about to release, in the same step; an error stops it.
pub type Approve = Box<dyn FnOnce(Usage) -> Result<(), Refusal> + Send>;

/// Called with what a writer needs before any of it is made; an error stops it.
pub type Reserve = Box<dyn FnOnce(Need) -> Result<(), Refusal> + Send>;

/// Called with where a path leads; says what may be staged there, and how. An error stops it.
pub type Judge = Box<dyn FnOnce(VirtualPath) -> Result<Target, Refusal> + Send>;

/// What a writer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, whose last component is not a link.
    pub path: VirtualPath,
    /// How it is to be written.
    pub mode: WriteMode,
    /// What its commit may do there.
    pub rights: Rights,
}

/// The last bytes of a file in the making, which its commit writes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastPiece {
    /// Where they go.
    pub offset: u64,
    /// The bytes; there may be none.
    pub content: Bytes,
}

/// What a writer needs of the quota before its first byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// What making it puts on the disk: an entry, and the bytes of a copy.
    pub fresh: Usage,
    /// What is on the disk already and becomes its own: a parked part.
    pub adopted: Usage,
    /// What its commit is expected to take away.
    pub release: Usage,
}

/// What may be done under a name, for each thing that may stand there: only the storage
/// knows which it is in the very step of the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Put something under a free name.
    pub create: bool,
    /// Put something in the place of a file.
    pub replace: bool,
    /// Write at the end of a whole file.
    pub extend: bool,
    /// Go on with a file that is marked incomplete.
    pub resume: bool,
}

impl Rights {
    /// Whether something may be put under a name that is taken or free.
    ///
    /// # Errors
    /// `NotPermitted`.
    pub fn land(self, taken: bool) -> Result<(), Refusal> {
        allowed(if taken { self.replace } else { self.create })
    }

    /// Whether a file may be written where it stands.
    ///
    /// # Errors
    /// `NotPermitted`.
    pub fn write_in_place(self, incomplete: bool) -> Result<(), Refusal> {
        allowed(if incomplete { self.resume } else { self.extend })
    }
}

fn allowed(right: bool) -> Result<(), Refusal> {
    right.then_some(()).ok_or(Refusal::NotPermitted)
}

/// Keeps files under names.
pub trait Storage: Send + Sync + 'static {
    /// The entry at `path`. A link that stays inside is followed; one that
    /// leaves or leads nowhere is shown as itself.
    fn metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry>;

    /// The entry at `path`, whose last component is not followed.
    fn link_metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry>;

    /// `path` with every link in it followed, the last component included;
    /// what does not exist yet keeps its name.
    fn resolve<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, VirtualPath>;

    /// The entries of a directory, in no order, without what is staged or parked.
    fn list<'a>(
        &'a self,
        path: &'a VirtualPath,
        links: Links,
    ) -> StorageResult<'a, Box<dyn Batches>>;

    /// Opens a regular file for reading; it stays readable when it is removed meanwhile.
    fn open<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Box<dyn StoredFile>>;

    /// Opens a way to write to `path`, whose last component is not a link. `reserve` is
    /// asked before anything is made; the writer's commit obeys `rights` too.
    fn stage<'a>(
        &'a self,
        path: &'a VirtualPath,
        mode: WriteMode,
        rights: Rights,
        reserve: Reserve,
    ) -> StorageResult<'a, Box<dyn StagedFile>>;

    /// [`Storage::resolve`], `judge` and [`Storage::stage`] in one step.
    fn stage_where_it_leads<'a>(
        &'a self,
        path: &'a VirtualPath,
        judge: Judge,
        reserve: Reserve,
    ) -> StorageResult<'a, Box<dyn StagedFile>> {
        Box::pin(async move {
            let target = judge(self.resolve(path).await?)?;
            let Target { path, mode, rights } = target;
            self.stage(&path, mode, rights, reserve).await
        })
    }

    /// What a cut upload to `path` has left: a file marked incomplete, or one
    /// parked beside a whole one. Returns its size.
    fn partial<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Option<u64>>;

    /// The digest of the partial, which [`Storage::partial`] says exists.
    fn partial_digest<'a>(
        &'a self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
    ) -> StorageResult<'a, Digest>;

    /// Makes a directory.
    fn make_directory<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, ()>;

    /// Removes a directory that holds nothing but leftovers; says what went.
    fn remove_directory<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Usage>;

    /// Removes a file or link; says what went.
    fn remove_file<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Usage>;

    /// Renames; says what was replaced, and what was parked for either name. A directory
    /// replaces nothing.
    fn rename<'a>(
        &'a self,
        from: &'a VirtualPath,
        to: &'a VirtualPath,
        rights: Rights,
    ) -> StorageResult<'a, Usage>;

    /// Gives a file, whose last component is not a link, a second name, which must be free.
    /// `reserve` is asked before: every name of a file counts.
    fn link<'a>(
        &'a self,
        existing: &'a VirtualPath,
        link: &'a VirtualPath,
        reserve: Reserve,
    ) -> StorageResult<'a, ()>;

    /// Sets the modification time.
    fn set_modified<'a>(&'a self, path: &'a VirtualPath, time: SystemTime)
    -> StorageResult<'a, ()>;

    /// Sets the permission bits; those beyond 0o777 are dropped.
    fn set_mode<'a>(&'a self, path: &'a VirtualPath, mode: u32) -> StorageResult<'a, ()>;

    /// Counts everything, staged objects included, without changing anything.
    fn measure(&self) -> StorageResult<'_, Usage>;

    /// Deals with what a crash left staged, as with cut uploads, and counts
    /// everything. Only before the first session.
    fn recover(&self) -> StorageResult<'_, Usage>;

    /// Bytes free, where the storage knows.
    fn free_bytes(&self) -> StorageResult<'_, Option<u64>>;
}

/// What a listing shows of a link that stays inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Its target's facts under its own name.
    Follow,
    /// Itself.
    Show,
}

/// How a file is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// As a whole, from its start; it appears under its name at the commit.
    Replace,
    /// From `offset` on, keeping what is before and, until overwritten, behind it.
    ResumeAt(u64),
    /// At the end.
    Append,
    /// Anywhere in what stands there.
    Amend,
}

impl Rights {
    /// The first byte that a writer may change of a file of `size` bytes that it goes on with.
    ///
    /// # Errors
    /// `NotPermitted` when it may write nowhere.
    fn first_writable(self, incomplete: bool, size: u64) -> Result<u64, Refusal> {
        let anywhere = if incomplete {
            self.resume
        } else {
            self.replace
        };
        if anywhere {
            return Ok(0);
        }
        self.write_in_place(incomplete).map(|()| size)
    }
}

/// Entries in pieces.
pub trait Batches: Send {
    /// The next entries, at most `most`, which is more than none; `None` at the end.
    fn next(&mut self, most: usize) -> StorageResult<'_, Option<Vec<Entry>>>;
}

/// An open file.
pub trait StoredFile: Send + Sync {
    /// What it is, as of its opening.
    fn entry(&self) -> &Entry;

    /// What it is now.
    fn current_entry(&self) -> StorageResult<'_, Entry>;

    /// At most `length` bytes from `offset`; empty at the end.
    fn read_at(&self, offset: u64, length: usize) -> StorageResult<'_, Bytes>;

    /// The digest of the file or a range of it, cut at its end, and what it covers.
    fn digest(
        &self,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> StorageResult<'_, (Digest, ByteRange)>;

    /// The file of the operating system, where there is one.
    fn as_file(&self) -> Option<&Arc<File>>;
}

/// A file in the making.
///
/// A `write_at` whose future is dropped midway may have written or not; `cut` and
/// `discard` wait for it, and say exactly what is there.
pub trait StagedFile: Send + Sync {
    /// Where a writer that goes on in order begins.
    fn start(&self) -> u64;

    /// The first byte that may be changed.
    fn first_writable(&self) -> u64;

    /// How long the file is.
    fn length(&self) -> u64;

    /// Writes the pieces of `content` one behind the other from `offset` on, which may be beyond
    /// the end. A write that fails has made the file no longer.
    fn write_at(&mut self, offset: u64, content: Vec<Bytes>) -> StorageResult<'_, ()>;

    /// At most `length` bytes from `offset`; empty at the end.
    fn read_at(&self, offset: u64, length: usize) -> StorageResult<'_, Bytes>;

    /// Makes the file shorter, or longer by zeros. Returns how many bytes went that were there
    /// before this writer.
    fn set_length(&mut self, length: u64) -> StorageResult<'_, u64>;

    /// What it is now.
    fn entry(&self) -> StorageResult<'_, Entry>;

    /// Sets the modification time, until the next write.
    fn set_modified(&mut self, time: SystemTime) -> StorageResult<'_, ()>;

    /// Sets the permission bits; those beyond 0o777 are dropped.
    fn set_mode(&mut self, mode: u32, of: ModeOf) -> StorageResult<'_, ()>;

    /// Puts what was written on the disk.
    fn synchronize(&self) -> StorageResult<'_, ()>;

    /// Whether [`StagedFile::pour`] can be used.
    fn takes_a_tap(&self) -> bool {
        false
    }

    /// Pours the bytes of a stream into the file, from `offset` on; each piece is
    /// charged before it is written. Dropped midway as a write.
    fn pour(
        &mut self,
        offset: u64,
        tap: Box<dyn Tap>,
        meter: Box<dyn Meter>,
    ) -> BoxFuture<'_, Poured> {
        let _ = (offset, meter);
        Box::pin(std::future::ready(Poured {
            tap: Some(tap),
            bytes: 0,
            stop: Stop::Refused(Refusal::Unsupported),
        }))
    }

    /// Has `hasher` take in what stands in `range`, which was poured; meanwhile more may be poured
    /// behind it. A range that is not there is an error.
    fn hash_poured(&self, hasher: Hasher, range: ByteRange) -> StorageResult<'static, Hasher> {
        let _ = (hasher, range);
        Box::pin(std::future::ready(Err(Refusal::Unsupported)))
    }

    /// Writes `last`, then puts the file under its name in one step. With an error the old file
    /// stands and what was staged is gone; what was written in place, or where `last` could not be
    /// written, is as after a cut.
    fn commit(
        self: Box<Self>,
        last: LastPiece,
        approve: Approve,
    ) -> BoxFuture<'static, Result<Landed, NotLanded>>;

    /// Keeps what arrived, so that it can be resumed: under its name and marked incomplete when
    /// that is free, else parked beside. What lies behind a hole goes, since whoever resumes goes
    /// on at the end. An empty file, and one that `approve` refuses, goes.
    fn cut(self: Box<Self>, approve: Approve) -> StorageResult<'static, Kept>;

    /// Takes back everything since the staging; of a parked part that was resumed, all of it.
    fn discard(self: Box<Self>) -> StorageResult<'static, Kept>;

    /// Remembers `digest` with the file at its commit.
    fn remember(&mut self, digest: Digest);
}

/// Which file a mode is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeOf {
    /// One that is made: a file that is replaced hands its own on.
    NewFile,
    /// This one, whatever it replaces.
    ThisFile,
}

/// A file that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landed {
    /// As it stands.
    pub entry: Entry,
    /// What its commit took away.
    pub released: Usage,
}

/// A commit that failed.
#[derive(Debug)]
pub struct NotLanded {
    /// Why.
    pub refusal: Refusal,
    /// What is left of the file.
    pub kept: Kept,
}

/// What is left of a file that was not committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// What of its charge is still on the disk.
    pub held: Usage,
    /// What it took the place of.
    pub released: Usage,
}

/// Names that begin so are the storages' own: no client sees or names them.
const RESERVED: &[u8] = b".wharf-";

/// The longest that a file can be, in bytes: Linux counts in signed numbers of 64 bits.
const MAX_FILE_BYTES: u64 = i64::MAX.unsigned_abs();

/// Where `length` bytes from `offset` on end, if a file can be so long.
pub(crate) fn end_of(offset: u64, length: u64) -> Result<u64, Refusal> {
    offset
        .checked_add(length)
        .filter(|end| *end <= MAX_FILE_BYTES)
        .ok_or(Refusal::TooLarge)
}

/// How many of `length` bytes from `offset` on a file can have. The system takes a read beyond
/// that for a mistake, and not for one behind the end.
pub(crate) fn readable_at(offset: u64, length: usize) -> usize {
    let most = MAX_FILE_BYTES.saturating_sub(offset);
    usize::try_from(most).map_or(length, |most| length.min(most))
}

/// Whether `name` is the storages' own.
pub(crate) fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(RESERVED)
}

/// The last component of a path under which something is about to be made.
///
/// # Errors
/// `AlreadyExists` for the root, `InvalidName`.
pub(crate) fn new_name(path: &VirtualPath) -> Result<&[u8], Refusal> {
    let name = path.file_name().ok_or(Refusal::AlreadyExists)?;
    FileName::parse(name)?;
    if is_reserved(name) {
        return Err(Refusal::InvalidName(PathError::Reserved));
    }
    Ok(name)
}
