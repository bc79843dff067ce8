//! Whole trees, listed on either side.
//!
//! Links are reported and not followed, so a walk ends; a server that makes up
//! directories without end is cut off by depth and by number.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use wharf_model::{EntryKind, FileName, VirtualPath};

use crate::error::ClientError;
use crate::filter::Filter;
use crate::local::{LocalTree, is_partial_name};
use crate::plan::Facts;
use crate::pool::Pool;
use crate::progress::{Event, LeftOut, Observer};
use crate::remote::RemoteEntry;
use crate::transfer::facts_of_remote;

/// One entry of a walked tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Path relative to the root of the walk, written from `/`.
    pub path: VirtualPath,
    /// What it is.
    pub kind: EntryKind,
    /// Size and time.
    pub facts: Facts,
    /// The server's own words; `None` on the local side.
    pub remote: Option<RemoteEntry>,
}

/// Lists everything below `root` on the server, directories before what is in
/// them. A root that is missing is [`ClientError::NotFound`].
///
/// # Errors
/// The first listing that fails for good: half a tree must not pass for the whole.
pub async fn walk_remote(
    pool: &Pool,
    root: &VirtualPath,
    filter: &Filter,
    options: WalkOptions,
    observer: &dyn Observer,
) -> Result<Vec<TreeEntry>, ClientError> {
    let mut found = Vec::new();
    let mut path_bytes = 0;
    let mut level = vec![VirtualPath::root()];
    for depth in 0.. {
        if level.is_empty() {
            break;
        }
        if depth > MAX_DEPTH {
            for path in &level {
                left_out(observer, path, LeftOut::TooDeep);
            }
            break;
        }
        let listings = stream::iter(std::mem::take(&mut level))
            .map(|directory| async move {
                let absolute = below(root, &directory)?;
                let entries = pool
                    .repeat(options.retries, |session| {
                        let absolute = absolute.clone();
                        Box::pin(async move { session.list(&absolute).await })
                    })
                    .await?;
                Ok::<_, ClientError>((directory, entries))
            })
            .buffered(options.parallel.max(1));
        tokio::pin!(listings);
        while let Some(listing) = listings.next().await {
            let (directory, entries) = listing?;
            for entry in entries {
                let Some(entry) = tree_entry(&directory, entry, filter, observer) else {
                    continue;
                };
                if entry.kind == EntryKind::Directory {
                    level.push(entry.path.clone());
                }
                path_bytes += entry.path.as_bytes().len();
                found.push(entry);
                if found.len() > MAX_ENTRIES || path_bytes > MAX_PATH_BYTES {
                    return Err(ClientError::Protocol(
                        "the server's tree does not end".to_owned(),
                    ));
                }
            }
        }
    }
    Ok(found)
}

/// How a server's tree is walked.
#[derive(Debug, Clone, Copy)]
pub struct WalkOptions {
    /// Listings at one time.
    pub parallel: usize,
    /// How often a listing is tried again.
    pub retries: u32,
}

/// Lists everything below `root` of a local folder, directories before what is
/// in them. Partial downloads are left out: they are not anyone's content yet.
///
/// # Errors
/// The first folder that cannot be read.
pub fn walk_local(
    tree: &LocalTree,
    root: &VirtualPath,
    filter: &Filter,
    observer: &dyn Observer,
) -> Result<Vec<TreeEntry>, ClientError> {
    let mut found = Vec::new();
    let mut waiting = vec![VirtualPath::root()];
    while let Some(directory) = waiting.pop() {
        let mut entries = tree.list(&below(root, &directory)?)?;
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        for entry in entries {
            let Some(path) = child(&directory, &entry.name, observer) else {
                continue;
            };
            if is_partial_name(&entry.name) {
                left_out(observer, &path, LeftOut::Partial);
                continue;
            }
            if !takes_part(&path, entry.kind, filter, observer) {
                continue;
            }
            if entry.kind == EntryKind::Directory {
                waiting.push(path.clone());
            }
            found.push(TreeEntry {
                path,
                kind: entry.kind,
                facts: Facts {
                    size: Some(entry.size),
                    modified: entry.modified,
                    precision: Duration::from_secs(1),
                    incomplete: false,
                },
                remote: None,
            });
        }
    }
    Ok(found)
}

/// `relative` of a walk, below the walk's root.
///
/// # Errors
/// [`ClientError::BadName`] when the whole is too long.
pub fn below(root: &VirtualPath, relative: &VirtualPath) -> Result<VirtualPath, ClientError> {
    root.resolve(relative.as_relative_bytes())
        .map_err(|source| ClientError::BadName {
            name: relative.to_string(),
            source,
        })
}

fn tree_entry(
    directory: &VirtualPath,
    entry: RemoteEntry,
    filter: &Filter,
    observer: &dyn Observer,
) -> Option<TreeEntry> {
    let path = child(directory, &entry.name, observer)?;
    takes_part(&path, entry.kind, filter, observer).then(|| TreeEntry {
        path,
        kind: entry.kind,
        facts: facts_of_remote(&entry),
        remote: Some(entry),
    })
}

/// The path of a name, unless the name is no single component.
fn child(directory: &VirtualPath, name: &[u8], observer: &dyn Observer) -> Option<VirtualPath> {
    let path = FileName::parse(name).and_then(|name| directory.join(&name));
    if path.is_err() {
        observer.observe(Event::LeftOut {
            name,
            reason: LeftOut::UnsafeName,
        });
    }
    path.ok()
}

fn takes_part(
    path: &VirtualPath,
    kind: EntryKind,
    filter: &Filter,
    observer: &dyn Observer,
) -> bool {
    match kind {
        EntryKind::Directory => filter.enters(path),
        EntryKind::File => filter.takes(path),
        EntryKind::Symlink | EntryKind::Other if !filter.takes(path) => false,
        EntryKind::Symlink => {
            left_out(observer, path, LeftOut::Symlink);
            true
        }
        EntryKind::Other => {
            left_out(observer, path, LeftOut::NotAFile);
            true
        }
    }
}

fn left_out(observer: &dyn Observer, path: &VirtualPath, reason: LeftOut) {
    observer.observe(Event::LeftOut {
        name: path.as_relative_bytes(),
        reason,
    });
}

/// Deeper trees are loops or traps.
const MAX_DEPTH: usize = 200;

/// Most entries of one walk: at some 250 bytes of memory each beside its path, 500 MB.
const MAX_ENTRIES: usize = 2_000_000;

/// Most bytes of all paths of one walk. A short line of a listing becomes the
/// path of the whole way to it, so that their number alone bounds little.
const MAX_PATH_BYTES: usize = 256 * 1024 * 1024;
