//! One upload: reserve, write, and then commit, cut or discard.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
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
/// Ends in one of three ways: [`Upload::commit`], [`Upload::cut`],
/// [`Upload::discard`]. Dropping it is a cut, carried out in the background.
pub struct Upload {
    /// `None` once it has ended.
    inner: Option<Inner>,
    name: Vec<u8>,
}

struct Inner {
    staged: Box<dyn StagedFile>,
    /// Shared with the closure that a commit runs beside the tree's lock; the
    /// lock is never contended.
    claim: Arc<Mutex<Claim>>,
    hasher: Option<Hasher>,
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
        claim: Claim,
        name: Vec<u8>,
        digest: Option<DigestAlgorithm>,
    ) -> Self {
        let from_the_start = staged.offset() == 0;
        Self {
            inner: Some(Inner {
                staged,
                claim: Arc::new(Mutex::new(claim)),
                hasher: digest.filter(|_| from_the_start).map(Hasher::new),
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
    /// writes it. Not safe to drop midway: some of it may have been written.
    ///
    /// # Errors
    /// `OverQuota` before anything of `content` is written; otherwise what the storage says.
    pub async fn write(&mut self, content: Bytes) -> Result<(), Refusal> {
        let Some(inner) = &mut self.inner else {
            return Ok(());
        };
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let growth = Usage {
            bytes: inner.staged.growth(length),
            files: 0,
        };
        with(&inner.claim, |claim| claim.reserve(growth))?;
        let hashed = content.clone();
        if let Err(refusal) = inner.staged.write(content).await {
            with(&inner.claim, |claim| claim.refund(growth));
            return Err(refusal);
        }
        if let Some(hasher) = &mut inner.hasher {
            hasher.update(&hashed);
        }
        Ok(())
    }

    /// Puts the file in its place, in one step.
    ///
    /// # Errors
    /// `OverQuota` when what it was to replace has become smaller meanwhile;
    /// otherwise what the storage says. The old file stands then.
    pub async fn commit(mut self) -> Result<Committed, Refusal> {
        let Some(mut inner) = self.inner.take() else {
            return Err(Refusal::NotFound);
        };
        let digest = inner.hasher.take().map(Hasher::finish);
        if let Some(digest) = &digest {
            inner.staged.remember(digest.clone());
        }
        let committed = inner.staged.commit(approve(&inner.claim)).await;
        settle_failure(&inner.claim, committed.as_ref().err());
        Ok(Committed {
            entry: committed?,
            digest,
        })
    }

    /// Keeps what arrived, so that it can be resumed.
    ///
    /// # Errors
    /// What the storage says; what arrived is gone then.
    pub async fn cut(mut self) -> Result<(), Refusal> {
        match self.inner.take() {
            Some(inner) => inner.cut().await,
            None => Ok(()),
        }
    }

    /// Takes back everything that arrived.
    pub async fn discard(mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        match inner.staged.discard().await {
            Ok(()) => with(&inner.claim, Claim::refund_all),
            // It stays charged, since it may still be there; a recount will tell.
            Err(refusal) => tracing::warn!(%refusal, "an upload could not be taken back"),
        }
    }
}

impl Inner {
    async fn cut(self) -> Result<(), Refusal> {
        let cut = self.staged.cut(approve(&self.claim)).await;
        settle_failure(&self.claim, cut.as_ref().err());
        cut
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        // Without a runtime the process is ending; the next start recovers.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = inner.cut().await;
            });
        }
    }
}

fn approve(claim: &Arc<Mutex<Claim>>) -> Approve {
    let claim = Arc::clone(claim);
    Box::new(move |released| with(&claim, |claim| claim.settle(released)))
}

/// After a failed commit or cut the staged file is gone, and with it its charge.
fn settle_failure(claim: &Mutex<Claim>, failure: Option<&Refusal>) {
    if failure.is_some() {
        with(claim, Claim::refund_all);
    }
}

fn with<T>(claim: &Mutex<Claim>, work: impl FnOnce(&mut Claim) -> T) -> T {
    work(&mut claim.lock().unwrap_or_else(PoisonError::into_inner))
}
