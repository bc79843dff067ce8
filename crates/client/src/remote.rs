//! A session with a server, whatever protocol it speaks.
//!
//! A session does one thing at a time, hence `&mut self` throughout; several at
//! once are several sessions (see `pool.rs`). Paths are absolute: what a person
//! wrote is resolved against [`Remote::home`] before it comes here.
//!
//! Dropping a future of this trait, or a stream before its `finish`, is safe
//! and leaves the session unusable ([`Remote::is_usable`]): the server may
//! still answer what was asked.

use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wharf_model::{ByteRange, Digest, DigestAlgorithm, VirtualPath};
pub use wharf_proto::ftp::list::{Precision, RemoteEntry};

use crate::error::ClientError;

/// What a call that talks to a server gives.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ClientError>>;

/// One session, logged in.
pub trait Remote: Send {
    /// The directory that the login led to.
    fn home(&self) -> &VirtualPath;

    /// What the server can do beyond the essentials.
    fn abilities(&self) -> &Abilities;

    /// Whether the session can take another call.
    fn is_usable(&self) -> bool;

    /// What stands at `path`.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], and whatever ends sessions.
    fn stat<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, RemoteEntry>;

    /// The entries of a directory, in the server's order, without `.` and
    /// `..`. Names are foreign: parse each with `FileName` before building a path of it.
    fn list<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, Vec<RemoteEntry>>;

    /// Opens a file for reading from `offset` on.
    fn open_read<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        offset: u64,
    ) -> Answer<'a, Box<dyn RemoteRead + 'a>>;

    /// Opens a file for writing.
    fn open_write<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        start: WriteStart,
    ) -> Answer<'a, Box<dyn RemoteWrite + 'a>>;

    /// Removes a file.
    fn remove<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()>;

    /// Makes a directory; the one above it must exist.
    fn make_directory<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()>;

    /// Removes an empty directory.
    fn remove_directory<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, ()>;

    /// Gives an entry another path.
    fn rename<'a>(&'a mut self, from: &'a VirtualPath, to: &'a VirtualPath) -> Answer<'a, ()>;

    /// Sets the time of last modification; `false` where the server cannot or will not.
    fn set_modified<'a>(&'a mut self, path: &'a VirtualPath, time: SystemTime) -> Answer<'a, bool>;

    /// Finds out which digests the server makes, where that has to be tried;
    /// from then on [`Self::abilities`] tells them.
    fn learn_digests(&mut self) -> Answer<'_, ()> {
        std::future::ready(Ok(())).boxed()
    }

    /// The server's digest of a file, or of a range of it.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`] for an algorithm that [`Abilities`] does not list.
    fn digest<'a>(
        &'a mut self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Answer<'a, Digest>;

    /// What a cut upload to `path` left on the server; `None` where there is
    /// nothing or the server does not tell.
    fn partial<'a>(&'a mut self, path: &'a VirtualPath) -> Answer<'a, Option<RemotePartial>>;

    /// Asks whether the server still listens.
    fn check(&mut self) -> Answer<'_, ()>;

    /// Says goodbye, without waiting long for an answer.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// A file that is being read.
pub trait RemoteRead: Send {
    /// The next bytes; 0 at the end. The session's stall deadline applies.
    fn read<'a>(&'a mut self, buffer: &'a mut [u8]) -> Answer<'a, usize>;

    /// Hears from the server that this was all.
    fn finish<'a>(self: Box<Self>) -> Answer<'a, ()>
    where
        Self: 'a;
}

/// A file that is being written.
pub trait RemoteWrite: Send {
    /// Writes all of `bytes`. The session's stall deadline applies.
    fn write<'a>(&'a mut self, bytes: &'a [u8]) -> Answer<'a, ()>;

    /// Ends the file and hears from the server that it is in place.
    fn finish<'a>(self: Box<Self>) -> Answer<'a, ()>
    where
        Self: 'a;
}

/// Where writing starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteStart {
    /// At the first byte; what stood under the name is replaced.
    Replace,
    /// At an offset of what an earlier transfer left.
    At(u64),
}

/// What a cut upload left on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePartial {
    /// Bytes that are there.
    pub size: u64,
    /// Digest of these bytes.
    pub digest: Digest,
}

/// What a server can do beyond the essentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Abilities {
    /// The digests that it makes, the best first.
    pub digests: Vec<DigestAlgorithm>,
    /// Whether it makes them of a range too.
    pub digests_of_ranges: bool,
    /// Whether it tells what a cut upload left ([`Remote::partial`]). Then a
    /// file that is not marked incomplete is complete.
    pub tells_partials: bool,
    /// Whether reading and writing can start at an offset.
    pub restarts: bool,
    /// Whether listings tell exact times and sizes.
    pub exact_listings: bool,
}

impl Abilities {
    /// The digest to compare whole files by.
    pub fn best_digest(&self) -> Option<DigestAlgorithm> {
        self.digests.first().copied()
    }

    /// The digest to prove the begin of a file by.
    pub fn best_range_digest(&self) -> Option<DigestAlgorithm> {
        self.best_digest().filter(|_| self.digests_of_ranges)
    }
}

/// The algorithms in the order in which this client prefers them: ours first,
/// then what most servers have, then what guards against accidents only.
pub const PREFERENCE: [DigestAlgorithm; 6] = [
    DigestAlgorithm::Blake3,
    DigestAlgorithm::Sha256,
    DigestAlgorithm::Sha512,
    DigestAlgorithm::Sha1,
    DigestAlgorithm::Md5,
    DigestAlgorithm::Crc32,
];

/// The most that one listing may hold: beyond it a server is broken or hostile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListingBounds {
    pub(crate) entries: usize,
    pub(crate) bytes: u64,
}

/// An entry takes some 150 bytes of memory and its name, so that a hostile
/// listing costs about 130 MB at most; directories of this size are beyond what
/// servers list in good time.
pub(crate) const LISTING_BOUNDS: ListingBounds = ListingBounds {
    entries: 500_000,
    bytes: 64 * 1024 * 1024,
};

impl ListingBounds {
    /// Refuses a listing that has come to more.
    pub(crate) fn check(self, entries: usize, bytes: u64) -> Result<(), ClientError> {
        if entries > self.entries || bytes > self.bytes {
            return Err(ClientError::Protocol("a listing does not end".to_owned()));
        }
        Ok(())
    }
}

/// Makes sessions.
pub trait Connector: Send + Sync {
    /// Connects and logs in.
    fn connect(&self) -> Answer<'_, Box<dyn Remote>>;
}
