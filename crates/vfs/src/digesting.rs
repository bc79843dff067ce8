//! The digest of an upload, computed while it comes.

use futures_util::future::BoxFuture;
use wharf_model::{ByteRange, Digest, DigestAlgorithm, Hasher};

use crate::storage::StagedFile;

/// The digest of all bytes of a file up to a position.
pub(crate) struct Digesting {
    hasher: Hasher,
    position: u64,
}

impl Digesting {
    /// That of no bytes.
    pub(crate) fn new(algorithm: DigestAlgorithm) -> Self {
        Self {
            hasher: Hasher::new(algorithm),
            position: 0,
        }
    }

    /// Takes in what comes next.
    pub(crate) fn take_in(&mut self, content: &[u8]) {
        self.hasher.update(content);
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        self.position = self.position.saturating_add(length);
    }

    /// Takes in what the kernel has poured into `staged` up to `end`, and this process has not
    /// seen. None where it cannot be read back; whoever wants the digest then asks for it later.
    pub(crate) fn up_to(
        self,
        staged: &dyn StagedFile,
        end: u64,
    ) -> BoxFuture<'static, Option<Self>> {
        let range = ByteRange {
            start: self.position,
            end,
        };
        if range.start >= range.end {
            return Box::pin(std::future::ready(Some(self)));
        }
        let hashing = staged.hash_poured(self.hasher, range);
        Box::pin(async move {
            match hashing.await {
                Ok(hasher) => Some(Self {
                    hasher,
                    position: end,
                }),
                Err(refusal) => {
                    tracing::debug!(%refusal, "what was poured cannot be read back for its digest");
                    None
                }
            }
        })
    }

    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}
