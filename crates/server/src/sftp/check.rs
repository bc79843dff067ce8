//! check-file: digests of what is open or stands under a name
//! (draft-ietf-secsh-filexfer-extensions-00 §3).

use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wharf_model::{ByteRange, DigestAlgorithm, Hasher, Refusal};
use wharf_proto::sftp::{CheckedFile, MAX_READ_BYTES, Response, check_file_name, known_algorithm};
use wharf_vfs::{Download, Upload};

use super::refusal::Problem;

/// Smallest block with a digest of its own (§3).
pub(super) const MIN_BLOCK_BYTES: u32 = 256;

/// Bytes that are read in one step.
const STEP_BYTES: u64 = 1024 * 1024;

/// What is to be looked at.
pub(super) struct Check {
    algorithm: DigestAlgorithm,
    start: u64,
    /// `u64::MAX` for the end of the file.
    end: u64,
    /// 0 for all in one.
    block_bytes: u64,
    echoed: bool,
}

/// Digests that a session computes at a time: each keeps a processor busy that others wait for, too.
const MAX_AT_A_TIME: usize = 2;

/// The turns of a session's digests, and what ends them.
pub(super) struct Checks {
    turns: Semaphore,
    ending: CancellationToken,
}

impl Checks {
    /// Those of a session that ends with `ending`.
    pub(super) fn new(ending: CancellationToken) -> Self {
        Self {
            turns: Semaphore::new(MAX_AT_A_TIME),
            ending,
        }
    }
}

/// Where the content is.
pub(super) enum Source<'a> {
    Download(&'a Download),
    Upload(&'a Upload),
}

impl Source<'_> {
    async fn read_at(&self, offset: u64, length: u64) -> Result<Bytes, Refusal> {
        let length = usize::try_from(length.min(STEP_BYTES)).unwrap_or(usize::MAX);
        match self {
            Self::Download(download) => download.read_at(offset, length).await,
            Self::Upload(upload) => upload.read_at(offset, length).await,
        }
    }
}

impl Check {
    /// Reads what a client asks for.
    pub(super) fn new(
        algorithms: &[u8],
        (offset, length): (u64, u64),
        block_bytes: u32,
        echoed: bool,
    ) -> Result<Self, Problem> {
        if (1..MIN_BLOCK_BYTES).contains(&block_bytes) {
            return Err(Problem::SmallBlocks);
        }
        Ok(Self {
            algorithm: known_algorithm(algorithms).ok_or(Problem::NoAlgorithm)?,
            start: offset,
            end: match length {
                0 => u64::MAX,
                length => offset.saturating_add(length),
            },
            block_bytes: u64::from(block_bytes),
            echoed,
        })
    }

    /// Looks at an open file, when it is its turn.
    pub(super) async fn run(
        &self,
        source: Source<'_>,
        checks: &Checks,
    ) -> Result<Response, Problem> {
        let _turn = checks.turns.acquire().await;
        match source {
            Source::Download(download) if self.block_bytes == 0 => {
                self.in_one(download, &checks.ending).await
            }
            _ => self.in_blocks(&source, &checks.ending).await,
        }
    }

    /// One digest of it all, which may be known already.
    async fn in_one(
        &self,
        download: &Download,
        ending: &CancellationToken,
    ) -> Result<Response, Problem> {
        let range = ByteRange {
            start: self.start,
            end: self.end,
        };
        let range = (self.start > 0 || self.end < u64::MAX).then_some(range);
        // Dropped, it stops.
        let (digest, _) = tokio::select! {
            digest = download.digest(self.algorithm, range) => digest?,
            () = ending.cancelled() => return Err(Problem::Ending),
        };
        Ok(self.response(Bytes::copy_from_slice(digest.as_bytes())))
    }

    async fn in_blocks(
        &self,
        source: &Source<'_>,
        ending: &CancellationToken,
    ) -> Result<Response, Problem> {
        let mut digests = BytesMut::new();
        let mut offset = self.start;
        loop {
            let end = match self.block_bytes {
                0 => self.end,
                block => offset.saturating_add(block).min(self.end),
            };
            let (digest, reached) = self.digest(source, offset..end, ending).await?;
            let is_block = self.block_bytes > 0;
            if is_block && reached == offset {
                break;
            }
            digests.extend_from_slice(&digest);
            if digests.len() > MAX_READ_BYTES {
                return Err(Problem::LongAnswer);
            }
            if !is_block || reached < end || reached == self.end {
                break;
            }
            offset = reached;
        }
        Ok(self.response(digests.freeze()))
    }

    /// The digest of a part, and where the part or the file ends.
    async fn digest(
        &self,
        source: &Source<'_>,
        part: std::ops::Range<u64>,
        ending: &CancellationToken,
    ) -> Result<(Vec<u8>, u64), Problem> {
        let mut hasher = Hasher::new(self.algorithm);
        let mut offset = part.start;
        while offset < part.end {
            if ending.is_cancelled() {
                return Err(Problem::Ending);
            }
            let content = source.read_at(offset, part.end - offset).await?;
            if content.is_empty() {
                break;
            }
            offset += u64::try_from(content.len()).unwrap_or(0);
            // Some milliseconds of work, which would hold up what else runs on this thread.
            let hashed = tokio::task::spawn_blocking(move || {
                hasher.update(&content);
                hasher
            });
            hasher = hashed.await.map_err(|_| Problem::Ending)?;
        }
        Ok((hasher.finish().as_bytes().to_vec(), offset))
    }

    fn response(&self, digests: Bytes) -> Response {
        CheckedFile {
            algorithm: Bytes::from_static(check_file_name(self.algorithm).as_bytes()),
            digests,
            echoed: self.echoed,
        }
        .to_response()
    }
}
