//! Makes one tree like another, in either direction.
//!
//! Both sides are walked, a pure plan compares them by name and kind, and each
//! file that stands on both is left to its own transfer to compare. Nothing is
//! removed unless the whole source was seen and every transfer went well.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;
use wharf_model::{EntryKind, VirtualPath};

use crate::batch::{Summary, Work, run_batch};
use crate::error::ClientError;
use crate::filter::Filter;
use crate::local::{LocalTree, is_partial_name};
use crate::plan::{Action, plan};
use crate::pool::Pool;
use crate::progress::{Direction, DryStep, Event, LeftOut, Side};
use crate::remote::Remote;
use crate::transfer::{Download, Listed, Transfers, Upload};
use crate::walk::{TreeEntry, WalkOptions, below, walk_local, walk_remote};

/// The two trees.
#[derive(Debug, Clone)]
pub struct MirrorEnds {
    /// Which of them is the source.
    pub direction: Direction,
    /// Directory on the server.
    pub remote: VirtualPath,
    /// Local folder.
    pub tree: LocalTree,
    /// Where in the folder.
    pub local: VirtualPath,
}

/// How they are made alike.
#[derive(Debug, Clone, Default)]
pub struct MirrorOptions {
    /// Files at one time.
    pub parallel: usize,
    /// Remove from the target what the source does not have.
    pub delete: bool,
    /// Tell what would be done, and do nothing.
    pub dry_run: bool,
    /// Which entries take part; the others are neither moved nor removed.
    pub filter: Filter,
}

/// Makes the target like the source.
///
/// # Errors
/// [`ClientError`] when a tree cannot be read; what goes wrong with a single
/// file is in the summary, and told to the observer.
pub async fn mirror(
    transfers: &Transfers,
    ends: &MirrorEnds,
    options: &MirrorOptions,
) -> Result<Summary, ClientError> {
    let started = Instant::now();
    let (source, target) = walk_both(transfers, ends, options).await?;
    let steps = plan_mirror(&source, &target, options.delete);
    for path in &steps.conflicts {
        transfers.observer().observe(Event::LeftOut {
            name: path.as_relative_bytes(),
            reason: LeftOut::KindDiffers,
        });
    }
    if options.dry_run {
        tell_steps(transfers, ends, &steps);
        return Ok(Summary::default());
    }
    let mut summary = Summary {
        failed: steps.conflicts.len() as u64,
        ..Summary::default()
    };
    make_target_root(transfers, ends).await?;
    remove_all(transfers, ends, &steps.remove_first, &mut summary).await;
    make_all(transfers, ends, &steps.make, &mut summary).await;
    let work = work_of(ends, &steps)?;
    summary.add(&run_batch(transfers, work, options.parallel).await);
    if summary.is_complete() {
        remove_all(transfers, ends, &steps.remove_last, &mut summary).await;
    }
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// Makes a directory on the server and those above it; one that exists is fine.
/// Gives the number of those that were made.
///
/// # Errors
/// [`ClientError::NotADirectory`] when something else stands there, and what MKD is refused with.
pub async fn make_directories(pool: &Pool, path: &VirtualPath) -> Result<u64, ClientError> {
    let mut missing = Vec::new();
    let mut at = Some(path.clone());
    let mut session = pool.lease().await?;
    while let Some(directory) = at {
        match session.stat(&directory).await {
            Ok(entry) if matches!(entry.kind, EntryKind::File | EntryKind::Other) => {
                return Err(ClientError::NotADirectory);
            }
            Ok(_) => break,
            Err(ClientError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        at = directory.parent();
        missing.push(directory);
    }
    let mut made = 0;
    for directory in missing.iter().rev() {
        made += u64::from(make_or_find(&mut *session, directory).await?);
    }
    Ok(made)
}

/// Makes a directory unless it stands already: someone else may be faster.
/// Whether it was made.
async fn make_or_find(session: &mut dyn Remote, path: &VirtualPath) -> Result<bool, ClientError> {
    match session.make_directory(path).await {
        Ok(()) => Ok(true),
        Err(ClientError::AlreadyExists(_)) => Ok(false),
        // vsftpd does not say that it exists, only that it could not be made.
        Err(refused @ ClientError::Refused(_)) => match session.stat(path).await {
            Ok(entry) if matches!(entry.kind, EntryKind::Directory | EntryKind::Symlink) => {
                Ok(false)
            }
            Err(error) if error.ends_session() => Err(error),
            _ => Err(refused),
        },
        Err(error) => Err(error),
    }
}

/// What a mirror will do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Steps<'t> {
    /// In the way of what comes from the source; contents before their directory.
    remove_first: Vec<&'t TreeEntry>,
    /// Directories that the target lacks, those above first.
    make: Vec<&'t VirtualPath>,
    /// Files of the source, with what stands under their name.
    transfer: Vec<(&'t TreeEntry, Option<&'t TreeEntry>)>,
    /// What the source does not have; contents before their directory.
    remove_last: Vec<&'t TreeEntry>,
    /// A file here and a directory there, and nothing may be removed.
    conflicts: Vec<&'t VirtualPath>,
}

fn plan_mirror<'t>(source: &'t [TreeEntry], target: &'t [TreeEntry], delete: bool) -> Steps<'t> {
    let standing: HashMap<&VirtualPath, &TreeEntry> =
        target.iter().map(|entry| (&entry.path, entry)).collect();
    let mut steps = Steps::default();
    let mut replaced = HashSet::new();
    let mut conflicting = HashSet::new();
    for entry in source {
        if is_at_or_below(&entry.path, &conflicting) {
            continue;
        }
        let there = standing.get(&entry.path).copied();
        let fits = |there: &TreeEntry| {
            (there.kind == EntryKind::Directory) == (entry.kind == EntryKind::Directory)
        };
        match (entry.kind, there) {
            (EntryKind::Symlink | EntryKind::Other, _) => {}
            (_, Some(there)) if !fits(there) => {
                if !delete {
                    steps.conflicts.push(&entry.path);
                    conflicting.insert(&entry.path);
                    continue;
                }
                replaced.insert(&there.path);
                if entry.kind == EntryKind::Directory {
                    steps.make.push(&entry.path);
                } else {
                    steps.transfer.push((entry, None));
                }
            }
            (EntryKind::Directory, None) => steps.make.push(&entry.path),
            (EntryKind::Directory, Some(_)) => {}
            (EntryKind::File, there) => steps.transfer.push((entry, there)),
        }
    }
    if delete {
        let wanted: HashSet<&VirtualPath> = source.iter().map(|entry| &entry.path).collect();
        for entry in target.iter().rev() {
            if is_at_or_below(&entry.path, &replaced) {
                steps.remove_first.push(entry);
            } else if !wanted.contains(&entry.path) {
                steps.remove_last.push(entry);
            }
        }
        contents_first(&mut steps.remove_first);
        contents_first(&mut steps.remove_last);
    }
    steps
}

/// Longer paths first: a directory's path is shorter than those of its contents.
fn contents_first(entries: &mut [&TreeEntry]) {
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.path.components().count()));
}

/// Costs as many look-ups as the path has components, however large the set is.
fn is_at_or_below(path: &VirtualPath, set: &HashSet<&VirtualPath>) -> bool {
    if set.is_empty() {
        return false;
    }
    let mut at = Some(path.clone());
    while let Some(ancestor) = at {
        if set.contains(&ancestor) {
            return true;
        }
        at = ancestor.parent();
    }
    false
}

async fn walk_both(
    transfers: &Transfers,
    ends: &MirrorEnds,
    options: &MirrorOptions,
) -> Result<(Vec<TreeEntry>, Vec<TreeEntry>), ClientError> {
    let walk = WalkOptions {
        parallel: options.parallel,
        retries: transfers.options().retries,
    };
    // What is left out is told once, for the source.
    let (remote_observer, local_observer): (&dyn crate::Observer, &dyn crate::Observer) =
        match ends.direction {
            Direction::Download => (transfers.observer(), &crate::Unobserved),
            Direction::Upload => (&crate::Unobserved, transfers.observer()),
        };
    let remote = walk_remote(
        transfers.pool(),
        &ends.remote,
        &options.filter,
        walk,
        remote_observer,
    )
    .await
    .map(|entries| without_partial_names(entries, remote_observer));
    match ends.direction {
        Direction::Download => {
            let target = match ends.tree.stat(&ends.local)? {
                None => Vec::new(),
                Some(_) => walk_local(&ends.tree, &ends.local, &options.filter, local_observer)?,
            };
            Ok((remote?, target))
        }
        Direction::Upload => {
            let target = match remote {
                // It will be made.
                Err(ClientError::NotFound(_)) => Vec::new(),
                other => other?,
            };
            let source = walk_local(&ends.tree, &ends.local, &options.filter, local_observer)?;
            Ok((source, target))
        }
    }
}

/// Leaves out what is called like a partial download, and what is in it: in
/// the folder it would pass for the begin of another file.
fn without_partial_names(
    mut entries: Vec<TreeEntry>,
    observer: &dyn crate::Observer,
) -> Vec<TreeEntry> {
    entries.retain(|entry| {
        if entry.path.file_name().is_some_and(is_partial_name) {
            observer.observe(Event::LeftOut {
                name: entry.path.as_relative_bytes(),
                reason: LeftOut::UnsafeName,
            });
        }
        !entry.path.components().any(is_partial_name)
    });
    entries
}

async fn make_target_root(transfers: &Transfers, ends: &MirrorEnds) -> Result<(), ClientError> {
    match ends.direction {
        Direction::Download => ends.tree.create_directory(&ends.local),
        Direction::Upload => make_directories(transfers.pool(), &ends.remote)
            .await
            .map(drop),
    }
}

async fn make_all(
    transfers: &Transfers,
    ends: &MirrorEnds,
    directories: &[&VirtualPath],
    summary: &mut Summary,
) {
    for path in directories {
        if transfers.cancel().is_cancelled() {
            return;
        }
        match make_one(transfers, ends, path).await {
            Ok(()) => {
                summary.directories_made += 1;
                transfers.observer().observe(Event::DirectoryMade {
                    side: target_side(ends.direction),
                    name: path.as_relative_bytes(),
                });
            }
            Err(error) => tell_failure(transfers, ends, path, &error, summary),
        }
    }
}

async fn make_one(
    transfers: &Transfers,
    ends: &MirrorEnds,
    path: &VirtualPath,
) -> Result<(), ClientError> {
    match ends.direction {
        Direction::Download => ends.tree.create_directory(&below(&ends.local, path)?),
        Direction::Upload => {
            let absolute = below(&ends.remote, path)?;
            let mut session = transfers.pool().lease().await?;
            make_or_find(&mut *session, &absolute).await.map(drop)
        }
    }
}

async fn remove_all(
    transfers: &Transfers,
    ends: &MirrorEnds,
    entries: &[&TreeEntry],
    summary: &mut Summary,
) {
    for entry in entries {
        if transfers.cancel().is_cancelled() {
            return;
        }
        match remove_one(transfers, ends, entry).await {
            Ok(()) => {
                summary.removed += 1;
                transfers.observer().observe(Event::Removed {
                    side: target_side(ends.direction),
                    name: entry.path.as_relative_bytes(),
                });
            }
            Err(error) => tell_failure(transfers, ends, &entry.path, &error, summary),
        }
    }
}

async fn remove_one(
    transfers: &Transfers,
    ends: &MirrorEnds,
    entry: &TreeEntry,
) -> Result<(), ClientError> {
    let is_directory = entry.kind == EntryKind::Directory;
    match ends.direction {
        Direction::Download => {
            let path = below(&ends.local, &entry.path)?;
            if is_directory {
                ends.tree.remove_directory(&path)
            } else {
                ends.tree.remove_file(&path)
            }
        }
        Direction::Upload => {
            let path = below(&ends.remote, &entry.path)?;
            let mut session = transfers.pool().lease().await?;
            if is_directory {
                session.remove_directory(&path).await
            } else {
                session.remove(&path).await
            }
        }
    }
}

fn work_of(ends: &MirrorEnds, steps: &Steps<'_>) -> Result<Vec<Work>, ClientError> {
    steps
        .transfer
        .iter()
        .map(|(source, target)| {
            let remote = below(&ends.remote, &source.path)?;
            let local = below(&ends.local, &source.path)?;
            let tree = ends.tree.clone();
            Ok(match ends.direction {
                Direction::Download => Work::Download(Download {
                    remote,
                    listed: source.remote.clone().filter(is_exact),
                    tree,
                    local,
                }),
                Direction::Upload => Work::Upload(Upload {
                    tree,
                    local,
                    remote,
                    listed: match target {
                        None => Listed::Absent,
                        Some(target) => target
                            .remote
                            .clone()
                            .filter(is_exact)
                            .map_or(Listed::Unknown, Listed::Entry),
                    },
                }),
            })
        })
        .collect()
}

/// Whether a listing told all that a transfer's plan needs.
fn is_exact(entry: &crate::RemoteEntry) -> bool {
    entry.size.is_some()
        && entry.modified.is_some()
        && entry.precision == crate::remote::Precision::Second
}

fn tell_steps(transfers: &Transfers, ends: &MirrorEnds, steps: &Steps<'_>) {
    let side = target_side(ends.direction);
    let tell = |step, path: &VirtualPath| {
        transfers.observer().observe(Event::WouldDo {
            step,
            name: path.as_relative_bytes(),
        });
    };
    for entry in &steps.remove_first {
        tell(DryStep::Remove(side), &entry.path);
    }
    for path in &steps.make {
        tell(DryStep::MakeDirectory(side), path);
    }
    for (source, target) in &steps.transfer {
        let policy = transfers.options().policy;
        let action = plan(
            source.facts,
            target.map(|target| target.facts),
            None,
            policy,
        );
        if !matches!(action, Action::Skip(_)) {
            tell(DryStep::Transfer(ends.direction), &source.path);
        }
    }
    for entry in &steps.remove_last {
        tell(DryStep::Remove(side), &entry.path);
    }
}

fn tell_failure(
    transfers: &Transfers,
    ends: &MirrorEnds,
    path: &VirtualPath,
    error: &ClientError,
    summary: &mut Summary,
) {
    summary.add_failure(error);
    transfers.observer().observe(Event::StepFailed {
        side: target_side(ends.direction),
        name: path.as_relative_bytes(),
        error,
    });
}

fn target_side(direction: Direction) -> Side {
    match direction {
        Direction::Download => Side::Local,
        Direction::Upload => Side::Remote,
    }
}

#[cfg(test)]
mod with_server;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::Facts;

    fn tree(entries: &[(&str, EntryKind)]) -> Vec<TreeEntry> {
        entries
            .iter()
            .map(|(path, kind)| TreeEntry {
                path: VirtualPath::parse(path.as_bytes()).expect("a path"),
                kind: *kind,
                facts: Facts {
                    size: Some(1),
                    modified: None,
                    precision: Duration::from_secs(1),
                    incomplete: false,
                },
                remote: None,
            })
            .collect()
    }

    fn names(entries: &[&TreeEntry]) -> Vec<String> {
        entries.iter().map(|entry| entry.path.to_string()).collect()
    }

    const FILE: EntryKind = EntryKind::File;
    const DIRECTORY: EntryKind = EntryKind::Directory;
    const LINK: EntryKind = EntryKind::Symlink;

    #[test]
    fn what_is_missing_is_made_and_every_file_is_compared() {
        let source = tree(&[("/d", DIRECTORY), ("/d/new", FILE), ("/same", FILE)]);
        let target = tree(&[("/same", FILE), ("/extra", FILE)]);
        let steps = plan_mirror(&source, &target, false);
        assert_eq!(steps.make, [&source[0].path]);
        assert_eq!(
            steps.transfer,
            [(&source[1], None), (&source[2], Some(&target[0]))]
        );
        assert_eq!((steps.remove_first.len(), steps.remove_last.len()), (0, 0));
    }

    #[test]
    fn with_delete_what_the_source_lacks_goes_contents_first() {
        let source = tree(&[("/keep", FILE), ("/link", LINK)]);
        let target = tree(&[
            ("/keep", FILE),
            ("/link", FILE),
            ("/old", DIRECTORY),
            ("/old/deep", DIRECTORY),
            ("/old/deep/file", FILE),
        ]);
        let steps = plan_mirror(&source, &target, true);
        assert_eq!(
            names(&steps.remove_last),
            ["/old/deep/file", "/old/deep", "/old"]
        );
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_a_conflict_unless_it_may_be_removed() {
        let source = tree(&[("/x", DIRECTORY), ("/x/a", FILE), ("/y", FILE)]);
        let target = tree(&[("/x", FILE), ("/y", DIRECTORY), ("/y/b", FILE)]);
        let kept = plan_mirror(&source, &target, false);
        assert_eq!(kept.conflicts, [&source[0].path, &source[2].path]);
        assert_eq!((kept.make.len(), kept.transfer.len()), (0, 0));
        let replaced = plan_mirror(&source, &target, true);
        assert_eq!(names(&replaced.remove_first), ["/y/b", "/y", "/x"]);
        assert_eq!(replaced.make, [&source[0].path]);
        assert_eq!(replaced.transfer, [(&source[1], None), (&source[2], None)]);
        assert_eq!(names(&replaced.remove_last), Vec::<String>::new());
    }
}
