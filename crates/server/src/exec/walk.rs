//! A walk over a tree through [`Vfs`]: depth first, without recursion, links not followed.
//!
//! One directory is open at a time. What is kept are the names of directories that are
//! still to be entered, on the way down, and they are bounded.

use wharf_model::{Entry, EntryKind, Refusal, VirtualPath};
use wharf_vfs::{Listing, Vfs};

/// Most bytes of names of directories that one walk keeps.
pub(super) const MAX_PENDING_BYTES: usize = 16 * 1024 * 1024;

/// What a walk meets.
#[derive(Debug)]
pub(super) enum Step {
    /// An entry below the start. Directories are entered later, once everything beside
    /// them was met.
    Found {
        path: VirtualPath,
        /// How many levels below the start; 1 for what stands directly in it.
        depth: usize,
        entry: Entry,
    },
    /// Everything in the directory was met. The start comes last, with depth 0.
    Left { path: VirtualPath, depth: usize },
    /// Something in a directory could not be met.
    Refused { path: VirtualPath, refusal: Refusal },
}

/// A walk over everything below a directory.
pub(super) struct Walk<'a> {
    vfs: &'a Vfs,
    /// Deeper directories are not entered.
    max_depth: usize,
    levels: Vec<Level>,
    pending_bytes: usize,
    listing: Option<Listing>,
    batch: std::vec::IntoIter<Entry>,
    start: Option<VirtualPath>,
}

struct Level {
    path: VirtualPath,
    /// Names of directories to enter, last first.
    pending: Vec<Vec<u8>>,
}

impl<'a> Walk<'a> {
    /// A walk over what is below the directory `start`, at most `max_depth` levels of it.
    pub(super) fn new(vfs: &'a Vfs, start: VirtualPath, max_depth: usize) -> Self {
        Self {
            vfs,
            max_depth,
            levels: Vec::new(),
            pending_bytes: 0,
            listing: None,
            batch: Vec::new().into_iter(),
            start: Some(start),
        }
    }

    /// The next step; `None` at the end. Dropping the future may lose a step.
    pub(super) async fn next(&mut self) -> Option<Step> {
        if let Some(start) = self.start.take()
            && self.max_depth > 0
            && let Some(refused) = self.enter(start).await
        {
            return Some(refused);
        }
        loop {
            if let Some(entry) = self.batch.next() {
                return Some(self.found(entry));
            }
            if let Some(listing) = &mut self.listing {
                match listing.next_batch().await {
                    Ok(Some(batch)) => self.batch = batch.into_iter(),
                    Ok(None) => self.end_of_listing(),
                    Err(refusal) => {
                        self.end_of_listing();
                        let path = self.levels.last()?.path.clone();
                        return Some(Step::Refused { path, refusal });
                    }
                }
                continue;
            }
            let level = self.levels.last_mut()?;
            let Some(name) = level.pending.pop() else {
                let path = level.path.clone();
                self.levels.pop();
                let depth = self.levels.len();
                return Some(Step::Left { path, depth });
            };
            self.pending_bytes = self.pending_bytes.saturating_sub(name.len());
            match level.path.resolve(&name) {
                Ok(path) => {
                    if let Some(refused) = self.enter(path).await {
                        return Some(refused);
                    }
                }
                Err(error) => {
                    let path = level.path.clone();
                    let refusal = Refusal::InvalidName(error);
                    return Some(Step::Refused { path, refusal });
                }
            }
        }
    }

    /// Does not enter the directory that was just found.
    pub(super) fn prune(&mut self) {
        if let Some(level) = self.levels.last_mut()
            && let Some(name) = level.pending.pop()
        {
            self.pending_bytes = self.pending_bytes.saturating_sub(name.len());
        }
    }

    fn found(&mut self, entry: Entry) -> Step {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else {
            return Step::Refused {
                path: VirtualPath::root(),
                refusal: Refusal::NotFound,
            };
        };
        let path = match level.path.resolve(&entry.name) {
            Ok(path) => path,
            Err(error) => {
                return Step::Refused {
                    path: level.path.clone(),
                    refusal: Refusal::InvalidName(error),
                };
            }
        };
        if entry.kind == EntryKind::Directory && depth < self.max_depth {
            if self.pending_bytes + entry.name.len() > MAX_PENDING_BYTES {
                let refusal = Refusal::Io(std::io::Error::other(TooManyDirectories));
                return Step::Refused { path, refusal };
            }
            self.pending_bytes += entry.name.len();
            level.pending.push(entry.name.clone());
        }
        Step::Found { path, depth, entry }
    }

    async fn enter(&mut self, path: VirtualPath) -> Option<Step> {
        match self.vfs.list_links(&path).await {
            Ok(listing) => {
                self.listing = Some(listing);
                self.levels.push(Level {
                    path,
                    pending: Vec::new(),
                });
                None
            }
            Err(refusal) => Some(Step::Refused { path, refusal }),
        }
    }

    /// Brings the directories into the order in which they were found.
    fn end_of_listing(&mut self) {
        self.listing = None;
        if let Some(level) = self.levels.last_mut() {
            level.pending.reverse();
        }
    }
}

/// A tree is too wide to be walked at one time.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_PENDING_BYTES} bytes of names of directories would have to be kept")]
struct TooManyDirectories;
