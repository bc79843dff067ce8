//! A walk over everything below a directory, however deep.
//!
//! A tree can be deeper than a path is long or a process has descriptors: each rename
//! of a directory into another adds their depths. So the walk holds the descriptors of
//! the deepest few levels only, and comes back to the others by `..`, where it goes on
//! only if it finds the very directory that it left.

use std::fs::File;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, Metadata};
use rustix::fs::{Mode, OFlags};
use wharf_model::{Refusal, Usage};

use super::Wanted;
use super::beneath::{identity, refusal};

/// Most levels whose descriptors are held: far deeper than trees are that people make.
const HELD_LEVELS: usize = 64;

/// Called with a directory, the name of an entry in it, and its facts.
pub(super) type Visit<'a> = dyn FnMut(&Dir, &Path, &Metadata) -> Usage + 'a;

/// One directory on the way from the root to where the walk is.
struct Level {
    /// `None` while too many deeper ones are held.
    directory: Option<Dir>,
    identity: (u64, u64),
    /// Directories in it that are still to be walked.
    pending: Vec<PathBuf>,
}

/// Calls `visit` for everything below `root` and adds up what it says. Links are not
/// followed; what vanishes meanwhile is passed over, and so, with a warning, is what the
/// server may not read.
///
/// # Errors
/// `Io` when a directory cannot be read, or nobody waits any more; `Busy` when a very deep one was
/// moved meanwhile.
pub(super) fn walk(root: &Dir, wanted: &Wanted, visit: &mut Visit<'_>) -> Result<Usage, Refusal> {
    let mut total = Usage::ZERO;
    let root = root.open_dir(".").map_err(refusal)?;
    let mut levels = vec![enter(root, visit, &mut total)?];
    while let Some(level) = levels.last_mut() {
        wanted.check()?;
        let (Some(directory), Some(name)) = (&level.directory, level.pending.pop()) else {
            leave(&mut levels)?;
            continue;
        };
        match directory.open_dir(&name).map_err(refusal) {
            Ok(child) => {
                levels.push(enter(child, visit, &mut total)?);
                let_go(&mut levels);
            }
            // It went, or something else took its name, since it was seen.
            Err(Refusal::NotFound | Refusal::NotADirectory | Refusal::LinkLoop) => {}
            Err(Refusal::SystemDenied) => {
                tracing::warn!("a directory could not be read and its content is not counted");
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(total)
}

fn enter(directory: Dir, visit: &mut Visit<'_>, total: &mut Usage) -> Result<Level, Refusal> {
    let mut pending = Vec::new();
    for found in directory.entries().map_err(refusal)? {
        let found = found.map_err(refusal)?;
        let Ok(metadata) = found.metadata() else {
            continue;
        };
        let name = PathBuf::from(found.file_name());
        *total += visit(&directory, &name, &metadata);
        if metadata.is_dir() {
            pending.push(name);
        }
    }
    let identity = identity(&directory.dir_metadata().map_err(refusal)?);
    Ok(Level {
        directory: Some(directory),
        identity,
        pending,
    })
}

/// Gives up the descriptor that is now too far up.
fn let_go(levels: &mut [Level]) {
    let far = levels.len().checked_sub(HELD_LEVELS + 1);
    if let Some(level) = far.and_then(|at| levels.get_mut(at)) {
        level.directory = None;
    }
}

/// Goes back one level up, and opens that again if its descriptor was given up.
fn leave(levels: &mut Vec<Level>) -> Result<(), Refusal> {
    let left = levels.pop().and_then(|level| level.directory);
    let (Some(left), Some(level)) = (left, levels.last_mut()) else {
        return Ok(());
    };
    if level.directory.is_some() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(&left, "..", flags, Mode::empty())
        .map_err(|error| refusal(error.into()))?;
    let above = Dir::from_std_file(File::from(above));
    if identity(&above.dir_metadata().map_err(refusal)?) != level.identity {
        return Err(Refusal::Busy);
    }
    level.directory = Some(above);
    Ok(())
}

#[cfg(test)]
mod tests {
    use cap_std::ambient_authority;

    use super::*;

    fn count(root: &Dir) -> Usage {
        let each = &mut |_: &Dir, _: &Path, metadata: &Metadata| Usage {
            bytes: if metadata.is_file() {
                metadata.len()
            } else {
                0
            },
            files: 1,
        };
        let waiter = std::sync::Arc::new(());
        let wanted = Wanted(std::sync::Arc::downgrade(&waiter));
        walk(root, &wanted, each).expect("a readable tree")
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_path_lengths_allow_is_counted() {
        const DEPTH: u64 = 1500;
        let home = tempfile::tempdir().expect("a directory");
        let root = Dir::open_ambient_dir(home.path(), ambient_authority()).expect("opens");
        let mut at = root.try_clone().expect("a descriptor");
        for _ in 0..DEPTH {
            at.create_dir("deeper").expect("made");
            at.write("file", b"123").expect("written");
            at = at.open_dir("deeper").expect("opens");
        }
        let expected = Usage {
            bytes: 3 * DEPTH,
            files: 2 * DEPTH,
        };
        assert_eq!(count(&root), expected);
    }

    #[test]
    fn links_are_counted_and_not_followed() {
        let home = tempfile::tempdir().expect("a directory");
        let root = Dir::open_ambient_dir(home.path(), ambient_authority()).expect("opens");
        root.create_dir("d").expect("made");
        root.write("d/file", b"12345").expect("written");
        root.symlink("d", "to_d").expect("linked");
        root.symlink("..", "d/up").expect("linked");
        assert_eq!(count(&root), Usage { bytes: 5, files: 4 });
    }

    #[test]
    fn a_walk_that_nobody_waits_for_stops() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Dir::open_ambient_dir(directory.path(), ambient_authority());
        let wanted = Wanted(std::sync::Weak::new());
        let walked = walk(&root.expect("opens"), &wanted, &mut |_, _, _| Usage::ZERO);
        assert!(matches!(walked, Err(Refusal::Io(_))));
    }
}
