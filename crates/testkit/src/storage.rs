//! A storage in memory whose listings, counts and waits a test arranges.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;
use wharf_model::{Digest, DigestAlgorithm, Entry, EntryKind, Usage, VirtualPath};
use wharf_vfs::storage::memory::MemoryStorage;
use wharf_vfs::storage::{
    Batches, Links, Reserve, Rights, StagedFile, Storage, StorageResult, StoredFile, WriteMode,
};

/// The path that is slow in a storage that is.
pub const SLOW: &[u8] = b"/slow";

/// What [`MemoryStorage`] is, but for what was arranged.
#[derive(Default)]
pub struct ArrangedStorage {
    memory: MemoryStorage,
    entries: Option<u64>,
    counts: Option<Counts>,
    slow: Option<Gate>,
}

/// When what a test waits for begins and ends. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    begun: Arc<Semaphore>,
    ended: Arc<Semaphore>,
}

impl Gate {
    /// Nothing has begun, and nothing may end.
    pub fn closed() -> Self {
        Self {
            begun: Arc::new(Semaphore::new(0)),
            ended: Arc::new(Semaphore::new(0)),
        }
    }

    /// Waits until one more has begun.
    pub async fn begun(&self) {
        self.begun.acquire().await.expect("open").forget();
    }

    /// Lets one more end.
    pub fn end(&self) {
        self.ended.add_permits(1);
    }

    /// Begins, and waits until it may end.
    async fn pass(&self) {
        self.begun.add_permits(1);
        self.ended.acquire().await.expect("open").forget();
    }
}

/// When counts begin and end. Cheap to clone.
#[derive(Clone)]
pub struct Counts {
    gate: Gate,
    usage: Usage,
}

impl Counts {
    /// Each finds this, once it may end.
    pub fn of(usage: Usage) -> Self {
        Self {
            gate: Gate::closed(),
            usage,
        }
    }

    /// Waits until one more has begun.
    pub async fn begun(&self) {
        self.gate.begun().await;
    }

    /// Lets one more end.
    pub fn end(&self) {
        self.gate.end();
    }
}

impl ArrangedStorage {
    /// Each directory lists so many files, of which none is kept anywhere.
    pub fn listing(entries: u64) -> Self {
        Self {
            entries: Some(entries),
            ..Self::default()
        }
    }

    /// The facts of [`SLOW`] are found once `gate` lets them.
    pub fn slow(gate: Gate) -> Self {
        Self {
            slow: Some(gate),
            ..Self::default()
        }
    }

    /// It is counted as the test has it.
    pub fn counted(counts: Counts) -> Self {
        Self {
            counts: Some(counts),
            ..Self::default()
        }
    }
}

/// Files that are made as they are listed.
struct Generated {
    next: u64,
    end: u64,
}

impl Batches for Generated {
    fn next(&mut self, most: usize) -> StorageResult<'_, Option<Vec<Entry>>> {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let end = self.end.min(self.next.saturating_add(most));
        let batch: Vec<Entry> = (self.next..end).map(generated).collect();
        self.next = end;
        Box::pin(async move { Ok((!batch.is_empty()).then_some(batch)) })
    }
}

fn generated(number: u64) -> Entry {
    Entry {
        name: format!("file-{number:0>40}").into_bytes(),
        kind: EntryKind::File,
        size: number,
        modified: SystemTime::UNIX_EPOCH,
        mode: 0o644,
        owner: 1000,
        group: 1000,
        links: 1,
        unique: None,
        incomplete: false,
    }
}

impl Storage for ArrangedStorage {
    fn list<'a>(
        &'a self,
        path: &'a VirtualPath,
        links: Links,
    ) -> StorageResult<'a, Box<dyn Batches>> {
        match self.entries {
            Some(end) => Box::pin(async move {
                let batches: Box<dyn Batches> = Box::new(Generated { next: 0, end });
                Ok(batches)
            }),
            None => self.memory.list(path, links),
        }
    }

    fn measure(&self) -> StorageResult<'_, Usage> {
        let Some(counts) = self.counts.clone() else {
            return self.memory.measure();
        };
        Box::pin(async move {
            counts.gate.pass().await;
            Ok(counts.usage)
        })
    }

    fn metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry> {
        match &self.slow {
            Some(gate) if path.as_bytes() == SLOW => Box::pin(async move {
                gate.pass().await;
                self.memory.metadata(path).await
            }),
            _ => self.memory.metadata(path),
        }
    }

    fn link_metadata<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Entry> {
        self.memory.link_metadata(path)
    }

    fn resolve<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, VirtualPath> {
        self.memory.resolve(path)
    }

    fn open<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Box<dyn StoredFile>> {
        self.memory.open(path)
    }

    fn stage<'a>(
        &'a self,
        path: &'a VirtualPath,
        mode: WriteMode,
        rights: Rights,
        reserve: Reserve,
    ) -> StorageResult<'a, Box<dyn StagedFile>> {
        self.memory.stage(path, mode, rights, reserve)
    }

    fn partial<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Option<u64>> {
        self.memory.partial(path)
    }

    fn partial_digest<'a>(
        &'a self,
        path: &'a VirtualPath,
        algorithm: DigestAlgorithm,
    ) -> StorageResult<'a, Digest> {
        self.memory.partial_digest(path, algorithm)
    }

    fn make_directory<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, ()> {
        self.memory.make_directory(path)
    }

    fn remove_directory<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Usage> {
        self.memory.remove_directory(path)
    }

    fn remove_file<'a>(&'a self, path: &'a VirtualPath) -> StorageResult<'a, Usage> {
        self.memory.remove_file(path)
    }

    fn rename<'a>(
        &'a self,
        from: &'a VirtualPath,
        to: &'a VirtualPath,
        rights: Rights,
    ) -> StorageResult<'a, Usage> {
        self.memory.rename(from, to, rights)
    }

    fn link<'a>(
        &'a self,
        existing: &'a VirtualPath,
        link: &'a VirtualPath,
        reserve: Reserve,
    ) -> StorageResult<'a, ()> {
        self.memory.link(existing, link, reserve)
    }

    fn set_modified<'a>(
        &'a self,
        path: &'a VirtualPath,
        time: SystemTime,
    ) -> StorageResult<'a, ()> {
        self.memory.set_modified(path, time)
    }

    fn set_mode<'a>(&'a self, path: &'a VirtualPath, mode: u32) -> StorageResult<'a, ()> {
        self.memory.set_mode(path, mode)
    }

    fn recover(&self) -> StorageResult<'_, Usage> {
        self.memory.recover()
    }

    fn free_bytes(&self) -> StorageResult<'_, Option<u64>> {
        self.memory.free_bytes()
    }
}
