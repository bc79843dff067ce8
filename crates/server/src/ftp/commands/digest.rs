//! Digests: HASH and the XCRC family.

use wharf_model::{ByteRange, DigestAlgorithm, Refusal};
use wharf_proto::ftp::reply::{Reply, ReplyCode};

use crate::ftp::session::{Outcome, Session};

impl Session {
    /// `213 SHA-256 0-49 <digest> <path>` (draft-bryan-ftpext-hash §3.3); the
    /// range includes its last byte, and is `0-0` for an empty file.
    pub(in crate::ftp) async fn hash(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let range = self.range.take();
        let target = self.resolve(path)?;
        let (digest, covered) = self
            .files()?
            .vfs
            .digest(&target, self.hash_algorithm, range)
            .await?;
        let last = covered.end.saturating_sub(1).max(covered.start);
        let mut text =
            format!("{} {}-{last} {digest} ", digest.algorithm(), covered.start).into_bytes();
        text.extend_from_slice(path);
        Ok(Reply::new(ReplyCode::FILE_STATUS, text).into())
    }

    /// `250 <digest>`, which is all that clients of these verbs read.
    pub(in crate::ftp) async fn digest(
        &mut self,
        algorithm: DigestAlgorithm,
        path: &[u8],
        (start, end): (u64, Option<u64>),
    ) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        let range = match (start, end) {
            (0, None) => None,
            (start, end) => {
                let Some(range) = ByteRange::new(start, end.unwrap_or(u64::MAX)) else {
                    return Ok(Reply::new(
                        ReplyCode::INVALID_ARGUMENT,
                        "The range ends before it starts.",
                    )
                    .into());
                };
                Some(range)
            }
        };
        let (digest, _) = self.files()?.vfs.digest(&target, algorithm, range).await?;
        Ok(Reply::new(ReplyCode::ACTION_OK, digest.to_string().to_uppercase()).into())
    }
}
