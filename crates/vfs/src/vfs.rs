//! One account's view of its home.

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use wharf_model::{
    ByteRange, Digest, DigestAlgorithm, Entry, EntryKind, PermissionRules, Permissions,
    QuotaLimits, Refusal, Usage, VirtualPath,
};

use crate::authorize::Gate;
use crate::home::Home;
use crate::quota::{Claim, QuotaReport};
use crate::storage::{Batches, StoredFile, WriteMode};
use crate::upload::{Disposition, Upload, UploadOptions};

/// Most names that STOU tries before it gives up.
const UNIQUE_ATTEMPTS: u32 = 10_000;

/// What one account sees, may do and may fill. Cheap to clone.
#[derive(Clone)]
pub struct Vfs {
    home: Arc<Home>,
    rules: Arc<PermissionRules>,
    limits: QuotaLimits,
}

impl fmt::Debug for Vfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vfs")
    }
}

/// A cut upload that can be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Bytes that have arrived: where to go on.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
}

impl Vfs {
    /// The view of an account with these rules and limits.
    pub fn new(home: Arc<Home>, rules: PermissionRules, limits: QuotaLimits) -> Self {
        Self {
            home,
            rules: Arc::new(rules),
            limits,
        }
    }

    /// What the account may do to the entry at `path`.
    pub fn permissions_at(&self, path: &VirtualPath) -> Permissions {
        self.rules.at(path)
    }

    /// The facts of an entry. Links that stay inside are followed. Needs `LIST`.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`, and what the storage says.
    pub async fn metadata(&self, path: &VirtualPath) -> Result<Entry, Refusal> {
        self.judge(path, Permissions::LIST).await?;
        self.home.storage().metadata(path).await
    }

    /// Whether `path` is a directory to change to. Needs no permission beyond
    /// knowing its name: an upload-only account must get to its directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`.
    pub async fn enter(&self, path: &VirtualPath) -> Result<(), Refusal> {
        match self.home.storage().metadata(path).await?.kind {
            EntryKind::Directory => Ok(()),
            EntryKind::Symlink => Err(Refusal::NotFound),
            EntryKind::File | EntryKind::Other => Err(Refusal::NotADirectory),
        }
    }

    /// Whether something stands under `path` that could be renamed. Needs `RENAME`.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`.
    pub async fn exists(&self, path: &VirtualPath) -> Result<(), Refusal> {
        self.judge_name(path, Permissions::RENAME).await?;
        self.home.storage().metadata(path).await.map(|_| ())
    }

    /// The entries of a directory. Needs `LIST`.
    ///
    /// # Errors
    /// `NotADirectory`, `NotFound`, `NotPermitted`.
    pub async fn list(&self, path: &VirtualPath) -> Result<Listing, Refusal> {
        self.judge(path, Permissions::LIST).await?;
        Ok(Listing {
            known: None,
            batches: Some(self.home.storage().list(path).await?),
        })
    }

    /// Opens a file for reading. Needs `READ`.
    ///
    /// # Errors
    /// `IsADirectory`, `NotAFile`, `NotFound`, `NotPermitted`.
    pub async fn open(&self, path: &VirtualPath) -> Result<Download, Refusal> {
        self.judge(path, Permissions::READ).await?;
        Ok(Download(self.home.storage().open(path).await?))
    }

    /// Starts an upload. Needs `WRITE` for a new file, `OVERWRITE` to replace
    /// one, `APPEND` or `OVERWRITE` to go on at its end.
    ///
    /// # Errors
    /// `NotPermitted`, `OverQuota`, `Busy`, `OffsetBeyondEnd`, `InvalidName`, and what the storage says.
    pub async fn create(
        &self,
        path: &VirtualPath,
        options: UploadOptions,
    ) -> Result<Upload, Refusal> {
        let storage = self.home.storage();
        let mut target = self.follow(path).await?;
        if options.disposition == Disposition::Unique {
            target = self.unused_name(&target).await?;
        }
        let standing = match storage.metadata(&target).await {
            Ok(entry) => Some(entry),
            Err(Refusal::NotFound) => None,
            Err(refusal) => return Err(refusal),
        };
        self.judge_upload(&[path, &target], standing.as_ref(), options.disposition)?;
        let mut claim = self.begin().await?;
        let mode = match options.disposition {
            Disposition::Replace | Disposition::Unique => WriteMode::Replace,
            Disposition::ResumeAt(offset) => WriteMode::ResumeAt(offset),
            Disposition::Append => WriteMode::Append,
        };
        if let Some(announced) = options.announced_bytes {
            let replaced = match (mode, &standing) {
                (WriteMode::Replace, Some(entry)) => entry.size,
                (WriteMode::ResumeAt(offset), _) => offset,
                _ => 0,
            };
            let growth = announced.saturating_sub(replaced);
            claim.would_fit(Usage {
                bytes: growth,
                files: 0,
            })?;
        }
        let files = u64::from(standing.is_none());
        claim.would_fit(Usage { bytes: 0, files })?;
        let staged = storage.stage(&target, mode).await?;
        claim.expect_release(staged.expected_release());
        if let Err(refusal) = claim.reserve(staged.initial_usage()) {
            staged.discard().await?;
            return Err(refusal);
        }
        let name = target.file_name().unwrap_or_default().to_vec();
        Ok(Upload::new(staged, claim, name, options.digest))
    }

    fn judge_upload(
        &self,
        names: &[&VirtualPath],
        standing: Option<&Entry>,
        disposition: Disposition,
    ) -> Result<(), Refusal> {
        let gate = self.gate();
        let any_write = Permissions::WRITE | Permissions::APPEND | Permissions::OVERWRITE;
        match (standing, disposition) {
            (None, _) => gate.all(names, Permissions::WRITE),
            // What was cut is not whole yet: whoever may have begun it may finish it.
            (Some(entry), Disposition::Append | Disposition::ResumeAt(_)) if entry.incomplete => {
                gate.any(names, any_write)
            }
            (Some(_), Disposition::Append) => {
                gate.any(names, Permissions::APPEND | Permissions::OVERWRITE)
            }
            (Some(entry), Disposition::ResumeAt(offset)) if offset == entry.size => {
                gate.any(names, Permissions::APPEND | Permissions::OVERWRITE)
            }
            (Some(_), _) => gate.all(names, Permissions::OVERWRITE),
        }
    }

    /// `path`, or the first of `path.1`, `path.2` … under which nothing stands.
    async fn unused_name(&self, path: &VirtualPath) -> Result<VirtualPath, Refusal> {
        let (parent, name) = path
            .parent()
            .zip(path.file_name())
            .ok_or(Refusal::IsADirectory)?;
        for number in 0..UNIQUE_ATTEMPTS {
            let mut candidate = name.to_vec();
            if number > 0 {
                candidate.extend_from_slice(format!(".{number}").as_bytes());
            }
            let candidate = parent.resolve(&candidate)?;
            match self.home.storage().metadata(&candidate).await {
                Err(Refusal::NotFound) => return Ok(candidate),
                Err(refusal) => return Err(refusal),
                Ok(_) => {}
            }
        }
        Err(Refusal::AlreadyExists)
    }

    /// What a cut upload to `path` has left, with its digest. Needs what resuming it needs.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`.
    pub async fn partial(
        &self,
        path: &VirtualPath,
        algorithm: DigestAlgorithm,
    ) -> Result<Option<Partial>, Refusal> {
        let target = self.follow(path).await?;
        let any_write = Permissions::WRITE | Permissions::APPEND | Permissions::OVERWRITE;
        self.gate().any(&[path, &target], any_write)?;
        let storage = self.home.storage();
        let Some(size) = storage.partial(&target).await? else {
            return Ok(None);
        };
        let digest = storage.partial_digest(&target, algorithm).await?;
        Ok(Some(Partial { size, digest }))
    }

    /// Makes a directory, which counts as one entry. Needs `MKDIR`.
    ///
    /// # Errors
    /// `AlreadyExists`, `OverQuota`, `NotPermitted`, `InvalidName`.
    pub async fn make_directory(&self, path: &VirtualPath) -> Result<(), Refusal> {
        self.judge_name(path, Permissions::MKDIR).await?;
        let mut claim = self.begin().await?;
        let one = Usage { bytes: 0, files: 1 };
        claim.reserve(one)?;
        let made = self.home.storage().make_directory(path).await;
        if made.is_err() {
            claim.refund(one);
        }
        made
    }

    /// Removes an empty directory. Needs `RMDIR`.
    ///
    /// # Errors
    /// `NotEmpty`, `NotADirectory`, `NotFound`, `NotPermitted`.
    pub async fn remove_directory(&self, path: &VirtualPath) -> Result<(), Refusal> {
        self.judge_name(path, Permissions::RMDIR).await?;
        self.gate().holds_no_rule(path)?;
        let _activity = self.home.ledger().begin().await?;
        let removed = self.home.storage().remove_directory(path).await?;
        self.home.ledger().release(removed);
        Ok(())
    }

    /// Removes a file, or a link itself. Needs `DELETE`.
    ///
    /// # Errors
    /// `IsADirectory`, `Busy`, `NotFound`, `NotPermitted`.
    pub async fn remove_file(&self, path: &VirtualPath) -> Result<(), Refusal> {
        self.judge_name(path, Permissions::DELETE).await?;
        let _activity = self.home.ledger().begin().await?;
        let removed = self.home.storage().remove_file(path).await?;
        self.home.ledger().release(removed);
        Ok(())
    }

    /// Renames a file or directory; a file replaces a file. Needs `RENAME` on
    /// the source, `WRITE` on the target, and `OVERWRITE` to replace.
    ///
    /// # Errors
    /// `AlreadyExists`, `IsADirectory`, `Busy`, `NotFound`, `NotPermitted`, `InvalidName`.
    pub async fn rename(&self, from: &VirtualPath, to: &VirtualPath) -> Result<(), Refusal> {
        self.judge_name(from, Permissions::RENAME).await?;
        self.judge_new(to).await?;
        self.gate().holds_no_rule(from)?;
        self.gate().holds_no_rule(to)?;
        let _activity = self.home.ledger().begin().await?;
        let replaced = self.home.storage().rename(from, to).await?;
        self.home.ledger().release(replaced);
        Ok(())
    }

    /// Copies a file on the server. Needs `READ` on the source, and on the target what an upload needs.
    ///
    /// # Errors
    /// Those of [`Vfs::open`] and [`Vfs::create`].
    pub async fn copy(&self, from: &VirtualPath, to: &VirtualPath) -> Result<(), Refusal> {
        /// Bytes in memory at one time.
        const PIECE: usize = 1 << 20;
        let source = self.open(from).await?;
        let size = source.entry().size;
        let options = UploadOptions {
            disposition: Disposition::Replace,
            announced_bytes: Some(size),
            digest: None,
        };
        let mut upload = self.create(to, options).await?;
        let mut offset = 0;
        loop {
            let written = match source.read_at(offset, PIECE).await {
                Ok(content) if content.is_empty() => break,
                Ok(content) => {
                    offset += u64::try_from(content.len()).unwrap_or(u64::MAX);
                    upload.write(content).await
                }
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = written {
                upload.discard().await;
                return Err(refusal);
            }
        }
        upload.commit().await.map(|_| ())
    }

    /// Sets the modification time. Needs `ATTRIBUTES`.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`.
    pub async fn set_modified(&self, path: &VirtualPath, time: SystemTime) -> Result<(), Refusal> {
        self.judge(path, Permissions::ATTRIBUTES).await?;
        self.home.storage().set_modified(path, time).await
    }

    /// Sets the permission bits. Needs `ATTRIBUTES`.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`.
    pub async fn set_mode(&self, path: &VirtualPath, mode: u32) -> Result<(), Refusal> {
        self.judge(path, Permissions::ATTRIBUTES).await?;
        self.home.storage().set_mode(path, mode).await
    }

    /// The digest of a file or a range of it, cut at its end, and what it covers. Needs `READ`.
    ///
    /// # Errors
    /// `IsADirectory`, `NotFound`, `NotPermitted`, `OffsetBeyondEnd`.
    pub async fn digest(
        &self,
        path: &VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<(Digest, ByteRange), Refusal> {
        self.judge(path, Permissions::READ).await?;
        self.home.storage().digest(path, algorithm, range).await
    }

    /// What is used and what is left.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn available(&self) -> Result<QuotaReport, Refusal> {
        Ok(QuotaReport {
            usage: self.home.ledger().usage(),
            limits: self.limits,
            storage_free: self.home.storage().free_bytes().await?,
        })
    }

    async fn begin(&self) -> Result<Claim, Refusal> {
        let ledger = self.home.ledger();
        Ok(ledger.claim(self.limits, ledger.begin().await?))
    }

    fn gate(&self) -> Gate<'_> {
        Gate { rules: &self.rules }
    }

    /// Judges what `path` leads to.
    async fn judge(&self, path: &VirtualPath, needed: Permissions) -> Result<(), Refusal> {
        let gate = self.gate();
        gate.all(&[path], needed)?;
        if gate.needs_resolved() {
            let resolved = self.home.storage().resolve(path).await?;
            gate.all(&[&resolved], needed)?;
        }
        Ok(())
    }

    /// Judges the name itself: its last component is not followed.
    async fn judge_name(&self, path: &VirtualPath, needed: Permissions) -> Result<(), Refusal> {
        let gate = self.gate();
        gate.all(&[path], needed)?;
        let (true, Some(parent), Some(name)) =
            (gate.needs_resolved(), path.parent(), path.file_name())
        else {
            return Ok(());
        };
        let resolved = self.home.storage().resolve(&parent).await?.resolve(name)?;
        gate.all(&[&resolved], needed)
    }

    /// Judges a name that something is moved to.
    async fn judge_new(&self, path: &VirtualPath) -> Result<(), Refusal> {
        let replaces = self.home.storage().metadata(path).await.is_ok();
        let needed = if replaces {
            Permissions::OVERWRITE
        } else {
            Permissions::WRITE
        };
        self.judge_name(path, needed).await
    }

    /// Where an upload to `path` goes: through links that stay inside.
    async fn follow(&self, path: &VirtualPath) -> Result<VirtualPath, Refusal> {
        self.home.storage().resolve(path).await
    }
}

/// Entries of a directory, piece by piece.
pub struct Listing {
    known: Option<Vec<Entry>>,
    batches: Option<Box<dyn Batches>>,
}

impl Listing {
    /// A listing of entries that are known already.
    pub fn of(entries: Vec<Entry>) -> Self {
        Self {
            known: Some(entries),
            batches: None,
        }
    }

    /// The next entries, in no order; `None` at the end. Dropping the future may lose a piece.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Entry>>, Refusal> {
        if let Some(known) = self.known.take().filter(|known| !known.is_empty()) {
            return Ok(Some(known));
        }
        match &mut self.batches {
            Some(batches) => batches.next().await,
            None => Ok(None),
        }
    }
}

/// A file that is open for reading.
pub struct Download(Box<dyn StoredFile>);

impl Download {
    /// What it is, as of its opening.
    pub fn entry(&self) -> &Entry {
        self.0.entry()
    }

    /// At most `length` bytes from `offset`; empty at the end.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Refusal> {
        self.0.read_at(offset, length).await
    }

    /// The file of the operating system, where there is one, for the kernel's own ways of sending.
    pub fn as_file(&self) -> Option<&Arc<File>> {
        self.0.as_file()
    }
}
