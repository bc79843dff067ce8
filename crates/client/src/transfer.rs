//! One file, either way: plan, resume, pump, verify, put in place; again if that may help.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wharf_model::{ByteRange, Digest, DigestAlgorithm, EntryKind, Hasher, VirtualPath};

use crate::backoff::{backoff_delay, random_u32};
use crate::error::ClientError;
use crate::limit::RateLimit;
use crate::local::{CommitOptions, LocalEntry, LocalSource, LocalTree, PartialFile};
use crate::plan::{Action, Facts, Origin, Partial, Policy, Resume, SkipReason, Transfer, plan};
use crate::pool::{Lease, Pool};
use crate::progress::{Direction, Done, Event, Evidence, Observer, Outcome, TransferId, Verified};
use crate::pump::{PumpContext, hash_begin, pump_from, pump_to_file};
use crate::remote::{Precision, RemoteEntry, RemotePartial, WriteStart};

mod stream;

/// Moves files between a server and the local disk.
pub struct Transfers {
    pool: Arc<Pool>,
    observer: Arc<dyn Observer>,
    options: TransferOptions,
    limit: Option<RateLimit>,
    cancel: CancellationToken,
    next_id: AtomicU64,
}

impl std::fmt::Debug for Transfers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfers")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// How files are transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferOptions {
    /// What happens to files that exist.
    pub policy: Policy,
    /// Whether the copies' digests are compared, where the server makes any.
    pub verify: bool,
    /// How often a transfer is tried again after a passing failure.
    pub retries: u32,
    /// Whether the target keeps the source's time of last modification.
    pub keep_times: bool,
    /// Whether a downloaded file must have reached the disk before it counts.
    pub durable: bool,
    /// Most bytes a second, all transfers together.
    pub bytes_per_second: Option<u64>,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            verify: true,
            retries: 5,
            keep_times: true,
            durable: false,
            bytes_per_second: None,
        }
    }
}

/// A file to download.
#[derive(Debug, Clone)]
pub struct Download {
    /// The file on the server.
    pub remote: VirtualPath,
    /// What an exact listing said about it a moment ago; saves asking.
    pub listed: Option<RemoteEntry>,
    /// The folder that the file goes to; everything above `local` exists in it.
    pub tree: LocalTree,
    /// The file's path in it.
    pub local: VirtualPath,
}

/// A file to upload.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The folder that the file is in.
    pub tree: LocalTree,
    /// The file's path in it.
    pub local: VirtualPath,
    /// The file's path on the server; the directory above it exists.
    pub remote: VirtualPath,
    /// What an exact listing said about `remote` a moment ago.
    pub listed: Listed,
}

/// What is known about a target without asking.
#[derive(Debug, Clone, Default)]
pub enum Listed {
    /// Nothing.
    #[default]
    Unknown,
    /// That nothing stands there.
    Absent,
    /// What stands there.
    Entry(RemoteEntry),
}

impl Transfers {
    /// Transfers over the sessions of `pool`, told to `observer`, until `cancel` ends them.
    pub fn new(
        pool: Arc<Pool>,
        observer: Arc<dyn Observer>,
        options: TransferOptions,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            pool,
            observer,
            options,
            limit: options.bytes_per_second.map(RateLimit::new),
            cancel,
            next_id: AtomicU64::new(1),
        }
    }

    /// The sessions.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Who is told.
    pub fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// How files are transferred.
    pub fn options(&self) -> &TransferOptions {
        &self.options
    }

    /// What ends the transfers early.
    pub fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Downloads one file. Under its final name it is either what it was or
    /// the whole new content, compared with the server's digest where there is one.
    ///
    /// # Errors
    /// [`ClientError`]; what had arrived is kept for a later download unless it proved wrong.
    pub async fn download(&self, download: &Download) -> Result<Outcome, ClientError> {
        self.attempts(Job::Download(download)).await
    }

    /// Uploads one file.
    ///
    /// # Errors
    /// [`ClientError`]; what had arrived stays on the server as the server pleases.
    pub async fn upload(&self, upload: &Upload) -> Result<Outcome, ClientError> {
        self.attempts(Job::Upload(upload)).await
    }

    /// Tries the job until it succeeds, fails for good or has failed too often.
    async fn attempts(&self, job: Job<'_>) -> Result<Outcome, ClientError> {
        let mut attempt = self.first_attempt(job.direction(), job.name());
        let started = Instant::now();
        loop {
            attempt.was_whole = true;
            let result = self.until_cancelled(self.once(job, &mut attempt)).await;
            let error = match result {
                Ok(done) => return Ok(self.tell_done(&attempt, done, started)),
                Err(error) => error,
            };
            let is_the_networks = !matches!(error, ClientError::SourceChanged);
            if is_the_networks && attempt.position() >= attempt.furthest + PROGRESS_BYTES {
                // The network is bad and not hopeless: a long file gets through in pieces.
                attempt.retries = 0;
            }
            attempt.furthest = attempt.furthest.max(attempt.position());
            if !self.wait_for_retry(&mut attempt, &error).await {
                return Err(self.tell_failed(&attempt, error));
            }
        }
    }

    fn first_attempt<'a>(&self, direction: Direction, name: &'a [u8]) -> Attempt<'a> {
        Attempt {
            direction,
            name,
            id: TransferId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            number: 1,
            retries: 0,
            moved: AtomicU64::new(0),
            position: AtomicU64::new(0),
            furthest: 0,
            was_whole: true,
            must_be_whole: false,
            traced: None,
            size: 0,
            verified: Verified::No,
        }
    }

    fn tell_done(&self, attempt: &Attempt<'_>, done: Done, started: Instant) -> Outcome {
        let outcome = attempt.outcome(done, started.elapsed());
        self.observer.observe(Event::Finished {
            id: attempt.id,
            direction: attempt.direction,
            name: attempt.name,
            outcome: &outcome,
        });
        outcome
    }

    fn tell_failed(&self, attempt: &Attempt<'_>, error: ClientError) -> ClientError {
        self.observer.observe(Event::Failed {
            id: attempt.id,
            direction: attempt.direction,
            name: attempt.name,
            error: &error,
        });
        error
    }

    async fn once(&self, job: Job<'_>, attempt: &mut Attempt<'_>) -> Result<Done, ClientError> {
        match job {
            Job::Download(download) => self.download_once(download, attempt).await,
            Job::Upload(upload) => self.upload_once(upload, attempt).await,
        }
    }

    /// Gives `work` a moment to end in order once the transfers are cancelled.
    async fn until_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => result,
            () = self.cancel.cancelled() => {
                match tokio::time::timeout(ORDERLY_END, work).await {
                    Ok(Ok(done)) => Ok(done),
                    _ => Err(ClientError::Interrupted),
                }
            }
        }
    }

    /// Whether another attempt makes sense; then the wait before it is over.
    async fn wait_for_retry(&self, attempt: &mut Attempt<'_>, error: &ClientError) -> bool {
        let passing = error.is_transient()
            || matches!(
                error,
                ClientError::SizeMismatch { .. } | ClientError::SourceChanged
            );
        // A resumed file that proved wrong was resumed wrongly, and some servers
        // announce REST and refuse it: once more, from the first byte.
        let resumed_wrongly = !attempt.was_whole
            && matches!(
                error,
                ClientError::DigestMismatch { .. } | ClientError::Unsupported(_)
            );
        if !(passing || resumed_wrongly)
            || attempt.retries >= self.options.retries
            || self.cancel.is_cancelled()
        {
            return false;
        }
        attempt.retries += 1;
        attempt.number += 1;
        attempt.must_be_whole |= resumed_wrongly;
        let after = if resumed_wrongly {
            Duration::ZERO
        } else {
            backoff_delay(attempt.retries, random_u32())
        };
        self.observer.observe(Event::Retrying {
            id: attempt.id,
            name: attempt.name,
            attempt: attempt.number,
            after,
            error,
        });
        tokio::select! {
            () = tokio::time::sleep(after) => true,
            () = self.cancel.cancelled() => false,
        }
    }

    async fn download_once(
        &self,
        download: &Download,
        attempt: &mut Attempt<'_>,
    ) -> Result<Done, ClientError> {
        let mut session = self.pool.lease().await?;
        let source = match &download.listed {
            Some(entry) if attempt.number == 1 => entry.clone(),
            _ => session.stat(&download.remote).await?,
        };
        if source.kind == EntryKind::Directory {
            return Err(ClientError::IsADirectory);
        }
        let source = facts_of_remote(&source);
        let target = download.tree.stat(&download.local)?;
        let target = target.as_ref().and_then(facts_of_local);
        let policy = attempt.policy(self.options.policy);
        // Decided without the partial first: a file that is skipped needs none.
        if let Action::Skip(reason) = plan(source, target, None, policy) {
            return Ok(attempt.skipped(reason, source.size));
        }
        let mut partial = download.tree.open_partial(&download.local)?;
        let result = self
            .fill(
                &mut session,
                download,
                attempt,
                &mut partial,
                source,
                target,
            )
            .await;
        match result {
            Ok(Filled::Skipped(reason)) => {
                partial.keep(None);
                Ok(attempt.skipped(reason, source.size))
            }
            Ok(Filled::Whole(done)) => {
                partial.commit(CommitOptions {
                    modified: source.modified.filter(|_| self.options.keep_times),
                    durable: self.options.durable,
                })?;
                Ok(done)
            }
            Err(error) => {
                if matches!(error, ClientError::DigestMismatch { .. }) {
                    // What is proven wrong must not be continued.
                    partial.discard()?;
                } else {
                    partial.keep(source.modified);
                }
                Err(error)
            }
        }
    }

    /// Makes the partial file whole and proves it.
    async fn fill(
        &self,
        session: &mut Lease<'_>,
        download: &Download,
        attempt: &mut Attempt<'_>,
        partial: &mut PartialFile,
        source: Facts,
        target: Option<Facts>,
    ) -> Result<Filled, ClientError> {
        let shown = download.tree.show(&download.local);
        // Trying takes a while where the server is far away.
        if self.options.verify || partial.size() > 0 || target.is_some() {
            session.learn_digests().await?;
        }
        let left = Partial {
            size: Some(partial.size()),
            origin: attempt.origin_here(source, partial),
        };
        let policy = attempt.policy(self.options.policy);
        let transfer = match plan(source, target, Some(left), policy) {
            Action::Skip(reason) => return Ok(Filled::Skipped(reason)),
            Action::Transfer(transfer) => transfer,
            Action::CompareDigests(transfer) => {
                let local = download.tree.open_source(&download.local)?;
                if self
                    .same_digest(session, &download.remote, local, &shown)
                    .await?
                {
                    return Ok(Filled::Skipped(SkipReason::SameDigest));
                }
                transfer
            }
        };
        let whole_digest = session
            .abilities()
            .best_digest()
            .filter(|_| self.options.verify);
        let resumed = match transfer {
            Transfer::From { offset, otherwise } if session.abilities().restarts => {
                partial.rewind()?;
                let begin = Begin {
                    file: partial.handle()?,
                    offset,
                    known: None,
                    whole_on_server: false,
                };
                let proof = self
                    .prove(session, &download.remote, begin, whole_digest)
                    .await
                    .map_err(|error| error.at(&shown))?;
                proof
                    .accept(otherwise.map(Evidence::from))
                    .map(|evidence| (offset, evidence, proof.hasher))
            }
            _ => None,
        };
        let (offset, evidence, hasher) = match resumed {
            Some((offset, evidence, hasher)) => (offset, Some(evidence), hasher),
            None => (0, None, whole_digest.map(Hasher::new)),
        };
        partial.cut_to(offset)?;
        attempt.was_whole = offset == 0;
        attempt.trace(source, target, offset);
        attempt.begin(self, source.size, offset, evidence);
        let hasher = if source.size == Some(offset) && offset > 0 {
            hasher
        } else {
            let mut read = session.open_read(&download.remote, offset).await?;
            let advanced = |bytes| attempt.advance(self, bytes);
            let context = self.pump_context(&advanced, &shown);
            let room = source.size.map(|size| size.saturating_sub(offset));
            let file = partial.handle()?;
            let hasher = pump_to_file(&mut *read, file, room, hasher, &context).await?;
            // Longer than it should be, it may have no end to wait for.
            if source.size.is_none_or(|size| attempt.position() <= size) {
                read.finish().await?;
            }
            hasher
        };
        let size = partial.written()?;
        expect_size(source.size, size)?;
        attempt.size = size;
        attempt.verified = self
            .verify(session, &download.remote, attempt.id, hasher)
            .await?
            .unwrap_or(if source.size.is_some() {
                Verified::Size
            } else {
                Verified::No
            });
        Ok(Filled::Whole(done(offset, evidence)))
    }

    async fn upload_once(
        &self,
        upload: &Upload,
        attempt: &mut Attempt<'_>,
    ) -> Result<Done, ClientError> {
        let shown = upload.tree.show(&upload.local);
        let source = upload.tree.open_source(&upload.local)?;
        let source_facts = source.facts();
        let mut session = self.pool.lease().await?;
        let standing = self.target_of(&mut session, upload, attempt).await?;
        let origin = attempt.origin_there(source_facts, standing);
        // Cut by this very command: it is a begin, whatever its time is.
        let is_own = matches!(origin, Origin::ThisTransfer | Origin::Outdated);
        let target = standing.filter(|_| !is_own);
        let policy = attempt.policy(self.options.policy);
        if let Action::Skip(reason) = plan(source_facts, target, None, policy) {
            return Ok(attempt.skipped(reason, source_facts.size));
        }
        if self.options.verify || standing.is_some() {
            session.learn_digests().await?;
        }
        let left = match standing {
            Some(standing) => {
                let file = Partial {
                    size: standing.size,
                    origin,
                };
                self.left_on_server(&mut session, upload, file).await?
            }
            None => None,
        };
        let partial = left.as_ref().map(Left::partial);
        let transfer = match plan(source_facts, target, partial, policy) {
            Action::Skip(reason) => return Ok(attempt.skipped(reason, source_facts.size)),
            Action::Transfer(transfer) => transfer,
            Action::CompareDigests(transfer) => {
                let local = upload.tree.open_source(&upload.local)?;
                if self
                    .same_digest(&mut session, &upload.remote, local, &shown)
                    .await?
                {
                    return Ok(attempt.skipped(SkipReason::SameDigest, source_facts.size));
                }
                transfer
            }
        };
        let sending = Sending {
            source: &source,
            standing,
            transfer,
            left,
        };
        let done = self.send(&mut session, upload, attempt, sending).await?;
        if let Some(time) = source.modified.filter(|_| self.options.keep_times) {
            // The content is in place and proven; a server that keeps its own time is no failure.
            match session.set_modified(&upload.remote, time).await {
                Err(error) if !error.is_transient() && error.ends_session() => return Err(error),
                _ => {}
            }
        }
        Ok(done)
    }

    async fn send(
        &self,
        session: &mut Lease<'_>,
        upload: &Upload,
        attempt: &mut Attempt<'_>,
        sending: Sending<'_>,
    ) -> Result<Done, ClientError> {
        let Sending {
            source,
            standing,
            transfer,
            left,
        } = sending;
        let shown = upload.tree.show(&upload.local);
        let local = |source| ClientError::Local {
            path: shown.clone(),
            source,
        };
        let handle = || source.file.try_clone().map_err(local);
        let whole_digest = session
            .abilities()
            .best_digest()
            .filter(|_| self.options.verify);
        let resumed = match (transfer, left) {
            (Transfer::From { offset, otherwise }, Some(left)) => {
                let begin = Begin {
                    file: handle()?,
                    offset,
                    whole_on_server: matches!(left, Left::File(_)),
                    known: match left {
                        Left::Described(partial) => Some(partial.digest),
                        Left::File(_) => None,
                    },
                };
                let proof = self
                    .prove(session, &upload.remote, begin, whole_digest)
                    .await
                    .map_err(|error| error.at(&shown))?;
                proof
                    .accept(otherwise.map(Evidence::from))
                    .map(|evidence| (offset, evidence, proof.hasher))
            }
            _ => None,
        };
        let (offset, evidence, hasher) = match resumed {
            Some((offset, evidence, hasher)) => (offset, Some(evidence), hasher),
            None => (0, None, whole_digest.map(Hasher::new)),
        };
        attempt.was_whole = offset == 0;
        attempt.trace(source.facts(), standing, offset);
        attempt.begin(self, Some(source.size), offset, evidence);
        let mut file = handle()?;
        file.seek(SeekFrom::Start(offset)).map_err(local)?;
        let start = match offset {
            0 => WriteStart::Replace,
            offset => WriteStart::At(offset),
        };
        let moved_before = attempt.moved_bytes();
        let mut write = session.open_write(&upload.remote, start).await?;
        let advanced = |bytes| attempt.advance(self, bytes);
        let context = self.pump_context(&advanced, &shown);
        let hasher = pump_from(file, &mut *write, hasher, &context).await?;
        if source.has_changed().map_err(local)? {
            // Dropped unfinished, the copy counts as cut and not as the file.
            return Err(ClientError::SourceChanged);
        }
        write.finish().await?;
        let size = offset + (attempt.moved_bytes() - moved_before);
        expect_size(Some(source.size), size)?;
        attempt.size = size;
        attempt.verified = match self
            .verify(session, &upload.remote, attempt.id, hasher)
            .await?
        {
            Some(verified) => verified,
            None => self.verify_size(session, &upload.remote, size).await?,
        };
        Ok(done(offset, evidence))
    }

    /// What stands under an upload's name.
    async fn target_of(
        &self,
        session: &mut Lease<'_>,
        upload: &Upload,
        attempt: &Attempt<'_>,
    ) -> Result<Option<Facts>, ClientError> {
        let entry = match &upload.listed {
            Listed::Absent if attempt.number == 1 => None,
            Listed::Entry(entry) if attempt.number == 1 => Some(entry.clone()),
            _ => match session.stat(&upload.remote).await {
                Ok(entry) => Some(entry),
                Err(ClientError::NotFound(_)) => None,
                Err(error) => return Err(error),
            },
        };
        let Some(entry) = entry else {
            return Ok(None);
        };
        if entry.kind == EntryKind::Directory {
            return Err(ClientError::IsADirectory);
        }
        Ok(Some(facts_of_remote(&entry)))
    }

    /// What an earlier upload left on the server: what the server says, or
    /// `file`, which stands under the target's name.
    async fn left_on_server(
        &self,
        session: &mut Lease<'_>,
        upload: &Upload,
        file: Partial,
    ) -> Result<Option<Left>, ClientError> {
        if self.options.policy.resume == Resume::Never {
            return Ok(None);
        }
        if session.abilities().tells_partials {
            let partial = session.partial(&upload.remote).await?;
            return Ok(partial.map(Left::Described));
        }
        Ok(Some(Left::File(file)))
    }

    /// Compares a begin that one side holds with the other side's.
    async fn prove(
        &self,
        session: &mut Lease<'_>,
        path: &VirtualPath,
        begin: Begin,
        whole_digest: Option<DigestAlgorithm>,
    ) -> Result<Proof, BeginError> {
        let abilities = session.abilities();
        let prover = match &begin.known {
            Some(digest) => Some(digest.algorithm()),
            None if begin.whole_on_server => abilities.best_digest(),
            None => abilities.best_range_digest(),
        };
        let Some(algorithm) = prover.or(whole_digest) else {
            return Ok(Proof {
                judgement: Judgement::NoDigest,
                hasher: None,
            });
        };
        let hasher = hash_begin(begin.file, begin.offset, Hasher::new(algorithm))
            .await
            .map_err(BeginError::Local)?;
        let remote = match (begin.known, prover) {
            (Some(digest), _) => Some(digest),
            (None, Some(algorithm)) => {
                let range = (!begin.whole_on_server).then_some(ByteRange {
                    start: 0,
                    end: begin.offset,
                });
                optional(session.digest(path, algorithm, range).await)
                    .map_err(BeginError::Remote)?
            }
            (None, None) => None,
        };
        let judgement = match remote {
            None => Judgement::NoDigest,
            Some(remote) if remote == hasher.clone().finish() => Judgement::Same(algorithm),
            Some(_) => Judgement::Different,
        };
        let fits = Some(algorithm) == whole_digest;
        Ok(Proof {
            judgement,
            hasher: fits.then_some(hasher),
        })
    }

    /// Compares the digests of the whole; `None` where the server makes none after all.
    async fn verify(
        &self,
        session: &mut Lease<'_>,
        path: &VirtualPath,
        id: TransferId,
        hasher: Option<Hasher>,
    ) -> Result<Option<Verified>, ClientError> {
        let Some(hasher) = hasher else {
            return Ok((!self.options.verify).then_some(Verified::No));
        };
        let local = hasher.finish();
        let algorithm = local.algorithm();
        self.observer.observe(Event::Verifying { id, algorithm });
        let Some(remote) = optional(session.digest(path, algorithm, None).await)? else {
            return Ok(None);
        };
        if local == remote {
            return Ok(Some(Verified::Digest(algorithm)));
        }
        Err(ClientError::DigestMismatch {
            algorithm,
            local: local.to_string(),
            remote: remote.to_string(),
        })
    }

    /// The second best proof: the server's file has the right length.
    async fn verify_size(
        &self,
        session: &mut Lease<'_>,
        path: &VirtualPath,
        sent: u64,
    ) -> Result<Verified, ClientError> {
        match session.stat(path).await {
            Ok(RemoteEntry {
                size: Some(size), ..
            }) => {
                expect_size(Some(sent), size)?;
                Ok(Verified::Size)
            }
            Ok(_) => Ok(Verified::No),
            // A drop box: what was sent cannot be seen.
            Err(ClientError::Refused(_) | ClientError::NotFound(_)) => Ok(Verified::No),
            Err(error) => Err(error),
        }
    }

    async fn same_digest(
        &self,
        session: &mut Lease<'_>,
        path: &VirtualPath,
        local: LocalSource,
        shown: &str,
    ) -> Result<bool, ClientError> {
        let Some(algorithm) = session.abilities().best_digest() else {
            return Err(ClientError::Unsupported(
                "compare by digest: it offers none",
            ));
        };
        let hasher = hash_begin(local.file, local.size, Hasher::new(algorithm))
            .await
            .map_err(|error| BeginError::Local(error).at(shown))?;
        let remote = session.digest(path, algorithm, None).await?;
        Ok(hasher.finish() == remote)
    }

    fn pump_context<'a>(
        &'a self,
        advanced: &'a (dyn Fn(u64) + Sync),
        path: &'a str,
    ) -> PumpContext<'a> {
        PumpContext {
            limit: self.limit.as_ref(),
            cancel: &self.cancel,
            advanced,
            path,
        }
    }
}

/// What the attempts are made at. No closure: the compiler does not see that
/// the futures of an asynchronous one are `Send`.
#[derive(Debug, Clone, Copy)]
enum Job<'a> {
    Download(&'a Download),
    Upload(&'a Upload),
}

impl<'a> Job<'a> {
    fn direction(self) -> Direction {
        match self {
            Self::Download(_) => Direction::Download,
            Self::Upload(_) => Direction::Upload,
        }
    }

    /// What the transfer is called in events.
    fn name(self) -> &'a [u8] {
        match self {
            Self::Download(download) => download.local.as_relative_bytes(),
            Self::Upload(upload) => upload.remote.as_bytes(),
        }
    }
}

/// What the attempts at one file share.
struct Attempt<'a> {
    direction: Direction,
    /// What the transfer is called in events.
    name: &'a [u8],
    id: TransferId,
    /// Counts from 1 over all attempts.
    number: u32,
    /// Attempts since the last one that got further.
    retries: u32,
    moved: AtomicU64,
    /// How much of the file the target side holds.
    position: AtomicU64,
    /// The largest position of the attempts before this one.
    furthest: u64,
    /// The last attempt started at the first byte, or failed before it started.
    was_whole: bool,
    /// What was left has proven wrong: the next attempt starts at the first byte.
    must_be_whole: bool,
    /// Left by the last attempt that came to move bytes.
    traced: Option<Trace>,
    size: u64,
    verified: Verified,
}

impl Attempt<'_> {
    /// The person's policy, as it applies to this attempt.
    fn policy(&self, policy: Policy) -> Policy {
        let resume = match policy.resume {
            _ if self.must_be_whole => Resume::Never,
            other => other,
        };
        Policy { resume, ..policy }
    }

    /// Remembers what an attempt found before it moves the first byte to `offset`.
    fn trace(&mut self, source: Facts, standing: Option<Facts>, offset: u64) {
        self.traced = Some(Trace {
            source,
            standing,
            offset,
            moved_before: self.moved_bytes(),
        });
    }

    /// Where the bytes of a local partial come from.
    fn origin_here(&self, source: Facts, partial: &PartialFile) -> Origin {
        match &self.traced {
            Some(trace) if partial.size() == self.position() => trace.origin(source),
            _ => partial.origin(),
        }
    }

    /// Where the bytes of the file come from that stands under an upload's name.
    fn origin_there(&self, source: Facts, standing: Option<Facts>) -> Origin {
        match (&self.traced, standing) {
            (Some(trace), Some(standing))
                if self.moved_bytes() > trace.moved_before
                    && trace.explains(standing, self.position()) =>
            {
                trace.origin(source)
            }
            _ => Origin::Unknown,
        }
    }

    fn moved_bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    fn begin(
        &self,
        transfers: &Transfers,
        size: Option<u64>,
        offset: u64,
        evidence: Option<Evidence>,
    ) {
        self.position.store(offset, Ordering::Relaxed);
        transfers.observer.observe(Event::Started {
            id: self.id,
            direction: self.direction,
            name: self.name,
            size,
            offset,
            evidence,
        });
    }

    fn advance(&self, transfers: &Transfers, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
        self.position.fetch_add(bytes, Ordering::Relaxed);
        transfers
            .observer
            .observe(Event::Advanced { id: self.id, bytes });
    }

    fn skipped(&mut self, reason: SkipReason, size: Option<u64>) -> Done {
        self.size = size.unwrap_or(0);
        self.verified = match reason {
            SkipReason::SameSize | SkipReason::SameSizeAndTime => Verified::Size,
            _ => Verified::No,
        };
        Done::Skipped(reason)
    }

    fn outcome(&self, done: Done, elapsed: Duration) -> Outcome {
        Outcome {
            done,
            moved_bytes: self.moved_bytes(),
            size: self.size,
            verified: self.verified,
            elapsed,
            attempts: match done {
                Done::Skipped(_) => 0,
                _ => self.number,
            },
        }
    }
}

/// What an attempt found before it moved bytes: by this a later one knows its
/// work again.
#[derive(Debug, Clone, Copy)]
struct Trace {
    source: Facts,
    /// What stood under the target's name.
    standing: Option<Facts>,
    /// Where it began to write.
    offset: u64,
    moved_before: u64,
}

impl Trace {
    /// Where the bytes come from that this attempt left.
    fn origin(&self, source: Facts) -> Origin {
        let now = (source.size, source.modified);
        if now == (self.source.size, self.source.modified) {
            Origin::ThisTransfer
        } else {
            Origin::Outdated
        }
    }

    /// Whether what stands on the server now can be what this attempt left,
    /// having come to `position`. What it began to replace and what still
    /// stands there as it was is not: the server never took a byte.
    fn explains(&self, now: Facts, position: u64) -> bool {
        let is_untouched = self.offset == 0
            && self
                .standing
                .is_some_and(|before| (before.size, before.modified) == (now.size, now.modified));
        let fits = |size| (self.offset..=position).contains(&size);
        !is_untouched && now.size.is_none_or(fits)
    }
}

/// What [`Transfers::send`] is to do.
struct Sending<'a> {
    source: &'a LocalSource,
    /// What stands under the target's name.
    standing: Option<Facts>,
    transfer: Transfer,
    left: Option<Left>,
}

/// How [`Transfers::fill`] ended.
enum Filled {
    Skipped(SkipReason),
    Whole(Done),
}

/// What an earlier upload left on the server.
enum Left {
    /// The server says so itself, with a digest.
    Described(RemotePartial),
    /// A file that may be the begin of what is to be sent, or anything else.
    File(Partial),
}

impl Left {
    fn partial(&self) -> Partial {
        match self {
            Self::Described(partial) => Partial {
                size: Some(partial.size),
                origin: Origin::Unknown,
            },
            Self::File(partial) => *partial,
        }
    }
}

/// A begin that is to be proven.
struct Begin {
    /// The local file, at its first byte.
    file: File,
    offset: u64,
    /// The server's digest of the begin, if it has told it already.
    known: Option<Digest>,
    /// The server's file consists of the begin only.
    whole_on_server: bool,
}

/// What [`Transfers::prove`] found.
struct Proof {
    judgement: Judgement,
    /// Fed with the begin, if its digest is the one that the whole will be compared by.
    hasher: Option<Hasher>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Same(DigestAlgorithm),
    Different,
    /// The server makes no digest of it.
    NoDigest,
}

impl Proof {
    /// The evidence on which to resume; `None` to start at the first byte.
    fn accept(&self, otherwise: Option<Evidence>) -> Option<Evidence> {
        match self.judgement {
            Judgement::Same(algorithm) => Some(Evidence::Digest(algorithm)),
            Judgement::Different => None,
            Judgement::NoDigest => otherwise,
        }
    }
}

/// Why a begin could not be looked at.
enum BeginError {
    Local(std::io::Error),
    Remote(ClientError),
}

impl BeginError {
    fn at(self, path: &str) -> ClientError {
        match self {
            Self::Local(source) => ClientError::Local {
                path: path.to_owned(),
                source,
            },
            Self::Remote(error) => error,
        }
    }
}

/// A digest that the server may refuse to make: `None` then.
fn optional(digest: Result<Digest, ClientError>) -> Result<Option<Digest>, ClientError> {
    match digest {
        Ok(digest) => Ok(Some(digest)),
        Err(error) if error.ends_session() || error.is_transient() => Err(error),
        Err(error) => {
            tracing::debug!(%error, "the server makes no digest");
            Ok(None)
        }
    }
}

fn done(offset: u64, evidence: Option<Evidence>) -> Done {
    match evidence {
        Some(evidence) if offset > 0 => Done::Resumed { offset, evidence },
        _ => Done::Whole,
    }
}

fn expect_size(expected: Option<u64>, moved: u64) -> Result<(), ClientError> {
    match expected {
        Some(expected) if expected != moved => Err(ClientError::SizeMismatch { expected, moved }),
        _ => Ok(()),
    }
}

/// What a listing or a status reply tells about a file.
pub(crate) fn facts_of_remote(entry: &RemoteEntry) -> Facts {
    Facts {
        // A link's size is not that of what it leads to.
        size: entry.size.filter(|_| entry.kind == EntryKind::File),
        modified: entry.modified,
        precision: match entry.precision {
            Precision::Second => SECOND,
            // LIST does not say in which time zone it is; a day covers every one.
            Precision::Minute | Precision::Day => Duration::from_secs(24 * 60 * 60),
        },
        incomplete: entry.incomplete,
    }
}

impl LocalSource {
    fn facts(&self) -> Facts {
        Facts {
            size: Some(self.size),
            modified: self.modified,
            precision: SECOND,
            incomplete: false,
        }
    }
}

pub(crate) fn facts_of_local(entry: &LocalEntry) -> Option<Facts> {
    (entry.kind != EntryKind::Directory).then_some(Facts {
        size: (entry.kind == EntryKind::File).then_some(entry.size),
        modified: entry.modified,
        precision: SECOND,
        incomplete: false,
    })
}

/// The finest time that servers keep, and thus the finest difference that counts.
const SECOND: Duration = Duration::from_secs(1);

/// An attempt that came so much further than those before it was worth it, however it ended.
const PROGRESS_BYTES: u64 = 1024 * 1024;

/// How long a cancelled transfer may take to leave what it has in order.
const ORDERLY_END: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
