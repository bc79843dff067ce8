//! Wildcards of a word, resolved against the virtual file system.

use wharf_model::{EntryKind, Refusal, VirtualPath};
use wharf_proto::exec::pattern::{Pattern, has_wildcards, unescape};
use wharf_vfs::Vfs;

/// Most names that a word with wildcards may become, and most that one of its components
/// may have matched on the way.
pub(super) const MAX_NAMES: usize = 20_000;

/// The names that `pattern` matches, as they would be typed, in order; none where nothing
/// matches. Directories that cannot be listed match nothing.
///
/// # Errors
/// [`NotExpanded`].
pub(super) async fn expand(
    vfs: &Vfs,
    directory: &VirtualPath,
    pattern: &[u8],
) -> Result<Vec<Vec<u8>>, NotExpanded> {
    let (mut typed, pattern) = match pattern.strip_prefix(b"/") {
        Some(rest) => (vec![b"/".to_vec()], rest),
        None => (vec![Vec::new()], pattern),
    };
    let components: Vec<&[u8]> = pattern
        .split(|byte| *byte == b'/')
        .filter(|component| !component.is_empty())
        .collect();
    let only_directories = pattern.ends_with(b"/");
    for (at, component) in components.iter().enumerate() {
        let inner = at + 1 < components.len() || only_directories;
        typed = if has_wildcards(component) {
            let pattern = Pattern::parse(component);
            matches(vfs, directory, typed, &pattern, inner).await?
        } else {
            let name = unescape(component);
            existing(vfs, directory, typed, &name).await
        };
        if inner {
            typed.iter_mut().for_each(|name| name.push(b'/'));
        }
    }
    typed.sort_unstable();
    Ok(typed)
}

async fn matches(
    vfs: &Vfs,
    directory: &VirtualPath,
    heads: Vec<Vec<u8>>,
    pattern: &Pattern,
    only_directories: bool,
) -> Result<Vec<Vec<u8>>, NotExpanded> {
    let mut found = Vec::new();
    for head in heads {
        let Ok(place) = directory.resolve(&head) else {
            continue;
        };
        let Ok(mut listing) = vfs.list(&place).await else {
            continue;
        };
        while let Some(batch) = listing.next_batch().await? {
            for entry in batch {
                let fits = !only_directories || entry.kind == EntryKind::Directory;
                if fits && pattern.matches_visible(&entry.name) {
                    found.push([head.as_slice(), &entry.name].concat());
                }
            }
            if found.len() > MAX_NAMES {
                return Err(NotExpanded::TooManyNames);
            }
        }
    }
    Ok(found)
}

/// A component without wildcards behind one that had them.
async fn existing(
    vfs: &Vfs,
    directory: &VirtualPath,
    heads: Vec<Vec<u8>>,
    name: &[u8],
) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for mut head in heads {
        head.extend_from_slice(name);
        let Ok(path) = directory.resolve(&head) else {
            continue;
        };
        if vfs.link_metadata(&path).await.is_ok() {
            found.push(head);
        }
    }
    found
}

/// Why a word with wildcards stands for nothing.
#[derive(Debug)]
pub(super) enum NotExpanded {
    /// More than [`MAX_NAMES`].
    TooManyNames,
    /// A directory was refused half-way.
    Refused(Refusal),
}

impl From<Refusal> for NotExpanded {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
