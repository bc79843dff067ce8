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
use wharf_model::{ByteRange, Digest, DigestAlgorithm, Entry, Refusal, Usage, VirtualPath};

pub mod local;

/// What a storage operation returns.
pub type StorageResult<'a, T> = BoxFuture<'a, Result<T, Refusal>>;

/// Called with what a commit will release, in the same step as the commit;
/// an error stops it.
pub type Approve = Box<dyn FnOnce(Usage) -> Result<(), Refusal> + Send>;

/// Keeps files under names.
pub trait Storage: Send + Sync + 'static {
    /// The entry at `path`. A link that stays inside is followed; one that
    /// leaves or leads nowhere is shown as itself.
    fn metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry>;

    /// `path` with every link in it followed, the last component included;
    /// what does not exist yet keeps its name.
    fn resolve<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, VirtualPath>;

    /// The entries of a directory, in no order, without what is staged.
    fn list<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Box<dyn Batches>>;

    /// Opens a regular file for reading; it stays readable when it is removed meanwhile.
    fn open<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Box<dyn StoredFile>>;

    /// Opens a way to write to `path`, whose last component is not a link.
    fn stage<'a>(
        &'a self,
        path: &'a VirtualPath,
        mode: WriteMode,
    ) -> StorageResult<'a, Box<dyn StagedFile>>;

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

    /// Renames; says what was replaced. A directory replaces nothing.
    fn rename<'a>(&'a self, from: &'a VirtualPath, to: &'a VirtualPath)
    -> StorageResult<'a, Usage>;

    /// Sets the modification time.
    fn set_modified<'a>(&'a self, path: &'a VirtualPath, time: SystemTime)
    -> StorageResult<'a, ()>;

    /// Sets the permission bits; those beyond 0o777 are dropped.
    fn set_mode<'a>(&'a self, path: &'a VirtualPath, mode: u32) -> StorageResult<'a, ()>;

    /// The digest of a file or a range of it, cut at its end, and what it covers.
    fn digest<'a>(
        &'a self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> StorageResult<'a, (Digest, ByteRange)>;

    /// Counts everything, staged objects included, without changing anything.
    fn measure(&self) -> StorageResult<'_, Usage>;

    /// Deals with what a crash left staged, as with cut uploads, and counts
    /// everything. Only before the first session.
    fn recover(&self) -> StorageResult<'_, Usage>;

    /// Bytes free, where the storage knows.
    fn free_bytes(&self) -> StorageResult<'_, Option<u64>>;
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
}

/// Entries in pieces.
pub trait Batches: Send {
    /// The next entries; `None` at the end.
    fn next(&mut self) -> StorageResult<'_, Option<Vec<Entry>>>;
}

/// An open file.
pub trait StoredFile: Send + Sync {
    /// What it is, as of its opening.
    fn entry(&self) -> &Entry;

    /// At most `length` bytes from `offset`; empty at the end.
    fn read_at(&self, offset: u64, length: usize) -> StorageResult<'_, Bytes>;

    /// The file of the operating system, where there is one.
    fn as_file(&self) -> Option<&Arc<File>>;
}

/// A file in the making.
pub trait StagedFile: Send {
    /// Where the next byte goes.
    fn offset(&self) -> u64;

    /// What making it put on the disk already: an entry, and for a resumed copy its bytes.
    fn initial_usage(&self) -> Usage;

    /// What its commit is expected to take away.
    fn expected_release(&self) -> Usage;

    /// How many bytes longer the file becomes by `length` more.
    fn growth(&self, length: u64) -> u64;

    /// Appends `content`. A write that fails has put nothing beyond what [`StagedFile::growth`] allowed.
    fn write(&mut self, content: Bytes) -> StorageResult<'_, ()>;

    /// Puts the file under its name in one step. With an error the old file stands and what was staged is gone.
    fn commit(self: Box<Self>, approve: Approve) -> StorageResult<'static, Entry>;

    /// Keeps what arrived, so that it can be resumed. `approve` is asked in
    /// the same step; when it refuses, everything that arrived is given up.
    fn cut(self: Box<Self>, approve: Approve) -> StorageResult<'static, ()>;

    /// Takes back everything since the staging.
    fn discard(self: Box<Self>) -> StorageResult<'static, ()>;

    /// Remembers `digest` with the file at its commit.
    fn remember(&mut self, digest: Digest);
}
