//! One upload: reserve, write, and then commit, cut or discard.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tracing::Instrument as _;
use wharf_model::{Digest, DigestAlgorithm, Entry, Hasher, Refusal, Usage};

use crate::quota::Claim;
use crate::storage::{Approve, StagedFile};

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
}

/// How an upload is to be made.
#[derive(Debug, Clone, Copy)]
pub struct UploadOptions {
    /// What happens to what stands there.
    pub disposition: Disposition,
    /// How many bytes will come, where the client has said; an upload that
    /// cannot fit is then refused before it starts.
    pub announced_bytes: Option<u64>,
    /// A digest to compute while writing. Only of an upload from the start.
    pub digest: Option<DigestAlgorithm>,
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
    claim: SharedClaim,
    hasher: Option<Hasher>,
    /// No write has failed or been dropped midway: everything is there and in order.
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
        staged: Box<dyn StagedFile>,
        claim: SharedClaim,
        name: Vec<u8>,
        digest: Option<DigestAlgorithm>,
    ) -> Self {
        let from_the_start = staged.offset() == 0;
        Self {
            inner: Some(Inner {
                staged,
                claim,
                hasher: digest.filter(|_| from_the_start).map(Hasher::new),
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
        self.inner.as_ref().map_or(0, |inner| inner.staged.offset())
    }

    /// Adds `content`: reserves exactly what it makes the file grow by, then
    /// writes it. Dropped midway, some of it may have been written, and the upload
    /// can only be cut or discarded from then on.
    ///
    /// # Errors
    /// `OverQuota` before anything of `content` is written; otherwise what the storage says.
    pub async fn write(&mut self, content: Bytes) -> Result<(), Refusal> {
        match &mut self.inner {
            Some(inner) => inner.write(content).await,
            None => Err(unsound()),
        }
    }

    /// Puts the file in its place, in one step.
    ///
    /// # Errors
    /// `OverQuota` when what it was to replace has become smaller meanwhile;
    /// `NotPermitted` when another file came to stand there that may not be replaced;
    /// otherwise what the storage says. The old file stands then. After a write that
    /// failed or was dropped it is a cut, and an `Io`.
    pub async fn commit(mut self) -> Result<Committed, Refusal> {
        let inner = self.inner.take().ok_or_else(unsound)?;
        run_to_end(inner.commit()).await
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
        if !self.sound {
            return Err(unsound());
        }
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let growth = Usage {
            bytes: self.staged.growth(length),
            files: 0,
        };
        with(&self.claim, |claim| claim.reserve(growth))?;
        let hashed = content.clone();
        // An error and a dropped future both leave it so.
        self.sound = false;
        if let Err(refusal) = self.staged.write(content).await {
            with(&self.claim, |claim| claim.refund(growth));
            return Err(refusal);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&hashed);
        }
        self.sound = true;
        Ok(())
    }

    async fn commit(mut self) -> Result<Committed, Refusal> {
        if !self.sound {
            self.cut().await?;
            return Err(unsound());
        }
        let digest = self.hasher.take().map(Hasher::finish);
        if let Some(digest) = &digest {
            self.staged.remember(digest.clone());
        }
        match self.staged.commit(approve(&self.claim)).await {
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
    tokio::spawn(change.in_current_span())
        .await
        .unwrap_or_else(|gone| Err(Refusal::Io(io::Error::other(gone))))
}

fn approve(claim: &SharedClaim) -> Approve {
    let claim = Arc::clone(claim);
    Box::new(move |released| with(&claim, |claim| claim.admit(released)))
}

pub(crate) fn with<T>(claim: &Mutex<Claim>, work: impl FnOnce(&mut Claim) -> T) -> T {
    work(&mut claim.lock().unwrap_or_else(PoisonError::into_inner))
}

fn unsound() -> Refusal {
    Refusal::Io(io::Error::other("an earlier write of this upload failed"))
}
