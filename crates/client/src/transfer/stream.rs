//! An upload of what comes through a pipe: its length is not known, and it comes only once.

use std::io::Read;

use tokio::time::Instant;
use wharf_model::{EntryKind, Hasher, VirtualPath};

use super::{Attempt, Transfers};
use crate::error::ClientError;
use crate::plan::{Overwrite, SkipReason};
use crate::pool::Lease;
use crate::progress::{Direction, Done, Outcome};
use crate::pump::pump_from;
use crate::remote::WriteStart;

impl Transfers {
    /// Uploads what `source` gives to its end, once: nothing is resumed, and nothing tried again.
    /// `name` is what errors call the source. What was cut counts as cut on the server, too.
    ///
    /// After an error a thread may still wait for `source`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload_stream(
        &self,
        source: impl Read + Send + 'static,
        name: &str,
        remote: &VirtualPath,
    ) -> Result<Outcome, ClientError> {
        let mut attempt = self.first_attempt(Direction::Upload, remote.as_bytes());
        let started = Instant::now();
        let sent = self.send_stream(source, name, remote, &mut attempt);
        match self.until_cancelled(sent).await {
            Ok(done) => Ok(self.tell_done(&attempt, done, started)),
            Err(error) => Err(self.tell_failed(&attempt, error)),
        }
    }

    async fn send_stream(
        &self,
        source: impl Read + Send + 'static,
        name: &str,
        remote: &VirtualPath,
        attempt: &mut Attempt<'_>,
    ) -> Result<Done, ClientError> {
        let mut session = self.pool.lease().await?;
        match session.stat(remote).await {
            Ok(entry) if entry.kind == EntryKind::Directory => {
                return Err(ClientError::IsADirectory);
            }
            // Whatever else is asked for: what comes now is new, and its size is not known.
            Ok(_) if self.options.policy.overwrite == Overwrite::Never => {
                return Ok(attempt.skipped(SkipReason::TargetExists, None));
            }
            Ok(_) | Err(ClientError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        self.write_stream(&mut session, source, name, remote, attempt)
            .await?;
        Ok(Done::Whole)
    }

    async fn write_stream(
        &self,
        session: &mut Lease<'_>,
        source: impl Read + Send + 'static,
        name: &str,
        remote: &VirtualPath,
        attempt: &mut Attempt<'_>,
    ) -> Result<(), ClientError> {
        let digest = if self.options.verify {
            session.learn_digests().await?;
            session.abilities().best_digest()
        } else {
            None
        };
        attempt.begin(self, None, 0, None);
        let mut write = session.open_write(remote, WriteStart::Replace).await?;
        let advanced = |bytes| attempt.advance(self, bytes);
        let context = self.pump_context(&advanced, name);
        let hasher = pump_from(source, &mut *write, digest.map(Hasher::new), &context).await?;
        write.finish().await?;
        let size = attempt.moved_bytes();
        attempt.size = size;
        attempt.verified = match self.verify(session, remote, attempt.id, hasher).await? {
            Some(verified) => verified,
            None => self.verify_size(session, remote, size).await?,
        };
        Ok(())
    }
}
