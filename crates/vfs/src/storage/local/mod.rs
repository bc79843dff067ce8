//! Plain files under a directory of this machine.
//!
//! What is uploaded as `a/b` is the file `a/b` in the home. System calls run on
//! threads that may block, several in one hop; what finds all in memory runs in place (`turn`).

mod beneath;
mod digest;
mod pour;
mod staging;
mod turn;
mod walk;
mod writer;

use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use cap_std::fs::{
    Dir, DirBuilder, DirBuilderExt as _, DirEntry, Metadata, MetadataExt as _, OpenOptions, ReadDir,
};
use rustix::fs::Timespec;
use wharf_model::{
    ByteRange, Digest, DigestAlgorithm, Entry, EntryKind, PathError, Refusal, Usage, VirtualPath,
};

use self::beneath::{
    INCOMPLETE, PARKED, STAGED, attribute, entry, identity, kind_of, look, meets_no_link,
    near_parent, never_waits, open_at_once, open_directory, open_regular, parent, parent_for_new,
    refusal, relative, set_attribute, usage_of,
};
use self::staging::{
    Copy, HeldTree, InPlace, LocalStaged, Place, Spot, Staged, Tree, drop_parked, parked_name,
    require_file, standing, target_of_staged,
};
use self::turn::{Turn, Turns};
use self::walk::walk;
use crate::storage::{
    Batches, Judge, Links, Need, Reserve, Rights, StagedFile, Storage, StorageResult, StoredFile,
    Target, WriteMode, is_reserved, is_resident, new_name, readable_at,
};

/// Readable by everybody on the server's machine who may enter the home, which is 0700.
const DIRECTORY_MODE: u32 = 0o755;

/// What no change of mode takes away: the server itself has to get at the entry, if only
/// to change its mode again.
const OWNER_FILE_MODE: u32 = 0o400;
/// The same for a directory.
const OWNER_DIRECTORY_MODE: u32 = 0o700;

/// Most bytes that are read without a hop to another thread.
const MOST_AT_ONCE: usize = 256 * 1024;

/// Most bytes that are taken away without a hop to another thread: ext4 frees them one by one.
const MOST_REPLACED_AT_ONCE: u64 = 16 * 1024 * 1024;

/// How a local storage treats its disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalOptions {
    /// Content and name are on the disk before a commit returns.
    pub durable: bool,
}

/// Files under one directory. Cheap to clone; all clones are the same storage.
#[derive(Clone)]
pub struct LocalStorage(Arc<Inner>);

struct Inner {
    root: Arc<Dir>,
    /// What is in memory can be opened and read without waiting for anything.
    never_waits: bool,
    tree: Arc<Tree>,
    turns: Arc<Turns>,
    options: LocalOptions,
}

impl LocalStorage {
    /// The storage under `root`.
    pub fn new(root: Dir, options: LocalOptions) -> Self {
        Self(Arc::new(Inner {
            never_waits: never_waits(&root),
            root: Arc::new(root),
            tree: Arc::default(),
            turns: Arc::default(),
            options,
        }))
    }

    fn run<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Refusal> + Send + 'static,
    ) -> StorageResult<'a, T> {
        let inner = Arc::clone(&self.0);
        Box::pin(blocking(move || work(&inner)))
    }

    /// The same for what may take minutes: it is told when nobody waits for it any more, which
    /// is when the future was dropped.
    fn run_while_wanted<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Wanted) -> Result<T, Refusal> + Send + 'static,
    ) -> StorageResult<'a, T> {
        let inner = Arc::clone(&self.0);
        while_wanted(move |wanted| work(&inner, wanted))
    }
}

/// Does what takes long, and stops when nobody waits for it any more.
fn while_wanted<'a, T: Send + 'static>(
    work: impl FnOnce(&Wanted) -> Result<T, Refusal> + Send + 'static,
) -> StorageResult<'a, T> {
    Box::pin(async move {
        let waiter = Arc::new(());
        let wanted = Wanted(Arc::downgrade(&waiter));
        let done = blocking(move || work(&wanted)).await;
        drop(waiter);
        done
    })
}

/// A name in a directory.
struct Name {
    directory: Arc<Dir>,
    target: PathBuf,
    /// What is there, a link as itself.
    standing: Option<Metadata>,
}

/// Where somebody wants to write, and what is there.
struct Site {
    place: Place,
    /// A regular file.
    standing: Option<Metadata>,
    /// What a cut overwrite left.
    parked: Option<Metadata>,
}

impl Site {
    /// Stages what takes the place of all of it.
    fn replace(self, reserve: Reserve) -> Result<LocalStaged, Refusal> {
        self.place.rights.land(self.standing.is_some())?;
        let release = self.usage();
        Staged::create(self.place, release, reserve)
    }

    /// What all that is there counts for.
    fn usage(&self) -> Usage {
        let there = [&self.standing, &self.parked].into_iter().flatten();
        there
            .map(usage_of)
            .fold(Usage::ZERO, |sum, usage| sum + usage)
    }
}

/// Whether somebody waits for what is done.
struct Wanted(Weak<()>);

impl Wanted {
    /// # Errors
    /// Nobody does, so that nobody will see which error it is.
    fn check(&self) -> Result<(), Refusal> {
        match self.0.strong_count() {
            0 => Err(Refusal::Io(io::ErrorKind::Interrupted.into())),
            _ => Ok(()),
        }
    }
}

/// Runs what may block on a thread for such work.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Refusal::Io(io::Error::other(error))),
    }
}

impl Storage for LocalStorage {
    fn metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry> {
        let path = path.clone();
        self.run(move |inner| inner.metadata(&path))
    }

    fn link_metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry> {
        let path = path.clone();
        self.run(move |inner| inner.link_metadata(&path))
    }

    fn resolve<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, VirtualPath> {
        let path = path.clone();
        self.run(move |inner| inner.resolve(&path))
    }

    fn list<'a>(
        &'a self,
        path: &'a VirtualPath,
        links: Links,
    ) -> StorageResult<'a, Box<dyn Batches>> {
        let (path, shared) = (path.clone(), Arc::clone(&self.0));
        self.run(move |inner| {
            let entries = inner.root.read_dir(relative(&path)?).map_err(refusal)?;
            let directory = path.clone();
            let batches = LocalBatches {
                inner: shared,
                directory,
                links,
                entries: Some(entries),
            };
            Ok(Box::new(batches) as Box<dyn Batches>)
        })
    }

    fn open<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Box<dyn StoredFile>> {
        let inner = &self.0;
        // Most files that are asked for were asked for before: no hop for what the system
        // finds in its memory.
        if inner.never_waits
            && let Ok(relative) = relative(path)
            && let Some((file, metadata)) = open_at_once(&inner.root, relative)
        {
            let opened = LocalFile::boxed(path, file, &metadata, true);
            return Box::pin(std::future::ready(Ok(opened)));
        }
        let path = path.clone();
        self.run(move |inner| {
            let (file, metadata) = inner.open_file(&path)?;
            Ok(LocalFile::boxed(&path, file, &metadata, false))
        })
    }

    fn stage<'a>(
        &'a self,
        path: &'a VirtualPath,
        mode: WriteMode,
        rights: Rights,
        reserve: Reserve,
    ) -> StorageResult<'a, Box<dyn StagedFile>> {
        let path = path.clone();
        self.run(move |inner| inner.stage(&path, mode, rights, reserve))
    }

    fn stage_where_it_leads<'a>(
        &'a self,
        path: &'a VirtualPath,
        judge: Judge,
        reserve: Reserve,
    ) -> StorageResult<'a, Box<dyn StagedFile>> {
        let inner = &self.0;
        let Some((turn, near)) = inner.near(path) else {
            let path = path.clone();
            return self.run(move |inner| {
                let Target { path, mode, rights } = judge(inner.resolve(&path)?)?;
                inner.stage(&path, mode, rights, reserve)
            });
        };
        let target = match judge(path.clone()) {
            Ok(target) => target,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
        };
        if target.mode == WriteMode::Replace && target.path == *path {
            let staged = inner.stage_in_turn(near, target.rights, reserve);
            return Box::pin(std::future::ready(staged));
        }
        // What goes on with a file may have to copy it, and another name is to be looked up.
        drop(turn);
        let Target { path, mode, rights } = target;
        self.run(move |inner| inner.stage(&path, mode, rights, reserve))
    }

    fn partial<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Option<u64>> {
        let path = path.clone();
        self.run(move |inner| {
            Ok(inner
                .open_partial(&path)?
                .map(|(_, metadata)| metadata.len()))
        })
    }

    fn partial_digest<'a>(
        &'a self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
    ) -> StorageResult<'a, Digest> {
        let path = path.clone();
        self.run_while_wanted(move |inner, wanted| {
            let (file, _) = inner.open_partial(&path)?.ok_or(Refusal::NotFound)?;
            Ok(digest::digest(&file, algorithm, None, wanted)?.0)
        })
    }

    fn make_directory<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, ()> {
        let path = path.clone();
        self.run(move |inner| {
            let (directory, name) = parent_for_new(&inner.root, &path)?;
            let mut builder = DirBuilder::new();
            builder.mode(DIRECTORY_MODE);
            let _held = inner.tree.hold();
            directory.create_dir_with(&name, &builder).map_err(refusal)
        })
    }

    fn remove_directory<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Usage> {
        let path = path.clone();
        self.run(move |inner| inner.remove_directory(&path))
    }

    fn remove_file<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Usage> {
        let path = path.clone();
        self.run(move |inner| inner.remove_file(&path))
    }

    fn rename<'a>(
        &'a self,
        from: &'a VirtualPath,
        to: &'a VirtualPath,
        rights: Rights,
    ) -> StorageResult<'a, Usage> {
        let (from, to) = (from.clone(), to.clone());
        self.run(move |inner| inner.rename(&from, &to, rights))
    }

    fn link<'a>(
        &'a self,
        existing: &'a VirtualPath,
        link: &'a VirtualPath,
        reserve: Reserve,
    ) -> StorageResult<'a, ()> {
        let (existing, link) = (existing.clone(), link.clone());
        self.run(move |inner| inner.link(&existing, &link, reserve))
    }

    fn set_modified<'a>(
        &'a self,
        path: &'a VirtualPath,
        time: SystemTime,
    ) -> StorageResult<'a, ()> {
        let path = path.clone();
        self.run(move |inner| set_file_modified(&inner.open_any(&path)?, time))
    }

    fn set_mode<'a>(&'a self, path: &'a VirtualPath, mode: u32) -> StorageResult<'a, ()> {
        let path = path.clone();
        self.run(move |inner| {
            let handle = inner.open_any(&path)?;
            let is_directory = handle.metadata().map_err(refusal)?.is_dir();
            let kept = if is_directory {
                OWNER_DIRECTORY_MODE
            } else {
                OWNER_FILE_MODE
            };
            let mode = rustix::fs::Mode::from_raw_mode(mode & 0o777 | kept);
            rustix::fs::fchmod(&handle, mode).map_err(|error| refusal(error.into()))
        })
    }

    fn measure(&self) -> StorageResult<'_, Usage> {
        self.run_while_wanted(|inner, wanted| {
            walk(&inner.root, wanted, &mut |_, _, metadata| {
                usage_of(metadata)
            })
        })
    }

    fn recover(&self) -> StorageResult<'_, Usage> {
        self.run_while_wanted(|inner, wanted| {
            // Twice, because what is renamed on the way may be met again.
            walk(&inner.root, wanted, &mut |directory, name, metadata| {
                if let Some(target) = target_of_staged(name.as_os_str().as_bytes())
                    && metadata.is_file()
                {
                    recover_staged(directory, name, metadata, target);
                }
                Usage::ZERO
            })?;
            walk(&inner.root, wanted, &mut |_, _, metadata| {
                usage_of(metadata)
            })
        })
    }

    fn free_bytes(&self) -> StorageResult<'_, Option<u64>> {
        self.run(|inner| {
            let state = rustix::fs::fstatvfs(&inner.root).map_err(|error| refusal(error.into()))?;
            Ok(Some(state.f_bavail.saturating_mul(state.f_frsize)))
        })
    }
}

/// Sets the modification time of what is open.
fn set_file_modified(file: &File, time: SystemTime) -> Result<(), Refusal> {
    let times = rustix::fs::Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: timespec(time),
    };
    rustix::fs::futimens(file, &times).map_err(|error| refusal(error.into()))
}

/// At most `length` bytes from `offset`.
fn read_file(file: &File, offset: u64, length: usize) -> Result<Bytes, Refusal> {
    let length = readable_at(offset, length);
    let mut content = Vec::with_capacity(length);
    if length > 0 {
        let spare = rustix::buffer::spare_capacity(&mut content);
        rustix::io::pread(file, spare, offset).map_err(|error| refusal(error.into()))?;
    }
    Ok(Bytes::from(content))
}

fn timespec(time: SystemTime) -> Timespec {
    let (seconds, nanoseconds) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-whole, 0),
                part => (-whole - 1, 1_000_000_000 - part),
            }
        }
    };
    Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanoseconds),
    }
}

impl Inner {
    fn metadata(&self, path: &VirtualPath) -> Result<Entry, Refusal> {
        let relative = relative(path)?;
        let name = path.file_name().unwrap_or(b"/");
        let metadata = match self.root.metadata(relative) {
            Ok(metadata) => metadata,
            // A link that leaves or leads nowhere is still an entry.
            Err(error) => match self.root.symlink_metadata(relative) {
                Ok(metadata) if metadata.is_symlink() => metadata,
                _ => return Err(refusal(error)),
            },
        };
        Ok(self.marked(entry(&metadata, name), relative))
    }

    fn link_metadata(&self, path: &VirtualPath) -> Result<Entry, Refusal> {
        let relative = relative(path)?;
        let metadata = self.root.symlink_metadata(relative).map_err(refusal)?;
        let name = path.file_name().unwrap_or(b"/");
        Ok(self.marked(entry(&metadata, name), relative))
    }

    fn marked(&self, mut entry: Entry, relative: &Path) -> Entry {
        if entry.kind == EntryKind::File {
            entry.incomplete = self.is_incomplete(relative);
        }
        entry
    }

    fn is_incomplete(&self, relative: &Path) -> bool {
        open_regular(&self.root, relative, OpenOptions::new().read(true))
            .is_ok_and(|(file, _)| attribute(&file, INCOMPLETE).is_some())
    }

    /// A turn for work on `path`, which is where it leads: its directory is in memory, and belongs
    /// to the file system of the home.
    fn near(&self, path: &VirtualPath) -> Option<(Turn<'_>, Name)> {
        if !self.never_waits || !self.tree.is_free() || new_name(path).is_err() {
            return None;
        }
        let turn = self.turns.take()?;
        let (directory, target) = near_parent(&self.root, path)?;
        let standing = look(&directory, &target).ok()?;
        let is_link = standing.as_ref().is_some_and(Metadata::is_symlink);
        let name = Name {
            directory,
            target,
            standing,
        };
        (!is_link).then_some((turn, name))
    }

    /// Follows links component by component. What is missing keeps its name.
    fn resolve(&self, path: &VirtualPath) -> Result<VirtualPath, Refusal> {
        if meets_no_link(&self.root, relative(path)?) {
            return Ok(path.clone());
        }
        let mut missing: Vec<Vec<u8>> = Vec::new();
        let mut existing = path.clone();
        loop {
            match self.root.canonicalize(relative(&existing)?) {
                Ok(found) => {
                    let mut resolved = VirtualPath::parse(&found.into_os_string().into_vec())?;
                    for name in missing.iter().rev() {
                        resolved = resolved.resolve(name)?;
                    }
                    // A link may lead to a name that no client may name.
                    relative(&resolved)?;
                    return Ok(resolved);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let dangling = self
                        .root
                        .symlink_metadata(relative(&existing)?)
                        .is_ok_and(|metadata| metadata.is_symlink());
                    let (Some(parent), Some(name)) = (existing.parent(), existing.file_name())
                    else {
                        return Err(refusal(error));
                    };
                    if dangling {
                        return Err(Refusal::NotFound);
                    }
                    missing.push(name.to_vec());
                    existing = parent;
                }
                Err(error) => return Err(refusal(error)),
            }
        }
    }

    fn open_file(&self, path: &VirtualPath) -> Result<(File, Metadata), Refusal> {
        open_regular(&self.root, relative(path)?, OpenOptions::new().read(true))
    }

    /// A file or directory, for a change of its attributes.
    fn open_any(&self, path: &VirtualPath) -> Result<File, Refusal> {
        match self.open_file(path) {
            Ok((file, _)) => Ok(file),
            Err(Refusal::IsADirectory) => open_directory(&self.root, relative(path)?),
            Err(other) => Err(other),
        }
    }

    /// Stages, in a turn, what takes the place of whatever stands there. What comes after may
    /// have turns, too.
    fn stage_in_turn(
        &self,
        name: Name,
        rights: Rights,
        reserve: Reserve,
    ) -> Result<Box<dyn StagedFile>, Refusal> {
        let mut staged = self.survey_at(name, rights)?.replace(reserve)?;
        staged.take_turns(Arc::clone(&self.turns));
        Ok(Box::new(staged))
    }

    fn survey(&self, path: &VirtualPath, rights: Rights) -> Result<Site, Refusal> {
        let (directory, target) = parent_for_new(&self.root, path)?;
        let name = Name {
            standing: look(&directory, &target)?,
            directory: Arc::new(directory),
            target,
        };
        self.survey_at(name, rights)
    }

    fn survey_at(&self, name: Name, rights: Rights) -> Result<Site, Refusal> {
        let Name {
            directory,
            target,
            standing,
        } = name;
        if let Some(metadata) = &standing {
            require_file(metadata)?;
        }
        let parked = look(&directory, &parked_name(&target))?.filter(Metadata::is_file);
        let place = Place {
            tree: Arc::clone(&self.tree),
            directory,
            target,
            rights,
            options: self.options,
        };
        Ok(Site {
            place,
            standing,
            parked,
        })
    }

    fn stage(
        &self,
        path: &VirtualPath,
        mode: WriteMode,
        rights: Rights,
        reserve: Reserve,
    ) -> Result<Box<dyn StagedFile>, Refusal> {
        let site = self.survey(path, rights)?;
        let standing = site.standing.as_ref();
        let size = standing.map_or(0, Metadata::len);
        let release = standing.map_or(Usage::ZERO, usage_of);
        let release_all = site.usage();
        let offset = match (mode, standing) {
            (WriteMode::Replace | WriteMode::ResumeAt(0), _)
            | (WriteMode::Append | WriteMode::Amend, None) => {
                return Ok(Box::new(site.replace(reserve)?));
            }
            (WriteMode::Append, Some(file)) if file.nlink() == 1 => {
                return Ok(Box::new(InPlace::open(site.place, Spot::End, reserve)?));
            }
            (WriteMode::Amend, Some(file)) if file.nlink() == 1 => {
                return Ok(Box::new(InPlace::open(
                    site.place,
                    Spot::Anywhere,
                    reserve,
                )?));
            }
            (WriteMode::Append, Some(_)) => size,
            (WriteMode::Amend, Some(_)) => 0,
            (WriteMode::ResumeAt(offset), _) => offset,
        };
        let (place, parked) = (site.place, site.parked);
        let resumes = matches!(mode, WriteMode::ResumeAt(_));
        if resumes && parked.is_some_and(|parked| parked.len() == offset) {
            rights.land(standing.is_some())?;
            return Ok(Box::new(Staged::resume_parked(
                place, offset, release, reserve,
            )?));
        }
        let Some(standing) = standing.filter(|_| offset <= size) else {
            return Err(Refusal::OffsetBeyondEnd { offset, size });
        };
        let (file, _) = open_regular(
            &place.directory,
            &place.target,
            OpenOptions::new().read(true),
        )?;
        let incomplete = attribute(&file, INCOMPLETE).is_some();
        let goes_on = incomplete || offset == size;
        if resumes && goes_on && standing.nlink() == 1 {
            let spot = Spot::From(offset);
            return Ok(Box::new(InPlace::open(place, spot, reserve)?));
        }
        // The other names of a file keep their content, and so does the tail of a whole one
        // until the commit.
        let first_writable = match mode {
            WriteMode::Amend => rights.first_writable(incomplete, size)?,
            _ if goes_on => {
                rights.write_in_place(incomplete)?;
                offset
            }
            _ => {
                rights.land(true)?;
                offset
            }
        };
        let copy = Copy {
            source: &file,
            length: size,
            start: offset,
            first_writable,
        };
        Ok(Box::new(Staged::copy_of(
            place,
            copy,
            release_all,
            reserve,
        )?))
    }

    /// What can be resumed: what is parked, else the file itself when it is marked.
    fn open_partial(&self, path: &VirtualPath) -> Result<Option<(File, Metadata)>, Refusal> {
        let (directory, name) = parent(&self.root, path)?;
        let open = |name: &Path| open_regular(&directory, name, OpenOptions::new().read(true));
        match open(&parked_name(&name)) {
            Err(Refusal::NotFound) => {}
            found => return found.map(Some),
        }
        let found = open(&name)?;
        Ok(attribute(&found.0, INCOMPLETE).is_some().then_some(found))
    }

    fn remove_directory(&self, path: &VirtualPath) -> Result<Usage, Refusal> {
        let (directory, name) = parent(&self.root, path)?;
        let mut held = self.tree.hold();
        let mut removed = Usage { bytes: 0, files: 1 };
        if directory.symlink_metadata(&name).map_err(refusal)?.is_dir() {
            let opened = directory.open_dir(&name).map_err(refusal)?;
            removed += remove_leftovers(&mut held, &opened)?;
        }
        directory.remove_dir(&name).map_err(refusal)?;
        Ok(removed)
    }

    fn remove_file(&self, path: &VirtualPath) -> Result<Usage, Refusal> {
        let (directory, name) = parent(&self.root, path)?;
        let mut held = self.tree.hold();
        let metadata = standing(&held, &directory, &name)?.ok_or(Refusal::NotFound)?;
        if metadata.is_dir() {
            return Err(Refusal::IsADirectory);
        }
        held.outlive(&directory, &name, &metadata);
        directory.remove_file(&name).map_err(refusal)?;
        Ok(usage_of(&metadata) + drop_parked(&mut held, &directory, &name))
    }

    fn link(
        &self,
        existing: &VirtualPath,
        link: &VirtualPath,
        reserve: Reserve,
    ) -> Result<(), Refusal> {
        let (from_directory, from_name) = parent(&self.root, existing)?;
        let (to_directory, to_name) = parent_for_new(&self.root, link)?;
        let held = self.tree.hold();
        let source = standing(&held, &from_directory, &from_name)?.ok_or(Refusal::NotFound)?;
        require_file(&source)?;
        if look(&to_directory, &to_name)?.is_some() {
            return Err(Refusal::AlreadyExists);
        }
        reserve(Need {
            fresh: usage_of(&source),
            ..Need::default()
        })?;
        from_directory
            .hard_link(&from_name, &to_directory, &to_name)
            .map_err(refusal)
    }

    fn rename(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        rights: Rights,
    ) -> Result<Usage, Refusal> {
        let (from_directory, from_name) = parent(&self.root, from)?;
        let (to_directory, to_name) = parent_for_new(&self.root, to)?;
        let mut held = self.tree.hold();
        let source = standing(&held, &from_directory, &from_name)?.ok_or(Refusal::NotFound)?;
        let target = standing(&held, &to_directory, &to_name)?;
        if from == to {
            return Ok(Usage::ZERO);
        }
        if to.starts_with(from) {
            return Err(Refusal::InvalidName(PathError::NotAName));
        }
        let mut released = match &target {
            Some(target) => replaceable_by(&source, target)?,
            None => Usage::ZERO,
        };
        rights.land(target.is_some())?;
        if let Some(target) = &target {
            held.outlive(&to_directory, &to_name, target);
        }
        if target.is_some_and(|target| identity(&target) == identity(&source)) {
            // rename(2) does nothing between two names of one file.
            from_directory.remove_file(&from_name).map_err(refusal)?;
        } else {
            from_directory
                .rename(&from_name, &to_directory, &to_name)
                .map_err(refusal)?;
        }
        released += drop_parked(&mut held, &from_directory, &from_name);
        released += drop_parked(&mut held, &to_directory, &to_name);
        Ok(released)
    }
}

/// What `source` takes away when it takes the name of `target`.
fn replaceable_by(source: &Metadata, target: &Metadata) -> Result<Usage, Refusal> {
    match (source.is_dir(), target.is_dir()) {
        (false, false) => Ok(usage_of(target)),
        (false, true) => Err(Refusal::IsADirectory),
        (true, true) => Err(Refusal::AlreadyExists),
        (true, false) => Err(Refusal::NotADirectory),
    }
}

/// What a crash left is treated as what a cut leaves.
fn recover_staged(directory: &Dir, name: &Path, metadata: &Metadata, target: &[u8]) {
    let target = Path::new(std::ffi::OsStr::from_bytes(target));
    let taken = directory.symlink_metadata(target).is_ok();
    let new_name = if taken {
        parked_name(target)
    } else {
        target.to_path_buf()
    };
    let useless = metadata.len() == 0 || target_is_lost(name);
    // One parked part for each name is enough.
    let surplus = taken && directory.symlink_metadata(&new_name).is_ok();
    let result = if useless || surplus {
        directory.remove_file(name)
    } else {
        if let Ok((file, _)) =
            open_regular(directory, name, OpenOptions::new().read(true).write(true))
        {
            set_attribute(&file, INCOMPLETE, b"1");
        }
        directory.rename(name, directory, &new_name)
    };
    if let Err(error) = result {
        tracing::warn!(%error, "a staged file was left as it is");
    }
}

/// A name that was too long to be kept whole.
fn target_is_lost(staged: &Path) -> bool {
    target_of_staged(staged.as_os_str().as_bytes())
        .and_then(|target| target.strip_prefix(b"-"))
        .is_some_and(|digits| digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// Removes parked parts from a directory that is about to go. Anything else
/// stays, and makes the removal fail; a staged file has a writer.
fn remove_leftovers(held: &mut HeldTree<'_>, directory: &Dir) -> Result<Usage, Refusal> {
    let mut parked = Vec::new();
    let mut written_into = false;
    for found in directory.entries().map_err(refusal)? {
        let name = found.map_err(refusal)?.file_name();
        if name.as_bytes().starts_with(PARKED.as_bytes()) {
            parked.push(PathBuf::from(name));
        } else if name.as_bytes().starts_with(STAGED.as_bytes()) {
            written_into = true;
        } else {
            return Err(Refusal::NotEmpty);
        }
    }
    if written_into {
        return Err(Refusal::Busy);
    }
    let mut removed = Usage::ZERO;
    for name in parked {
        let metadata = directory.symlink_metadata(&name).map_err(refusal)?;
        held.outlive(directory, &name, &metadata);
        directory.remove_file(&name).map_err(refusal)?;
        removed += usage_of(&metadata);
    }
    Ok(removed)
}

/// Entries that room is made for at first: most directories have fewer.
const FEW_ENTRIES: usize = 128;

/// From so many entries on, two threads look their facts up.
const SHARED_ENTRIES: usize = 512;

struct LocalBatches {
    inner: Arc<Inner>,
    directory: VirtualPath,
    links: Links,
    entries: Option<ReadDir>,
}

impl Batches for LocalBatches {
    fn next(&mut self, most: usize) -> StorageResult<'_, Option<Vec<Entry>>> {
        Box::pin(async move {
            while let Some(entries) = self.entries.take() {
                let (batch, entries) = self.read(entries, most).await?;
                self.entries = entries;
                if !batch.is_empty() || self.entries.is_none() {
                    return Ok((!batch.is_empty()).then_some(batch));
                }
            }
            Ok(None)
        })
    }
}

impl LocalBatches {
    /// At most `most` of `entries` with their facts, and what is left where that is not the end.
    async fn read(
        &self,
        mut entries: ReadDir,
        most: usize,
    ) -> Result<(Vec<Entry>, Option<ReadDir>), Refusal> {
        let look = Look {
            inner: Arc::clone(&self.inner),
            directory: self.directory.clone(),
            links: self.links,
        };
        let (mut batch, rest, entries) = blocking(move || {
            let mut found = next_names(most, &mut entries)?;
            let at_end = found.is_empty();
            // Nearly all the time goes into the facts, one system call for each entry.
            let rest = (found.len() >= SHARED_ENTRIES).then(|| {
                let (look, rest) = (look.clone(), found.split_off(found.len() / 2));
                tokio::task::spawn_blocking(move || look.at_all(rest))
            });
            Ok((look.at_all(found), rest, (!at_end).then_some(entries)))
        })
        .await?;
        if let Some(rest) = rest {
            let rest = rest.await;
            batch.extend(rest.map_err(|gone| Refusal::Io(io::Error::other(gone)))?);
        }
        Ok((batch, entries))
    }
}

/// The next entries by their names, at most `most`; none at the end.
fn next_names(most: usize, entries: &mut ReadDir) -> Result<Vec<DirEntry>, Refusal> {
    let mut names = Vec::with_capacity(most.min(FEW_ENTRIES));
    for found in entries.by_ref() {
        let found = found.map_err(refusal)?;
        if !is_reserved(found.file_name().as_bytes()) {
            names.push(found);
        }
        if names.len() == most {
            break;
        }
    }
    Ok(names)
}

/// How the facts of entries are looked up.
#[derive(Clone)]
struct Look {
    inner: Arc<Inner>,
    directory: VirtualPath,
    links: Links,
}

impl Look {
    /// The entries with their facts. What vanishes after its name was read, or cannot be looked at,
    /// is not there.
    fn at_all(&self, names: Vec<DirEntry>) -> Vec<Entry> {
        names
            .into_iter()
            .filter_map(|found| self.at(&found))
            .collect()
    }

    fn at(&self, found: &DirEntry) -> Option<Entry> {
        let name = found.file_name();
        let metadata = found.metadata().ok()?;
        let listed = entry(&metadata, name.as_bytes());
        if kind_of(&metadata) == EntryKind::Symlink
            && self.links == Links::Follow
            && let Ok(path) = self.directory.resolve(name.as_bytes())
            && let Ok(followed) = self.inner.metadata(&path)
        {
            return Some(followed);
        }
        Some(listed)
    }
}

struct LocalFile {
    entry: Entry,
    file: Arc<File>,
    /// It was opened without waiting. Where its file system cannot tell what is in memory, then
    /// everything is.
    at_once: bool,
}

impl LocalFile {
    /// `file`, which was found under `path`.
    fn boxed(
        path: &VirtualPath,
        file: File,
        metadata: &Metadata,
        at_once: bool,
    ) -> Box<dyn StoredFile> {
        Box::new(Self {
            entry: entry(metadata, path.file_name().unwrap_or(b"/")),
            file: Arc::new(file),
            at_once,
        })
    }
}

impl StoredFile for LocalFile {
    fn entry(&self) -> &Entry {
        &self.entry
    }

    fn current_entry(&self) -> StorageResult<'_, Entry> {
        let (file, name) = (Arc::clone(&self.file), self.entry.name.clone());
        Box::pin(blocking(move || {
            let metadata = Metadata::from_file(&file).map_err(refusal)?;
            Ok(entry(&metadata, &name))
        }))
    }

    fn read_at(&self, offset: u64, length: usize) -> StorageResult<'_, Bytes> {
        // A copy from memory takes less than a hop to another thread.
        let in_memory = is_resident(&self.file, offset, length).unwrap_or(self.at_once);
        if length <= MOST_AT_ONCE && in_memory {
            let read = read_file(&self.file, offset, length);
            return Box::pin(std::future::ready(read));
        }
        let file = Arc::clone(&self.file);
        Box::pin(blocking(move || read_file(&file, offset, length)))
    }

    fn digest(
        &self,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> StorageResult<'_, (Digest, ByteRange)> {
        let file = Arc::clone(&self.file);
        while_wanted(move |wanted| digest::digest(&file, algorithm, range, wanted))
    }

    fn as_file(&self) -> Option<&Arc<File>> {
        Some(&self.file)
    }
}

#[cfg(test)]
mod tests;
