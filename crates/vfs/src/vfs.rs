//! One account's view of its home.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use wharf_model::{
    ByteRange, Digest, DigestAlgorithm, Entry, EntryKind, FileName, PermissionRules, Permissions,
    QuotaLimits, Refusal, Usage, VirtualPath,
};

use crate::authorize::Gate;
use crate::home::Home;
use crate::open::OpenSlot;
use crate::quota::{Claim, QuotaReport};
use crate::storage::{Batches, Links, Reserve, StoredFile, Target, WriteMode, new_name};
use crate::upload::{
    Disposition, Existing, SharedClaim, Upload, UploadOptions, WriteOptions, run_to_end, with,
};

/// What lets an account begin an upload; which of it is needed depends on what stands there.
const ANY_WRITE: Permissions = Permissions::WRITE
    .union(Permissions::APPEND)
    .union(Permissions::OVERWRITE);

/// Most descriptors of an upload: its file, and the directory that it stays in.
const UPLOAD_DESCRIPTORS: usize = 2;

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

/// What an account may do to the entries of one directory, by name.
#[derive(Debug, Clone)]
pub struct EntryPermissions {
    usual: Permissions,
    /// There only where a rule names something below the directory, so that a
    /// long listing looks nothing up otherwise.
    exceptions: Option<(Arc<PermissionRules>, VirtualPath)>,
}

impl EntryPermissions {
    /// What the account may do to the entry called `name`.
    pub fn of(&self, name: &[u8]) -> Permissions {
        let Some((rules, directory)) = &self.exceptions else {
            return self.usual;
        };
        directory
            .resolve(name)
            .map_or(self.usual, |path| rules.at(&path))
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

    /// The home that it is a view of. Nobody judges what is done there: this is for those
    /// who count it, and for processes, which do not heed permissions.
    pub fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// What the account may do to the entry at `path`.
    pub fn permissions_at(&self, path: &VirtualPath) -> Permissions {
        self.rules.at(path)
    }

    /// What the account may do to each entry of `directory`.
    pub fn permissions_in(&self, directory: &VirtualPath) -> EntryPermissions {
        let exceptions = self.rules.exceptions();
        let differ = exceptions
            .iter()
            .any(|(rule, _)| rule.starts_with(directory) && rule != directory);
        EntryPermissions {
            usual: self.rules.at(directory),
            exceptions: differ.then(|| (Arc::clone(&self.rules), directory.clone())),
        }
    }

    /// The facts of an entry. Links that stay inside are followed. Needs `LIST`.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`, and what the storage says.
    pub async fn metadata(&self, path: &VirtualPath) -> Result<Entry, Refusal> {
        self.judge(path, Permissions::LIST).await?;
        self.home.storage().metadata(path).await
    }

    /// The facts of an entry, whose last component is not followed. Needs `LIST`.
    ///
    /// # Errors
    /// `NotFound`, `NotPermitted`, and what the storage says.
    pub async fn link_metadata(&self, path: &VirtualPath) -> Result<Entry, Refusal> {
        self.judge_name(path, Permissions::LIST).await?;
        self.home.storage().link_metadata(path).await
    }

    /// The path that `path` leads to. Needs `LIST`.
    ///
    /// # Errors
    /// `NotFound` where it leaves the home or leads nowhere; `NotPermitted`.
    pub async fn resolve_links(&self, path: &VirtualPath) -> Result<VirtualPath, Refusal> {
        self.judge(path, Permissions::LIST).await?;
        self.home.storage().resolve(path).await
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
        self.home.storage().metadata(path).await.map(drop)
    }

    /// The entries of a directory. Needs `LIST`.
    ///
    /// # Errors
    /// `NotADirectory`, `NotFound`, `NotPermitted`, `TooManyOpen`.
    pub async fn list(&self, path: &VirtualPath) -> Result<Listing, Refusal> {
        // Where rules differ by directory, a link's target may be out of bounds.
        let links = if self.gate().needs_resolved() {
            Links::Show
        } else {
            Links::Follow
        };
        self.list_with(path, links).await
    }

    /// The entries of a directory, links as themselves. Needs `LIST`.
    ///
    /// # Errors
    /// Those of [`Vfs::list`].
    pub async fn list_links(&self, path: &VirtualPath) -> Result<Listing, Refusal> {
        self.list_with(path, Links::Show).await
    }

    async fn list_with(&self, path: &VirtualPath, links: Links) -> Result<Listing, Refusal> {
        self.judge(path, Permissions::LIST).await?;
        let slot = self.home.open().take(1)?;
        let batches = self.home.storage().list(path, links).await?;
        Ok(Listing {
            known: None,
            batches: Some((batches, slot)),
            next: FIRST_ENTRIES,
            most: MOST_ENTRIES,
        })
    }

    /// Opens a file for reading. Needs `READ`.
    ///
    /// # Errors
    /// `IsADirectory`, `NotAFile`, `NotFound`, `NotPermitted`, `TooManyOpen`.
    pub async fn open(&self, path: &VirtualPath) -> Result<Download, Refusal> {
        self.judge(path, Permissions::READ).await?;
        let slot = self.home.open().take(1)?;
        let file = self.home.storage().open(path).await?;
        Ok(Download { file, _slot: slot })
    }

    /// Starts an upload. Needs `WRITE` for a new file, `OVERWRITE` to replace
    /// one, `APPEND` or `OVERWRITE` to go on at its end.
    ///
    /// # Errors
    /// `NotPermitted`, `OverQuota`, `Busy`, `OffsetBeyondEnd`, `InvalidName`, `TooManyOpen`, and what the
    /// storage says.
    pub async fn create(
        &self,
        path: &VirtualPath,
        options: UploadOptions,
    ) -> Result<Upload, Refusal> {
        new_name(path)?;
        self.gate().any(&[path], ANY_WRITE)?;
        let (vfs, path) = (self.clone(), path.clone());
        run_to_end(async move { vfs.start_upload(&path, options, Existing::Any).await }).await
    }

    /// Opens a file for writing at any byte. Needs what [`Vfs::create`] needs; to change what
    /// is in a whole file `OVERWRITE`, and `READ` as well if it is to be read.
    ///
    /// # Errors
    /// Those of [`Vfs::create`]; `NotFound` and `AlreadyExists` as asked for.
    pub async fn open_to_write(
        &self,
        path: &VirtualPath,
        options: WriteOptions,
    ) -> Result<Upload, Refusal> {
        new_name(path)?;
        self.gate().any(&[path], ANY_WRITE)?;
        if options.readable {
            self.judge(path, Permissions::READ).await?;
        }
        let (vfs, path) = (self.clone(), path.clone());
        run_to_end(async move {
            let upload = UploadOptions {
                disposition: options.disposition,
                announced_bytes: None,
                digest: None,
            };
            let mut upload = vfs.start_upload(&path, upload, options.existing).await?;
            if let Some(mode) = options.mode {
                upload.suggest_mode(mode).await?;
            }
            Ok(upload)
        })
        .await
    }

    /// Makes a file shorter, or longer by zeros. Needs `OVERWRITE`, or to go on with a cut upload
    /// what that needs.
    ///
    /// # Errors
    /// `NotFound`, `OverQuota`, `Busy`, `NotPermitted`, and what the storage says.
    pub async fn set_length(&self, path: &VirtualPath, length: u64) -> Result<(), Refusal> {
        let options = WriteOptions {
            disposition: Disposition::Amend,
            existing: Existing::Required,
            mode: None,
            readable: false,
        };
        let mut upload = self.open_to_write(path, options).await?;
        match upload.set_length(length).await {
            Ok(()) => upload.commit().await.map(drop),
            Err(refusal) => {
                upload.cut().await?;
                Err(refusal)
            }
        }
    }

    async fn start_upload(
        &self,
        path: &VirtualPath,
        options: UploadOptions,
        existing: Existing,
    ) -> Result<Upload, Refusal> {
        match existing {
            Existing::Any => {}
            Existing::Required => {
                self.home.storage().metadata(path).await?;
            }
            Existing::Refused => {
                let target = self.follow(path).await?;
                match self.home.storage().link_metadata(&target).await {
                    Err(Refusal::NotFound) => {}
                    found => return Err(found.err().unwrap_or(Refusal::AlreadyExists)),
                }
            }
        }
        let slot = self.home.open().take(UPLOAD_DESCRIPTORS)?;
        let claim = Arc::new(Mutex::new(self.begin().await?));
        let mode = options.disposition.write_mode();
        let reserve = reserve(&claim, mode, options.announced_bytes);
        let judged = Arc::new(OnceLock::new());
        let judge = {
            let (vfs, path, judged) = (self.clone(), path.clone(), Arc::clone(&judged));
            Box::new(move |leads_to| {
                let landing = vfs.judge_landing(&path, leads_to, options.disposition, existing)?;
                let target = landing.target.clone();
                let _ = judged.set(landing);
                Ok(target)
            })
        };
        let staged = self
            .home
            .storage()
            .stage_where_it_leads(path, judge, reserve)
            .await;
        let (staged, landing) = match (staged, judged.get()) {
            (Ok(staged), Some(landing)) => (staged, landing),
            (staged, _) => {
                with(&claim, |claim| claim.settle(Usage::ZERO, Usage::ZERO));
                return Err(staged.err().unwrap_or(Refusal::NotFound));
            }
        };
        let name = landing.target.path.file_name().unwrap_or_default().to_vec();
        let may_set_attributes = landing.may_set_attributes;
        let digest = options.digest;
        Ok(Upload::new(
            (staged, slot),
            claim,
            name,
            digest,
            may_set_attributes,
        ))
    }

    /// Where an upload to `path`, which leads to `target`, goes, and what it may do there.
    fn judge_landing(
        &self,
        path: &VirtualPath,
        target: VirtualPath,
        disposition: Disposition,
        existing: Existing,
    ) -> Result<Landing, Refusal> {
        let gate = self.gate();
        let mut rights = gate.rights(&[path, &target]);
        let attributes = gate.all(&[path, &target], Permissions::ATTRIBUTES);
        let may_set_attributes = attributes.is_ok();
        let is_unique = disposition == Disposition::Unique;
        if is_unique || existing == Existing::Refused {
            // Nor may it take the place of what came to stand there meanwhile.
            rights.replace = false;
        }
        let path = if is_unique {
            unique_name(&target)?
        } else {
            target
        };
        Ok(Landing {
            target: Target {
                path,
                mode: disposition.write_mode(),
                rights,
            },
            may_set_attributes,
        })
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
        self.gate().any(&[path], ANY_WRITE)?;
        let target = self.follow(path).await?;
        self.gate().any(&[path, &target], ANY_WRITE)?;
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
        new_name(path)?;
        self.judge_name(path, Permissions::MKDIR).await?;
        let (vfs, path) = (self.clone(), path.clone());
        run_to_end(async move {
            let one = Usage { bytes: 0, files: 1 };
            let mut claim = vfs.begin().await?;
            claim.reserve(one)?;
            let made = vfs.home.storage().make_directory(&path).await;
            let held = if made.is_ok() { one } else { Usage::ZERO };
            claim.settle(held, Usage::ZERO);
            made
        })
        .await
    }

    /// Removes an empty directory. Needs `RMDIR`.
    ///
    /// # Errors
    /// `NotEmpty`, `NotADirectory`, `NotFound`, `NotPermitted`.
    pub async fn remove_directory(&self, path: &VirtualPath) -> Result<(), Refusal> {
        let names = self.judge_name(path, Permissions::RMDIR).await?;
        self.gate().holds_no_rule(&each(&names))?;
        let (vfs, path) = (self.clone(), path.clone());
        run_to_end(async move {
            let _activity = vfs.home.ledger().begin().await?;
            let removed = vfs.home.storage().remove_directory(&path).await?;
            vfs.home.ledger().release(removed);
            Ok(())
        })
        .await
    }

    /// Removes a file, or a link itself. Needs `DELETE`.
    ///
    /// # Errors
    /// `IsADirectory`, `Busy`, `NotFound`, `NotPermitted`.
    pub async fn remove_file(&self, path: &VirtualPath) -> Result<(), Refusal> {
        self.judge_name(path, Permissions::DELETE).await?;
        let (vfs, path) = (self.clone(), path.clone());
        run_to_end(async move {
            let _activity = vfs.home.ledger().begin().await?;
            let removed = vfs.home.storage().remove_file(&path).await?;
            vfs.home.ledger().release(removed);
            Ok(())
        })
        .await
    }

    /// Renames a file or directory; a file replaces a file. Needs `RENAME` on
    /// the source, `WRITE` on the target, and `OVERWRITE` to replace.
    ///
    /// # Errors
    /// `AlreadyExists`, `IsADirectory`, `Busy`, `NotFound`, `NotPermitted`, `InvalidName`.
    pub async fn rename(&self, from: &VirtualPath, to: &VirtualPath) -> Result<(), Refusal> {
        self.rename_with(from, to, Existing::Any).await
    }

    /// As [`Vfs::rename`], but replaces nothing.
    ///
    /// # Errors
    /// Those of [`Vfs::rename`].
    pub async fn rename_new(&self, from: &VirtualPath, to: &VirtualPath) -> Result<(), Refusal> {
        self.rename_with(from, to, Existing::Refused).await
    }

    async fn rename_with(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        existing: Existing,
    ) -> Result<(), Refusal> {
        new_name(to)?;
        let land = Permissions::WRITE | Permissions::OVERWRITE;
        self.gate().any(&[to], land)?;
        let sources = self.judge_name(from, Permissions::RENAME).await?;
        let targets = self.names_of(to).await?;
        let gate = self.gate();
        gate.any(&each(&targets), land)?;
        gate.holds_no_rule(&each(&sources))?;
        gate.holds_no_rule(&each(&targets))?;
        let mut rights = gate.rights(&each(&targets));
        let only_new = existing == Existing::Refused;
        rights.replace &= !only_new;
        let may_create = rights.create;
        let (vfs, from, to) = (self.clone(), from.clone(), to.clone());
        run_to_end(async move {
            let _activity = vfs.home.ledger().begin().await?;
            let renamed = vfs.home.storage().rename(&from, &to, rights).await;
            let replaced = renamed.map_err(|refusal| match refusal {
                // The only thing that was not permitted was to replace.
                Refusal::NotPermitted if only_new && may_create => Refusal::AlreadyExists,
                refusal => refusal,
            })?;
            vfs.home.ledger().release(replaced);
            Ok(())
        })
        .await
    }

    /// Gives a file a second name, which must be free and counts as a file of its own. Needs
    /// what a copy needs: `READ` on the file and `WRITE` on the name.
    ///
    /// # Errors
    /// `AlreadyExists`, `IsADirectory`, `NotAFile`, `Busy`, `OverQuota`, `NotFound`,
    /// `NotPermitted`, `InvalidName`.
    pub async fn link(&self, existing: &VirtualPath, link: &VirtualPath) -> Result<(), Refusal> {
        new_name(link)?;
        self.judge(existing, Permissions::READ).await?;
        self.judge_name(link, Permissions::WRITE).await?;
        let existing = self.follow(existing).await?;
        let (vfs, link) = (self.clone(), link.clone());
        run_to_end(async move {
            let claim = Arc::new(Mutex::new(vfs.begin().await?));
            let reserve = reserve(&claim, WriteMode::Replace, None);
            let linked = vfs.home.storage().link(&existing, &link, reserve).await;
            with(&claim, |claim| {
                let held = if linked.is_ok() {
                    claim.charged()
                } else {
                    Usage::ZERO
                };
                claim.settle(held, Usage::ZERO);
            });
            linked
        })
        .await
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
    /// Those of [`Vfs::open`]; `OffsetBeyondEnd`.
    pub async fn digest(
        &self,
        path: &VirtualPath,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<(Digest, ByteRange), Refusal> {
        self.open(path).await?.digest(algorithm, range).await
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

    /// Judges the name itself: its last component is not followed. Returns every name
    /// under which it was judged.
    async fn judge_name(
        &self,
        path: &VirtualPath,
        needed: Permissions,
    ) -> Result<Vec<VirtualPath>, Refusal> {
        self.gate().all(&[path], needed)?;
        let names = self.names_of(path).await?;
        self.gate().all(&each(&names), needed)?;
        Ok(names)
    }

    /// `path`, and where rules differ by directory also the path that its directory leads to.
    async fn names_of(&self, path: &VirtualPath) -> Result<Vec<VirtualPath>, Refusal> {
        let mut names = vec![path.clone()];
        if let (true, Some(parent), Some(name)) = (
            self.gate().needs_resolved(),
            path.parent(),
            path.file_name(),
        ) {
            names.push(self.home.storage().resolve(&parent).await?.resolve(name)?);
        }
        Ok(names)
    }

    /// Where an upload to `path` goes: through links that stay inside.
    async fn follow(&self, path: &VirtualPath) -> Result<VirtualPath, Refusal> {
        self.home.storage().resolve(path).await
    }
}

/// Where an upload goes.
struct Landing {
    target: Target,
    may_set_attributes: bool,
}

impl Disposition {
    fn write_mode(self) -> WriteMode {
        match self {
            Self::Replace | Self::Unique => WriteMode::Replace,
            Self::ResumeAt(offset) => WriteMode::ResumeAt(offset),
            Self::Append => WriteMode::Append,
            Self::Amend => WriteMode::Amend,
        }
    }
}

/// `path` with a dot and 16 random digits: a look at which names are free would tell two
/// uploads that look at the same time the same.
fn unique_name(path: &VirtualPath) -> Result<VirtualPath, Refusal> {
    let (parent, name) = path
        .parent()
        .zip(path.file_name())
        .ok_or(Refusal::IsADirectory)?;
    let random = getrandom::u64().map_err(|error| Refusal::Io(io::Error::other(error)))?;
    let suffix = format!(".{random:016x}");
    let longest = FileName::MAX_BYTES - suffix.len();
    let mut unique = name.get(..longest).unwrap_or(name).to_vec();
    unique.extend_from_slice(suffix.as_bytes());
    Ok(parent.join(&FileName::parse(&unique)?)?)
}

/// Charges what a writer needs, if what was announced would fit too.
fn reserve(claim: &SharedClaim, mode: WriteMode, announced_bytes: Option<u64>) -> Reserve {
    let claim = Arc::clone(claim);
    Box::new(move |need| {
        with(&claim, |claim| {
            claim.expect_release(need.release);
            if let Some(announced) = announced_bytes {
                let there = match mode {
                    WriteMode::ResumeAt(offset) => offset,
                    WriteMode::Replace | WriteMode::Append | WriteMode::Amend => 0,
                };
                let bytes = announced.saturating_sub(there).max(need.fresh.bytes);
                claim.would_fit(Usage {
                    bytes,
                    ..need.fresh
                })?;
            }
            claim.reserve(need.fresh)?;
            claim.adopt(need.adopted);
            Ok(())
        })
    })
}

fn each(names: &[VirtualPath]) -> Vec<&VirtualPath> {
    names.iter().collect()
}

/// Entries of a directory, piece by piece.
pub struct Listing {
    known: Option<Vec<Entry>>,
    batches: Option<(Box<dyn Batches>, OpenSlot)>,
    /// How many entries the next piece has.
    next: usize,
    /// How many a piece has at most.
    most: usize,
}

/// Entries of the first piece of a listing: few, so that it is soon there.
const FIRST_ENTRIES: usize = 128;

/// Most entries of one piece of a listing: enough to make a hop to another thread
/// cheap, few enough that a listing of any size stays small.
const MOST_ENTRIES: usize = 2048;

impl Listing {
    /// A listing of entries that are known already.
    pub fn of(entries: Vec<Entry>) -> Self {
        Self {
            known: Some(entries),
            batches: None,
            next: 0,
            most: 0,
        }
    }

    /// The same in pieces that do not grow, for who keeps many listings open.
    #[must_use]
    pub fn in_small_pieces(self) -> Self {
        Self {
            most: FIRST_ENTRIES,
            ..self
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
            Some((batches, _)) => {
                let size = self.next;
                self.next = size.saturating_mul(2).min(self.most);
                batches.next(size).await
            }
            None => Ok(None),
        }
    }
}

/// A file that is open for reading.
pub struct Download {
    file: Box<dyn StoredFile>,
    _slot: OpenSlot,
}

impl Download {
    /// What it is, as of its opening.
    pub fn entry(&self) -> &Entry {
        self.file.entry()
    }

    /// What it is now.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn current_entry(&self) -> Result<Entry, Refusal> {
        self.file.current_entry().await
    }

    /// At most `length` bytes from `offset`; empty at the end.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, Refusal> {
        self.file.read_at(offset, length).await
    }

    /// The digest of the file or a range of it, cut at its end, and what it covers. One of the
    /// whole may be known already; a digest that nobody waits for any more stops.
    ///
    /// # Errors
    /// `OffsetBeyondEnd`, and what the storage says.
    pub async fn digest(
        &self,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<(Digest, ByteRange), Refusal> {
        self.file.digest(algorithm, range).await
    }

    /// The file of the operating system, where there is one, for the kernel's own ways of sending.
    pub fn as_file(&self) -> Option<&Arc<File>> {
        self.file.as_file()
    }
}
