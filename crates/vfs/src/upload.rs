//! One upload: reserve, write, and then commit, cut or discard.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::SystemTime;

use bytes::Bytes;
use tracing::Instrument as _;
use wharf_model::{Digest, DigestAlgorithm, Entry, Refusal, Usage};

use crate::digesting::Digesting;
use crate::open::OpenSlot;
use crate::quota::Claim;
use crate::storage::{Approve, LastPiece, Meter, ModeOf, Poured, StagedFile, Stop, Tap, end_of};

/// What an upload does to what stands under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Puts a new file in its place, as a whole.
    Replace,
    /// Goes on at this byte.
    ResumeAt(u64),
    /// Adds to its end.
    Append,
    /// Leaves it, and takes a name like it that is free.
    Unique,
    /// Changes it where it stands, at any byte; makes it where there is none.
    Amend,
}

/// How an upload is to be made.
#[derive(Debug, Clone, Copy)]
pub struct UploadOptions {
    /// What happens to what stands there.
    pub disposition: Disposition,
    /// How many bytes will come, where the client has said; an upload that
    /// cannot fit is then refused before it starts.
    pub announced_bytes: Option<u64>,
    /// A digest to compute while writing. Only of an upload from the start, in order.
    pub digest: Option<DigestAlgorithm>,
}

/// How a file is to be opened for writing at any byte.
#[derive(Debug, Clone, Copy)]
pub struct WriteOptions {
    /// What happens to what stands there.
    pub disposition: Disposition,
    /// Whether something has to stand there.
    pub existing: Existing,
    /// The permission bits of a file that is made.
    pub mode: Option<u32>,
    /// It will be read as well.
    pub readable: bool,
}

/// What has to stand under a name that is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Something or nothing.
    Any,
    /// Something.
    Required,
    /// Nothing.
    Refused,
}

/// A file that is being uploaded.
///
/// Ends in one of three ways: [`Upload::commit`], [`Upload::cut`], [`Upload::discard`];
/// a future of these that is dropped midway still runs to its end. Dropping the upload
/// itself is a cut, carried out in the background.
pub struct Upload {
    /// `None` once it has ended.
    inner: Option<Inner>,
    name: Vec<u8>,
}

/// The part of the ledger that an upload has. Shared with the closures that the
/// storage calls beside its own lock; never contended.
pub(crate) type SharedClaim = Arc<Mutex<Claim>>;

struct Inner {
    staged: Box<dyn StagedFile>,
    _slot: OpenSlot,
    claim: SharedClaim,
    /// None where nobody wants it, or bytes came out of order.
    digesting: Option<Digesting>,
    /// Where the next byte of a writer that goes on in order goes.
    position: u64,
    /// Whether the account may change mode and times here.
    may_set_attributes: bool,
    /// No write has failed or been dropped midway: everything is there.
    sound: bool,
}

/// What a commit has put in place.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The file, as it now stands.
    pub entry: Entry,
    /// Its digest, where one was asked for.
    pub digest: Option<Digest>,
}

impl Upload {
    pub(crate) fn new(
        (staged, slot): (Box<dyn StagedFile>, OpenSlot),
        claim: SharedClaim,
        name: Vec<u8>,
        digest: Option<DigestAlgorithm>,
        may_set_attributes: bool,
    ) -> Self {
        let position = staged.start();
        let from_the_start = position == 0 && staged.length() == 0;
        Self {
            inner: Some(Inner {
                staged,
                _slot: slot,
                claim,
                digesting: digest.filter(|_| from_the_start).map(Digesting::new),
                position,
                may_set_attributes,
                sound: true,
            }),
            name,
        }
    }

    /// The name of the file, the last component of its path.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Where the next byte goes.
    pub fn offset(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.position)
    }

    /// How long the file is.
    pub fn length(&self) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.staged.length())
    }

    /// Adds `content`: reserves exactly what it makes the file grow by, then
    /// writes it. Dropped midway, some of it may have been written, and the upload
    /// can only be cut or discarded from then on.
    ///
    /// # Errors
    /// `OverQuota` before anything of `content` is written; otherwise what the storage says.
    pub async fn write(&mut self, content: Bytes) -> Result<(), Refusal> {
        self.inner()?.write(content).await
    }

    /// Writes the pieces of `content` one behind the other from `offset` on, over what is there
    /// or beyond the end; then what lies between counts too. Reserves exactly what it makes the file
    /// grow by. Dropped midway as [`Upload::write`].
    ///
    /// # Errors
    /// `NotPermitted` where only the end may be written, `OverQuota` and `TooLarge` before
    /// anything is written; otherwise what the storage says.
    pub async fn write_at(&mut self, offset: u64, content: Vec<Bytes>) -> Result<(), Refusal> {
        self.inner()?.write_at(offset, content).await
    }

    /// As [`Upload::write_at`], at the end.
    ///
    /// # Errors
    /// Those of [`Upload::write_at`].
    pub async fn append(&mut self, content: Vec<Bytes>) -> Result<(), Refusal> {
        let inner = self.inner()?;
        inner.write_at(inner.staged.length(), content).await
    }

    /// At most `length` bytes of the file as it is now, from `offset`; empty at the end. Whether
    /// that may be read was judged when the upload began ([`crate::WriteOptions::readable`]).
    ///
    /// # Errors
    /// What the storage says.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Refusal> {
        let inner = self.inner.as_ref().ok_or_else(unsound)?;
        inner.staged.read_at(offset, length).await
    }

    /// Makes the file shorter, or longer by zeros, which count. Dropped midway as [`Upload::write`].
    ///
    /// # Errors
    /// Those of [`Upload::write_at`].
    pub async fn set_length(&mut self, length: u64) -> Result<(), Refusal> {
        self.inner()?.set_length(length).await
    }

    /// What the file is now.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn entry(&self) -> Result<Entry, Refusal> {
        let inner = self.inner.as_ref().ok_or_else(unsound)?;
        inner.staged.entry().await
    }

    /// Sets the modification time, which the next write changes. Needs `ATTRIBUTES`.
    ///
    /// # Errors
    /// `NotPermitted`.
    pub async fn set_modified(&mut self, time: SystemTime) -> Result<(), Refusal> {
        let inner = self.inner_with_attributes()?;
        inner.staged.set_modified(time).await
    }

    /// Sets the permission bits. Needs `ATTRIBUTES`.
    ///
    /// # Errors
    /// `NotPermitted`.
    pub async fn set_mode(&mut self, mode: u32) -> Result<(), Refusal> {
        let inner = self.inner_with_attributes()?;
        inner.staged.set_mode(mode, ModeOf::ThisFile).await
    }

    /// Sets the permission bits that a new file gets; where the account may not, or where there
    /// is a file to replace, nothing changes.
    pub(crate) async fn suggest_mode(&mut self, mode: u32) -> Result<(), Refusal> {
        match self.inner_with_attributes() {
            Ok(inner) => inner.staged.set_mode(mode, ModeOf::NewFile).await,
            Err(_) => Ok(()),
        }
    }

    /// Puts what was written on the disk.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn synchronize(&self) -> Result<(), Refusal> {
        let inner = self.inner.as_ref().ok_or_else(unsound)?;
        inner.staged.synchronize().await
    }

    fn inner(&mut self) -> Result<&mut Inner, Refusal> {
        self.inner.as_mut().ok_or_else(unsound)
    }

    fn inner_with_attributes(&mut self) -> Result<&mut Inner, Refusal> {
        let inner = self.inner()?;
        if inner.may_set_attributes {
            Ok(inner)
        } else {
            Err(Refusal::NotPermitted)
        }
    }

    /// Puts the file in its place, in one step.
    ///
    /// # Errors
    /// `OverQuota` when what it was to replace has become smaller meanwhile;
    /// `NotPermitted` when another file came to stand there that may not be replaced;
    /// otherwise what the storage says. The old file stands then. After a write that
    /// failed or was dropped it is a cut, and an `Io`.
    pub async fn commit(self) -> Result<Committed, Refusal> {
        self.commit_with(Bytes::new()).await
    }

    /// [`Upload::write`] and [`Upload::commit`] in one step.
    ///
    /// # Errors
    /// Those of both; the upload has ended then, as after [`Upload::commit`].
    pub async fn commit_with(mut self, last: Bytes) -> Result<Committed, Refusal> {
        let inner = self.inner.take().ok_or_else(unsound)?;
        run_to_end(inner.commit(last)).await
    }

    /// Whether [`Upload::pour`] can be used: the storage has a file.
    pub fn takes_a_tap(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.is_some_and(|inner| inner.staged.takes_a_tap())
    }

    /// Pours what comes out of `tap` to where the next byte goes, until it is dry,
    /// ends or breaks, or a while has passed. Each piece is charged before it is written. Dropped
    /// midway as [`Upload::write`].
    pub async fn pour(&mut self, tap: Box<dyn Tap>) -> Poured {
        match self.inner() {
            Ok(inner) => inner.pour(tap).await,
            Err(refusal) => Poured {
                tap: Some(tap),
                bytes: 0,
                stop: Stop::Refused(refusal),
            },
        }
    }

    /// Keeps what arrived, so that it can be resumed.
    ///
    /// # Errors
    /// What the storage says; what arrived is gone then.
    pub async fn cut(mut self) -> Result<(), Refusal> {
        let inner = self.inner.take().ok_or_else(unsound)?;
        run_to_end(inner.cut()).await
    }

    /// Takes back everything that arrived.
    pub async fn discard(mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        // It stays charged, since it may still be there; a recount will tell.
        if let Err(refusal) = run_to_end(inner.discard()).await {
            tracing::warn!(%refusal, "an upload could not be taken back");
        }
    }
}

impl Inner {
    async fn write(&mut self, content: Bytes) -> Result<(), Refusal> {
        let hashed = content.clone();
        let end = end_of(self.position, length_of(&hashed))?;
        // What is written in order is what is hashed.
        let mut digesting = self.digest_poured().await;
        let mut hash = || {
            let taking = digesting.iter_mut();
            taking.for_each(|digesting| digesting.take_in(&hashed));
        };
        let written = {
            let mut writing = pin!(self.write_at(self.position, vec![content]));
            match futures_util::poll!(&mut writing) {
                Poll::Ready(written) => written.map(|()| hash()),
                Poll::Pending => {
                    // Another thread writes it meanwhile.
                    hash();
                    writing.await
                }
            }
        };
        if self.sound {
            self.digesting = digesting;
        }
        written?;
        self.position = end;
        Ok(())
    }

    /// The digest, once it has everything up to where the next byte goes. Taken away meanwhile.
    fn digest_poured(&mut self) -> impl Future<Output = Option<Digesting>> + Send + use<> {
        let digesting = self.digesting.take();
        let caught_up = digesting.map(|digesting| digesting.up_to(&*self.staged, self.position));
        async { caught_up?.await }
    }

    async fn write_at(&mut self, offset: u64, content: Vec<Bytes>) -> Result<(), Refusal> {
        if !self.sound {
            return Err(unsound());
        }
        if offset < self.staged.first_writable() {
            return Err(Refusal::NotPermitted);
        }
        let added = content.iter().map(length_of).fold(0, u64::saturating_add);
        if added == 0 {
            return Ok(());
        }
        let growth = growth(self.staged.length(), end_of(offset, added)?);
        with(&self.claim, |claim| claim.reserve(growth))?;
        self.digesting = None;
        // An error and a dropped future both leave it so.
        self.sound = false;
        if let Err(refusal) = self.staged.write_at(offset, content).await {
            with(&self.claim, |claim| claim.refund(growth));
            return Err(refusal);
        }
        self.sound = true;
        Ok(())
    }

    async fn set_length(&mut self, length: u64) -> Result<(), Refusal> {
        if !self.sound {
            return Err(unsound());
        }
        if length < self.staged.first_writable() {
            return Err(Refusal::NotPermitted);
        }
        let before = self.staged.length();
        let growth = growth(before, end_of(length, 0)?);
        with(&self.claim, |claim| claim.reserve(growth))?;
        self.digesting = None;
        self.sound = false;
        match self.staged.set_length(length).await {
            Ok(gone) => {
                let own = before.saturating_sub(length).saturating_sub(gone);
                with(&self.claim, |claim| {
                    claim.refund(bytes(own));
                    claim.release(bytes(gone));
                });
                self.sound = true;
                Ok(())
            }
            Err(refusal) => {
                with(&self.claim, |claim| claim.refund(growth));
                Err(refusal)
            }
        }
    }

    async fn pour(&mut self, tap: Box<dyn Tap>) -> Poured {
        let refused = |tap, refusal| Poured {
            tap: Some(tap),
            bytes: 0,
            stop: Stop::Refused(refusal),
        };
        if !self.sound {
            return refused(tap, unsound());
        }
        if self.position < self.staged.first_writable() {
            return refused(tap, Refusal::NotPermitted);
        }
        // What was poured before is read back while more is poured: another processor has time.
        let behind = self.digest_poured();
        // An error of the storage and a dropped future both leave it so.
        self.sound = false;
        let meter = Box::new(ClaimMeter(Arc::clone(&self.claim)));
        let pouring = self.staged.pour(self.position, tap, meter);
        let (poured, digesting) = futures_util::future::join(pouring, behind).await;
        self.digesting = digesting;
        self.position = self.position.saturating_add(poured.bytes);
        self.sound = !matches!(poured.stop, Stop::Refused(_));
        poured
    }

    /// Charges the last piece, which the commit writes.
    fn reserve_last(&mut self, last: Bytes) -> Result<LastPiece, Refusal> {
        if !self.sound {
            return Err(unsound());
        }
        if last.is_empty() {
            // The file may be shorter than where the next byte would go; it stays so.
            return Ok(LastPiece::default());
        }
        let offset = self.position;
        if offset < self.staged.first_writable() {
            return Err(Refusal::NotPermitted);
        }
        let growth = growth(self.staged.length(), end_of(offset, length_of(&last))?);
        with(&self.claim, |claim| claim.reserve(growth))?;
        Ok(LastPiece {
            offset,
            content: last,
        })
    }

    async fn commit(mut self, last: Bytes) -> Result<Committed, Refusal> {
        let last = match self.reserve_last(last) {
            Ok(last) => last,
            Err(refusal @ Refusal::OverQuota(_)) => {
                // Keeping the part would leave the account full with something useless.
                self.discard().await?;
                return Err(refusal);
            }
            Err(refusal) => {
                self.cut().await?;
                return Err(refusal);
            }
        };
        let digest = self.digest_poured().await.map(|mut digesting| {
            digesting.take_in(&last.content);
            digesting.finish()
        });
        if let Some(digest) = &digest {
            self.staged.remember(digest.clone());
        }
        match self.staged.commit(last, approve(&self.claim)).await {
            Ok(landed) => {
                with(&self.claim, |claim| {
                    claim.settle(claim.charged(), landed.released);
                });
                Ok(Committed {
                    entry: landed.entry,
                    digest,
                })
            }
            Err(failed) => {
                with(&self.claim, |claim| {
                    claim.settle(failed.kept.held, failed.kept.released);
                });
                Err(failed.refusal)
            }
        }
    }

    async fn cut(self) -> Result<(), Refusal> {
        let kept = self.staged.cut(approve(&self.claim)).await;
        let settled = kept.as_ref().copied().unwrap_or_default();
        with(&self.claim, |claim| {
            claim.settle(settled.held, settled.released);
        });
        kept.map(drop)
    }

    async fn discard(self) -> Result<(), Refusal> {
        let kept = self.staged.discard().await?;
        with(&self.claim, |claim| claim.settle(kept.held, kept.released));
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        // Without a runtime the process is ending; the next start recovers.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(
                async move {
                    if let Err(refusal) = inner.cut().await {
                        tracing::warn!(%refusal, "an abandoned upload could not be kept");
                    }
                }
                .in_current_span(),
            );
        }
    }
}

/// Runs a change to its end even when the caller goes away in the middle of it, so
/// that what the storage did is also what the ledger says.
pub(crate) async fn run_to_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let mut change = Box::pin(change);
    // What waits for nothing needs no task of its own.
    if let Poll::Ready(done) = futures_util::poll!(&mut change) {
        return done;
    }
    tokio::spawn(change.in_current_span())
        .await
        .unwrap_or_else(|gone| Err(Refusal::Io(io::Error::other(gone))))
}

/// Charges pieces to the claim of an upload.
struct ClaimMeter(SharedClaim);

impl Meter for ClaimMeter {
    fn reserve(&mut self, added: u64) -> Result<(), Refusal> {
        with(&self.0, |claim| claim.reserve(bytes(added)))
    }

    fn refund(&mut self, taken_back: u64) {
        with(&self.0, |claim| claim.refund(bytes(taken_back)));
    }
}

fn approve(claim: &SharedClaim) -> Approve {
    let claim = Arc::clone(claim);
    Box::new(move |released| with(&claim, |claim| claim.admit(released)))
}

pub(crate) fn with<T>(claim: &Mutex<Claim>, work: impl FnOnce(&mut Claim) -> T) -> T {
    work(&mut claim.lock().unwrap_or_else(PoisonError::into_inner))
}

fn growth(before: u64, after: u64) -> Usage {
    bytes(after.saturating_sub(before))
}

fn bytes(bytes: u64) -> Usage {
    Usage { bytes, files: 0 }
}

fn length_of(content: &Bytes) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

fn unsound() -> Refusal {
    Refusal::Io(io::Error::other("an earlier write of this upload failed"))
}
