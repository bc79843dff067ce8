//! A home in memory: the written semantics of [`Storage`], and a fast one for tests.
//!
//! It has no symbolic links and keeps nothing after the process ends. What an operation does to
//! names, sizes and marks is here in its plainest form: one tree under one lock.
//!
//! An upload is in one of three places: *staged*, while it is written; *visible* under its
//! name, perhaps marked incomplete; *parked*, when it was cut and something stood under
//! its name. All three count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use wharf_model::{
    ByteRange, Digest, DigestAlgorithm, Entry, EntryKind, Hasher, PathError, Refusal, Usage,
    VirtualPath,
};

use super::solid::Solid;
use super::{
    Approve, Batches, Kept, Landed, LastPiece, Links, ModeOf, Need, NotLanded, Reserve, Rights,
    StagedFile, Storage, StorageResult, StoredFile, WriteMode, end_of, is_reserved, new_name,
};

/// Mode of new files, as on a disk.
const FILE_MODE: u32 = 0o644;

/// Mode of new directories, as on a disk.
const DIRECTORY_MODE: u32 = 0o755;

/// A home in memory. Cheap to clone; all clones are the same home.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    tree: Arc<Mutex<Tree>>,
}

impl MemoryStorage {
    /// An empty home.
    pub fn new() -> Self {
        Self::default()
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        lock(&self.tree)
    }
}

/// Everything. The root is not among the entries.
#[derive(Default)]
struct Tree {
    entries: BTreeMap<VirtualPath, Node>,
    parked: BTreeMap<VirtualPath, Arc<Object>>,
    /// By the object's number, with the name that it is for: a writer stays with its
    /// directory when that is renamed.
    staged: BTreeMap<u64, (VirtualPath, Arc<Object>)>,
    /// Numbers of the objects that are being written where they stand.
    in_place: BTreeSet<u64>,
    last_number: u64,
}

#[derive(Clone)]
enum Node {
    Directory(Facts),
    File(Arc<Object>),
}

#[derive(Clone, Copy)]
struct Facts {
    number: u64,
    modified: SystemTime,
    mode: u32,
}

struct Object {
    number: u64,
    /// Taken after the tree's lock, where both are held.
    state: Mutex<State>,
}

struct State {
    content: Vec<u8>,
    modified: SystemTime,
    mode: u32,
    incomplete: bool,
}

impl Storage for MemoryStorage {
    fn metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry> {
        ready(self.tree().metadata(path)).boxed()
    }

    fn link_metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry> {
        self.metadata(path)
    }

    fn resolve<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, VirtualPath> {
        ready(self.tree().resolve(path)).boxed()
    }

    fn list<'a>(
        &'a self,
        path: &'a VirtualPath,
        _links: Links,
    ) -> StorageResult<'a, Box<dyn Batches>> {
        let tree = self.tree();
        let listed = tree.directory(path).map(|()| {
            let entries = tree.children(path).map(|(path, node)| node.entry(path));
            Box::new(Snapshot(entries.collect())) as Box<dyn Batches>
        });
        ready(listed).boxed()
    }

    fn open<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Box<dyn StoredFile>> {
        let opened = self.tree().file(path).map(|object| {
            let entry = object.entry(path);
            Box::new(Opened { object, entry }) as Box<dyn StoredFile>
        });
        ready(opened).boxed()
    }

    fn stage<'a>(
        &'a self,
        path: &'a VirtualPath,
        mode: WriteMode,
        rights: Rights,
        reserve: Reserve,
    ) -> StorageResult<'a, Box<dyn StagedFile>> {
        let started = self.tree().stage(path, mode, rights, reserve);
        let writer = started.map(|start| {
            let length = start.object.length();
            Box::new(Writer {
                tree: Arc::clone(&self.tree),
                rights: start.rights,
                start: start.offset,
                first_writable: start.first_writable,
                base: if start.in_place { length } else { 0 },
                in_place: start.in_place,
                was_incomplete: start.was_incomplete,
                solid: Solid::new(length),
                mode_is_set: false,
                object: start.object,
            }) as Box<dyn StagedFile>
        });
        ready(writer).boxed()
    }

    fn partial<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Option<u64>> {
        let partial = self.tree().partial(path);
        ready(partial.map(|found| found.map(|object| object.length()))).boxed()
    }

    fn partial_digest<'a>(
        &'a self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
    ) -> StorageResult<'a, Digest> {
        let partial = self.tree().partial(path);
        let digest = partial.and_then(|found| {
            let object = found.ok_or(Refusal::NotFound)?;
            Ok(object.digest(algorithm, None)?.0)
        });
        ready(digest).boxed()
    }

    fn make_directory<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, ()> {
        ready(self.tree().make_directory(path)).boxed()
    }

    fn remove_directory<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Usage> {
        ready(self.tree().remove_directory(path)).boxed()
    }

    fn remove_file<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Usage> {
        ready(self.tree().remove_file(path)).boxed()
    }

    fn rename<'a>(
        &'a self,
        from: &'a VirtualPath,
        to: &'a VirtualPath,
        rights: Rights,
    ) -> StorageResult<'a, Usage> {
        ready(self.tree().rename(from, to, rights)).boxed()
    }

    fn link<'a>(
        &'a self,
        existing: &'a VirtualPath,
        link: &'a VirtualPath,
        reserve: Reserve,
    ) -> StorageResult<'a, ()> {
        ready(self.tree().link(existing, link, reserve)).boxed()
    }

    fn set_modified<'a>(
        &'a self,
        path: &'a VirtualPath,
        time: SystemTime,
    ) -> StorageResult<'a, ()> {
        let changed = self.tree().change(
            path,
            |facts| facts.modified = time,
            |state| state.modified = time,
        );
        ready(changed).boxed()
    }

    fn set_mode<'a>(&'a self, path: &'a VirtualPath, mode: u32) -> StorageResult<'a, ()> {
        let mode = mode & 0o777;
        let changed = self.tree().change(
            path,
            |facts| facts.mode = mode | 0o700,
            |state| state.mode = mode | 0o400,
        );
        ready(changed).boxed()
    }

    fn measure(&self) -> StorageResult<'_, Usage> {
        ready(Ok(self.tree().measure())).boxed()
    }

    /// Nothing outlives the process that could be recovered; counts.
    fn recover(&self) -> StorageResult<'_, Usage> {
        self.measure()
    }

    fn free_bytes(&self) -> StorageResult<'_, Option<u64>> {
        ready(Ok(None)).boxed()
    }
}

/// What a writer starts with.
struct Start {
    object: Arc<Object>,
    offset: u64,
    first_writable: u64,
    in_place: bool,
    /// Whether an object written in place was marked before.
    was_incomplete: bool,
    rights: Rights,
}

impl Tree {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Checks that `path` is a directory, from the root down.
    fn directory(&self, path: &VirtualPath) -> Result<(), Refusal> {
        let mut at = VirtualPath::root();
        for component in path.components() {
            if is_reserved(component) {
                return Err(Refusal::NotFound);
            }
            at = at.resolve(component)?;
            match self.entries.get(&at) {
                Some(Node::Directory(_)) => {}
                Some(Node::File(_)) => return Err(Refusal::NotADirectory),
                None => return Err(Refusal::NotFound),
            }
        }
        Ok(())
    }

    /// Checks that the directory that holds `path` is there.
    fn parent(&self, path: &VirtualPath) -> Result<(), Refusal> {
        self.directory(&path.parent().unwrap_or_else(VirtualPath::root))
    }

    fn node(&self, path: &VirtualPath) -> Result<&Node, Refusal> {
        self.parent(path)?;
        self.entries.get(path).ok_or(Refusal::NotFound)
    }

    fn file(&self, path: &VirtualPath) -> Result<Arc<Object>, Refusal> {
        if path.is_root() {
            return Err(Refusal::IsADirectory);
        }
        match self.node(path)? {
            Node::File(object) => Ok(Arc::clone(object)),
            Node::Directory(_) => Err(Refusal::IsADirectory),
        }
    }

    /// The file at `path`, if one stands there; what else stands there is refused.
    fn standing_file(&self, path: &VirtualPath) -> Result<Option<Arc<Object>>, Refusal> {
        match self.file(path) {
            Ok(object) => Ok(Some(object)),
            Err(Refusal::NotFound) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    fn metadata(&self, path: &VirtualPath) -> Result<Entry, Refusal> {
        if path.is_root() {
            let root = Facts {
                number: 0,
                modified: SystemTime::UNIX_EPOCH,
                mode: DIRECTORY_MODE,
            };
            return Ok(root.entry(b"/"));
        }
        self.node(path).map(|node| node.entry(path))
    }

    /// There are no links to follow; what is missing keeps its name, but a file is
    /// nothing to look below of.
    fn resolve(&self, path: &VirtualPath) -> Result<VirtualPath, Refusal> {
        let mut at = path.clone();
        if path.components().any(is_reserved) {
            return Err(Refusal::NotFound);
        }
        while let Some(parent) = at.parent() {
            if let Some(Node::File(_)) = self.entries.get(&parent) {
                return Err(Refusal::NotADirectory);
            }
            at = parent;
        }
        Ok(path.clone())
    }

    fn children(&self, directory: &VirtualPath) -> impl Iterator<Item = (&VirtualPath, &Node)> {
        self.entries
            .iter()
            .filter(move |(path, _)| path.parent().as_ref() == Some(directory))
    }

    fn partial(&self, path: &VirtualPath) -> Result<Option<Arc<Object>>, Refusal> {
        if path.is_root() {
            return Err(Refusal::NotPermitted);
        }
        self.parent(path)?;
        if let Some(parked) = self.parked.get(path) {
            return Ok(Some(Arc::clone(parked)));
        }
        let object = self.file(path)?;
        let incomplete = object.state().incomplete;
        Ok(incomplete.then_some(object))
    }

    fn stage(
        &mut self,
        path: &VirtualPath,
        mode: WriteMode,
        rights: Rights,
        reserve: Reserve,
    ) -> Result<Start, Refusal> {
        new_name(path)?;
        self.parent(path)?;
        let standing = self.standing_file(path)?;
        let size = standing.as_ref().map_or(0, |object| object.length());
        let release = standing
            .as_ref()
            .map_or(Usage::ZERO, |object| object.usage());
        let parked = self.parked.get(path).map(|object| object.usage());
        let release_all = release + parked.unwrap_or_default();
        let offset = match (mode, &standing) {
            (WriteMode::Replace | WriteMode::ResumeAt(0), _)
            | (WriteMode::Append | WriteMode::Amend, None) => {
                rights.land(standing.is_some())?;
                let need = Need {
                    fresh: ONE_ENTRY,
                    release: release_all,
                    ..Need::default()
                };
                reserve(need)?;
                return Ok(self.start_staged(path, Vec::new(), (0, 0), rights));
            }
            (WriteMode::Append, Some(_)) => size,
            (WriteMode::Amend, Some(_)) => 0,
            (WriteMode::ResumeAt(offset), _) => offset,
        };
        let resumes = matches!(mode, WriteMode::ResumeAt(_));
        if let Some(adopted) = parked.filter(|parked| resumes && parked.bytes == offset) {
            rights.land(standing.is_some())?;
            let need = Need {
                adopted,
                release,
                ..Need::default()
            };
            reserve(need)?;
            return self.start_parked(path, rights);
        }
        let Some(object) = standing.filter(|_| offset <= size) else {
            return Err(Refusal::OffsetBeyondEnd { offset, size });
        };
        let incomplete = object.state().incomplete;
        let goes_on = mode != WriteMode::Amend && (incomplete || offset == size);
        let is_alone = self.names_of(&object) == 1;
        if is_alone && (goes_on || mode == WriteMode::Amend) {
            self.check_idle(&object)?;
        }
        let first_writable = if goes_on {
            rights.write_in_place(incomplete)?;
            offset
        } else if mode == WriteMode::Amend {
            rights.first_writable(incomplete, size)?
        } else {
            rights.land(true)?;
            offset
        };
        if is_alone && (goes_on || mode == WriteMode::Amend) {
            return self.start_in_place(&object, (offset, first_writable), rights, reserve);
        }
        let need = Need {
            fresh: object.usage(),
            release: release_all,
            ..Need::default()
        };
        reserve(need)?;
        let content = object.state().content.clone();
        // Whether the file may be changed was asked of the file itself.
        let rights = Rights {
            replace: true,
            ..rights
        };
        Ok(self.start_staged(path, content, (offset, first_writable), rights))
    }

    fn start_staged(
        &mut self,
        path: &VirtualPath,
        content: Vec<u8>,
        (offset, first_writable): (u64, u64),
        rights: Rights,
    ) -> Start {
        let number = self.next_number();
        let object = Arc::new(Object {
            number,
            state: Mutex::new(State {
                content,
                modified: SystemTime::now(),
                mode: FILE_MODE,
                incomplete: false,
            }),
        });
        self.staged
            .insert(number, (path.clone(), Arc::clone(&object)));
        Start {
            object,
            offset,
            first_writable,
            in_place: false,
            was_incomplete: false,
            rights,
        }
    }

    fn start_parked(&mut self, path: &VirtualPath, rights: Rights) -> Result<Start, Refusal> {
        let object = self.parked.remove(path).ok_or(Refusal::NotFound)?;
        self.staged
            .insert(object.number, (path.clone(), Arc::clone(&object)));
        Ok(Start {
            offset: object.length(),
            object,
            first_writable: 0,
            in_place: false,
            was_incomplete: false,
            rights,
        })
    }

    fn start_in_place(
        &mut self,
        object: &Arc<Object>,
        (offset, first_writable): (u64, u64),
        rights: Rights,
        reserve: Reserve,
    ) -> Result<Start, Refusal> {
        let was_incomplete = object.state().incomplete;
        reserve(Need::default())?;
        self.in_place.insert(object.number);
        // From the first write on it is not whole.
        object.state().incomplete = true;
        Ok(Start {
            object: Arc::clone(object),
            offset,
            first_writable,
            in_place: true,
            was_incomplete,
            rights,
        })
    }

    fn make_directory(&mut self, path: &VirtualPath) -> Result<(), Refusal> {
        new_name(path)?;
        self.parent(path)?;
        if self.entries.contains_key(path) {
            return Err(Refusal::AlreadyExists);
        }
        let facts = Facts {
            number: self.next_number(),
            modified: SystemTime::now(),
            mode: DIRECTORY_MODE,
        };
        self.entries.insert(path.clone(), Node::Directory(facts));
        Ok(())
    }

    fn remove_file(&mut self, path: &VirtualPath) -> Result<Usage, Refusal> {
        not_root(path)?;
        let object = self.file(path)?;
        self.check_idle(&object)?;
        self.entries.remove(path);
        Ok(object.usage() + self.drop_parked(path))
    }

    fn remove_directory(&mut self, path: &VirtualPath) -> Result<Usage, Refusal> {
        not_root(path)?;
        if let Node::File(_) = self.node(path)? {
            return Err(Refusal::NotADirectory);
        }
        if self.children(path).next().is_some() {
            return Err(Refusal::NotEmpty);
        }
        let inside = |other: &VirtualPath| other.parent().as_ref() == Some(path);
        if self.staged.values().any(|(target, _)| inside(target)) {
            return Err(Refusal::Busy);
        }
        let parked = self.parked.keys().filter(|other| inside(other));
        let parked: Vec<VirtualPath> = parked.cloned().collect();
        let mut removed = ONE_ENTRY;
        for path in parked {
            removed += self.drop_parked(&path);
        }
        self.entries.remove(path);
        Ok(removed)
    }

    fn link(
        &mut self,
        existing: &VirtualPath,
        link: &VirtualPath,
        reserve: Reserve,
    ) -> Result<(), Refusal> {
        not_root(existing)?;
        self.parent(existing)?;
        new_name(link)?;
        self.parent(link)?;
        let object = self.file(existing)?;
        self.check_idle(&object)?;
        if self.entries.contains_key(link) {
            return Err(Refusal::AlreadyExists);
        }
        reserve(Need {
            fresh: object.usage(),
            ..Need::default()
        })?;
        self.entries.insert(link.clone(), Node::File(object));
        Ok(())
    }

    fn rename(
        &mut self,
        from: &VirtualPath,
        to: &VirtualPath,
        rights: Rights,
    ) -> Result<Usage, Refusal> {
        not_root(from)?;
        self.parent(from)?;
        new_name(to)?;
        self.parent(to)?;
        let source = self.node(from)?.clone();
        let target = self.entries.get(to).cloned();
        for node in [Some(&source), target.as_ref()].into_iter().flatten() {
            if let Node::File(object) = node {
                self.check_idle(object)?;
            }
        }
        if from == to {
            return Ok(Usage::ZERO);
        }
        if to.starts_with(from) {
            return Err(Refusal::InvalidName(PathError::NotAName));
        }
        let replaced = match (&source, &target) {
            (_, None) => Usage::ZERO,
            (Node::File(_), Some(Node::File(replaced))) => replaced.usage(),
            (Node::File(_), Some(Node::Directory(_))) => return Err(Refusal::IsADirectory),
            (Node::Directory(_), Some(Node::Directory(_))) => return Err(Refusal::AlreadyExists),
            (Node::Directory(_), Some(Node::File(_))) => return Err(Refusal::NotADirectory),
        };
        rights.land(target.is_some())?;
        let released = replaced + self.drop_parked(from) + self.drop_parked(to);
        self.move_below(from, to)?;
        Ok(released)
    }

    /// Moves `from` and everything below it; what is staged or parked for a name stays
    /// with the name's directory.
    fn move_below(&mut self, from: &VirtualPath, to: &VirtualPath) -> Result<(), Refusal> {
        let moved = |path: VirtualPath| -> Result<VirtualPath, Refusal> {
            let rest = path.as_bytes().get(from.as_bytes().len()..);
            let below = rest.and_then(|rest| rest.strip_prefix(b"/"));
            Ok(to.resolve(below.unwrap_or_default())?)
        };
        for (path, node) in take_below(&mut self.entries, from) {
            self.entries.insert(moved(path)?, node);
        }
        for (path, object) in take_below(&mut self.parked, from) {
            self.parked.insert(moved(path)?, object);
        }
        for (target, _) in self.staged.values_mut() {
            if target != from && target.starts_with(from) {
                *target = moved(target.clone())?;
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        path: &VirtualPath,
        directory: impl FnOnce(&mut Facts),
        file: impl FnOnce(&mut State),
    ) -> Result<(), Refusal> {
        if path.is_root() {
            // The root's facts are not kept: nothing is told of them but that it is there.
            return Ok(());
        }
        self.parent(path)?;
        match self.entries.get_mut(path).ok_or(Refusal::NotFound)? {
            Node::Directory(facts) => directory(facts),
            Node::File(object) => file(&mut object.state()),
        }
        Ok(())
    }

    fn check_idle(&self, object: &Object) -> Result<(), Refusal> {
        if self.in_place.contains(&object.number) {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    fn drop_parked(&mut self, path: &VirtualPath) -> Usage {
        let parked = self.parked.remove(path);
        parked.map_or(Usage::ZERO, |object| object.usage())
    }

    fn measure(&self) -> Usage {
        let visible = self.entries.values().map(|node| match node {
            Node::Directory(_) => ONE_ENTRY,
            Node::File(object) => object.usage(),
        });
        let staged = self.staged.values().map(|(_, object)| object.usage());
        let parked = self.parked.values().map(|object| object.usage());
        visible
            .chain(staged)
            .chain(parked)
            .fold(Usage::ZERO, |sum, usage| sum + usage)
    }

    fn commit(
        &mut self,
        object: &Arc<Object>,
        rights: Rights,
        mode_is_set: bool,
        approve: Approve,
    ) -> Result<Landed, Refusal> {
        let staged = self.staged.get(&object.number);
        let target = staged.ok_or(Refusal::NotFound)?.0.clone();
        self.parent(&target)?;
        let old = self.standing_file(&target);
        if let Ok(Some(old)) = &old {
            self.check_idle(old)?;
        }
        rights.land(!matches!(old, Ok(None)))?;
        let old = old?;
        let parked = self.parked.get(&target).map(|parked| parked.usage());
        let replaced = old.as_ref().map_or(Usage::ZERO, |old| old.usage());
        let released = replaced + parked.unwrap_or_default();
        approve(released)?;
        if let Some(old) = old
            && !mode_is_set
        {
            let mode = old.state().mode;
            object.state().mode = mode;
        }
        object.state().incomplete = false;
        self.drop_parked(&target);
        self.staged.remove(&object.number);
        let entry = object.entry(&target);
        self.entries.insert(target, Node::File(Arc::clone(object)));
        Ok(Landed { entry, released })
    }

    fn commit_in_place(
        &mut self,
        object: &Arc<Object>,
        approve: Approve,
    ) -> Result<Landed, Refusal> {
        self.in_place.remove(&object.number);
        let path = self.path_of(object).ok_or(Refusal::NotFound)?;
        let parked = self.parked.get(&path).map(|parked| parked.usage());
        approve(parked.unwrap_or_default())?;
        object.state().incomplete = false;
        Ok(Landed {
            entry: object.entry(&path),
            released: self.drop_parked(&path),
        })
    }

    /// Where an object stands now: its directory may have been renamed since it was opened.
    fn path_of(&self, object: &Object) -> Option<VirtualPath> {
        self.paths_of(object).next().cloned()
    }

    fn names_of(&self, object: &Object) -> usize {
        self.paths_of(object).count()
    }

    fn paths_of(&self, object: &Object) -> impl Iterator<Item = &VirtualPath> {
        let is_it = |node: &Node| matches!(node, Node::File(at) if at.number == object.number);
        self.entries
            .iter()
            .filter(move |(_, node)| is_it(node))
            .map(|(path, _)| path)
    }

    /// Under the target's name when nothing stands there, else parked.
    fn cut(&mut self, object: &Arc<Object>, approve: Approve) -> Kept {
        let Some((target, _)) = self.staged.remove(&object.number) else {
            return Kept::default();
        };
        if object.length() == 0 {
            return Kept::default();
        }
        let visible = !self.entries.contains_key(&target);
        let replaced = self.parked.get(&target).filter(|_| !visible);
        let released = replaced.map_or(Usage::ZERO, |old| old.usage());
        if approve(released).is_err() {
            return Kept::default();
        }
        object.state().incomplete = true;
        if visible {
            self.entries.insert(target, Node::File(Arc::clone(object)));
        } else {
            self.parked.insert(target, Arc::clone(object));
        }
        Kept {
            held: object.usage(),
            released,
        }
    }
}

impl Node {
    fn entry(&self, path: &VirtualPath) -> Entry {
        match self {
            Self::Directory(facts) => facts.entry(path.file_name().unwrap_or_default()),
            Self::File(object) => object.entry(path),
        }
    }
}

impl Facts {
    fn entry(&self, name: &[u8]) -> Entry {
        Entry {
            name: name.to_vec(),
            kind: EntryKind::Directory,
            size: 0,
            modified: self.modified,
            mode: self.mode,
            owner: 0,
            group: 0,
            links: 1,
            unique: Some((0, self.number)),
            incomplete: false,
        }
    }
}

impl Object {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn length(&self) -> u64 {
        length_of(&self.state().content)
    }

    fn usage(&self) -> Usage {
        Usage {
            bytes: self.length(),
            files: 1,
        }
    }

    fn read_at(&self, offset: u64, length: usize) -> Bytes {
        let state = self.state();
        let rest = state.content.get(index(offset)..).unwrap_or_default();
        Bytes::copy_from_slice(rest.get(..length).unwrap_or(rest))
    }

    fn entry(&self, path: &VirtualPath) -> Entry {
        let state = self.state();
        Entry {
            name: path.file_name().unwrap_or_default().to_vec(),
            kind: EntryKind::File,
            size: length_of(&state.content),
            modified: state.modified,
            mode: state.mode,
            owner: 0,
            group: 0,
            links: 1,
            unique: Some((0, self.number)),
            incomplete: state.incomplete,
        }
    }

    fn digest(
        &self,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> Result<(Digest, ByteRange), Refusal> {
        let state = self.state();
        let size = length_of(&state.content);
        let wanted = range.unwrap_or(ByteRange {
            start: 0,
            end: size,
        });
        if wanted.start > size {
            return Err(Refusal::OffsetBeyondEnd {
                offset: wanted.start,
                size,
            });
        }
        let covered = ByteRange {
            start: wanted.start,
            end: wanted.end.min(size),
        };
        let content = state.content.get(index(covered.start)..index(covered.end));
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content.unwrap_or_default());
        Ok((hasher.finish(), covered))
    }
}

struct Snapshot(Vec<Entry>);

impl Batches for Snapshot {
    fn next(&mut self, most: usize) -> StorageResult<'_, Option<Vec<Entry>>> {
        let rest = self.0.split_off(self.0.len().min(most));
        let batch = std::mem::replace(&mut self.0, rest);
        ready(Ok((!batch.is_empty()).then_some(batch))).boxed()
    }
}

struct Opened {
    object: Arc<Object>,
    entry: Entry,
}

impl StoredFile for Opened {
    fn entry(&self) -> &Entry {
        &self.entry
    }

    fn current_entry(&self) -> StorageResult<'_, Entry> {
        let state = self.object.state();
        let entry = Entry {
            size: length_of(&state.content),
            modified: state.modified,
            mode: state.mode,
            ..self.entry.clone()
        };
        ready(Ok(entry)).boxed()
    }

    fn read_at(&self, offset: u64, length: usize) -> StorageResult<'_, Bytes> {
        ready(Ok(self.object.read_at(offset, length))).boxed()
    }

    fn digest(
        &self,
        algorithm: DigestAlgorithm,
        range: Option<ByteRange>,
    ) -> StorageResult<'_, (Digest, ByteRange)> {
        ready(self.object.digest(algorithm, range)).boxed()
    }

    fn as_file(&self) -> Option<&Arc<File>> {
        None
    }
}

struct Writer {
    tree: Arc<Mutex<Tree>>,
    object: Arc<Object>,
    rights: Rights,
    start: u64,
    first_writable: u64,
    /// How much of it is counted elsewhere.
    base: u64,
    in_place: bool,
    was_incomplete: bool,
    solid: Solid,
    mode_is_set: bool,
}

impl Writer {
    fn write(&mut self, offset: u64, content: &[Bytes]) -> Result<(), Refusal> {
        self.solid.touch();
        let added: usize = content.iter().map(Bytes::len).sum();
        if added == 0 {
            return Ok(());
        }
        let end = end_of(offset, u64::try_from(added).unwrap_or(u64::MAX))?;
        let mut state = self.object.state();
        grow(&mut state.content, end)?;
        let mut at = index(offset);
        for piece in content {
            if let Some(place) = state.content.get_mut(at..at + piece.len()) {
                place.copy_from_slice(piece);
            }
            at += piece.len();
        }
        state.modified = SystemTime::now();
        drop(state);
        self.solid.wrote(offset, end);
        Ok(())
    }

    fn resize(&mut self, length: u64) -> Result<u64, Refusal> {
        self.solid.touch();
        let mut state = self.object.state();
        grow(&mut state.content, length)?;
        state.content.truncate(index(length));
        state.modified = SystemTime::now();
        drop(state);
        self.solid.shortened(length);
        let gone = self.base.saturating_sub(length);
        self.base -= gone;
        Ok(gone)
    }

    /// Takes away what lies behind the first hole.
    fn cut_at_hole(&self) {
        let end = index(self.solid.end());
        self.object.state().content.truncate(end);
    }
}

/// Fills up with zeros, where there is memory for it.
fn grow(content: &mut Vec<u8>, length: u64) -> Result<(), Refusal> {
    let missing = index(length).saturating_sub(content.len());
    content
        .try_reserve(missing)
        .map_err(|_| Refusal::StorageFull)?;
    content.resize(content.len() + missing, 0);
    Ok(())
}

impl StagedFile for Writer {
    fn start(&self) -> u64 {
        self.start
    }

    fn first_writable(&self) -> u64 {
        self.first_writable
    }

    fn length(&self) -> u64 {
        self.object.length()
    }

    fn write_at(&mut self, offset: u64, content: Vec<Bytes>) -> StorageResult<'_, ()> {
        ready(self.write(offset, &content)).boxed()
    }

    fn read_at(&self, offset: u64, length: usize) -> StorageResult<'_, Bytes> {
        ready(Ok(self.object.read_at(offset, length))).boxed()
    }

    fn set_length(&mut self, length: u64) -> StorageResult<'_, u64> {
        ready(self.resize(length)).boxed()
    }

    fn entry(&self) -> StorageResult<'_, Entry> {
        let tree = lock(&self.tree);
        let staged = tree.staged.get(&self.object.number);
        let path = staged.map(|(path, _)| path.clone());
        let path = path.or_else(|| tree.path_of(&self.object));
        let entry = path.map(|path| self.object.entry(&path));
        ready(entry.ok_or(Refusal::NotFound)).boxed()
    }

    fn set_modified(&mut self, time: SystemTime) -> StorageResult<'_, ()> {
        self.object.state().modified = time;
        ready(Ok(())).boxed()
    }

    fn set_mode(&mut self, mode: u32, of: ModeOf) -> StorageResult<'_, ()> {
        if of == ModeOf::ThisFile || !self.in_place {
            self.object.state().mode = mode & 0o777 | 0o400;
        }
        self.mode_is_set |= of == ModeOf::ThisFile;
        ready(Ok(())).boxed()
    }

    fn synchronize(&self) -> StorageResult<'_, ()> {
        ready(Ok(())).boxed()
    }

    fn commit(
        mut self: Box<Self>,
        last: LastPiece,
        approve: Approve,
    ) -> BoxFuture<'static, Result<Landed, NotLanded>> {
        if let Err(refusal) = self.write(last.offset, &[last.content]) {
            let kept = self.cut(approve);
            return async {
                Err(NotLanded {
                    refusal,
                    kept: kept.await.unwrap_or_default(),
                })
            }
            .boxed();
        }
        let mut tree = lock(&self.tree);
        let landed = if self.in_place {
            tree.commit_in_place(&self.object, approve)
        } else {
            tree.commit(&self.object, self.rights, self.mode_is_set, approve)
        };
        if landed.is_err() {
            tree.staged.remove(&self.object.number);
        }
        let kept = self.kept_in_place();
        ready(landed.map_err(|refusal| NotLanded { refusal, kept })).boxed()
    }

    fn cut(self: Box<Self>, approve: Approve) -> StorageResult<'static, Kept> {
        let mut tree = lock(&self.tree);
        self.cut_at_hole();
        let kept = if self.in_place {
            tree.in_place.remove(&self.object.number);
            if !self.solid.touched() {
                self.object.state().incomplete = self.was_incomplete;
            }
            self.kept_in_place()
        } else {
            tree.cut(&self.object, approve)
        };
        ready(Ok(kept)).boxed()
    }

    fn discard(self: Box<Self>) -> StorageResult<'static, Kept> {
        let mut tree = lock(&self.tree);
        tree.staged.remove(&self.object.number);
        if self.in_place {
            tree.in_place.remove(&self.object.number);
            let mut state = self.object.state();
            state.content.truncate(index(self.base));
            state.incomplete = self.was_incomplete;
        }
        ready(Ok(self.kept_in_place())).boxed()
    }

    fn remember(&mut self, _digest: Digest) {
        // Computing it again costs no more than a look-up would.
    }
}

impl Writer {
    /// By how much an object that is written in place is longer than it was.
    fn kept_in_place(&self) -> Kept {
        let grown = self.object.length().saturating_sub(self.base);
        Kept {
            held: Usage {
                bytes: if self.in_place { grown } else { 0 },
                files: 0,
            },
            released: Usage::ZERO,
        }
    }
}

/// Takes out what stands under `top` and below it.
fn take_below<T>(map: &mut BTreeMap<VirtualPath, T>, top: &VirtualPath) -> Vec<(VirtualPath, T)> {
    map.extract_if(.., |path, _| path.starts_with(top))
        .collect()
}

fn not_root(path: &VirtualPath) -> Result<(), Refusal> {
    if path.is_root() {
        return Err(Refusal::NotPermitted);
    }
    Ok(())
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn length_of(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in one test's task must not hide the failure behind a second one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a directory counts, and a file before its first byte.
const ONE_ENTRY: Usage = Usage { bytes: 0, files: 1 };
