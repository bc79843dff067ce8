//! Wildcards in remote paths, resolved by listing directories.

use wharf_model::{EntryKind, FileName, VirtualPath};

use crate::error::ClientError;
use crate::filter::glob_path;
use crate::pool::Pool;
use crate::remote::RemoteEntry;
use crate::url::UrlPath;

/// Something that a person's path stands for.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it is.
    pub path: VirtualPath,
    /// What it is.
    pub entry: RemoteEntry,
}

/// What `path` stands for, in the order of names: one entry, or what its
/// wildcards match. A path with wildcards that match nothing may still be a
/// name that holds these characters.
///
/// # Errors
/// [`ClientError::NotFound`] when nothing matches, and whatever listings fail with.
pub async fn expand(
    pool: &Pool,
    login_directory: &VirtualPath,
    path: &UrlPath,
    retries: u32,
) -> Result<Vec<Found>, ClientError> {
    if path.has_wildcards() {
        let found = expand_wildcards(pool, login_directory, path, retries).await?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let literal = path
        .literal(login_directory)
        .map_err(|source| ClientError::BadName {
            name: path.to_string(),
            source,
        })?;
    let entry = stat(pool, &literal, retries).await?;
    Ok(vec![Found {
        path: literal,
        entry,
    }])
}

async fn expand_wildcards(
    pool: &Pool,
    login_directory: &VirtualPath,
    path: &UrlPath,
    retries: u32,
) -> Result<Vec<Found>, ClientError> {
    let mut places = vec![(path.start(login_directory), None)];
    for component in path.components() {
        let mut next = Vec::new();
        for (place, entry) in places {
            let Some(pattern) = &component.pattern else {
                // A literal step may lead nowhere; the last stat finds out.
                next.extend(place.resolve(&component.name).ok().map(|path| (path, None)));
                continue;
            };
            if entry.as_ref().is_some_and(is_no_directory) {
                continue;
            }
            let shows_hidden = component.name.starts_with(b".");
            let mut entries = list(pool, &place, retries).await?;
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            for entry in entries {
                let hidden = entry.name.starts_with(b".") && !shows_hidden;
                if hidden || !pattern.is_match(glob_path(&entry.name)) {
                    continue;
                }
                // A name with a slash in it matches nothing.
                let child = FileName::parse(&entry.name).and_then(|name| place.join(&name));
                next.extend(child.ok().map(|path| (path, Some(entry))));
            }
            if next.len() > MAX_MATCHES {
                return Err(ClientError::Protocol(
                    "the wildcards match too much".to_owned(),
                ));
            }
        }
        places = next;
    }
    let mut found = Vec::new();
    for (path, entry) in places {
        match entry {
            Some(entry) => found.push(Found { path, entry }),
            None => match stat(pool, &path, retries).await {
                Ok(entry) => found.push(Found { path, entry }),
                Err(ClientError::NotFound(_)) => {}
                Err(error) => return Err(error),
            },
        }
    }
    Ok(found)
}

/// What stands at `path`.
///
/// # Errors
/// [`ClientError::NotFound`], and whatever ends sessions.
pub async fn stat(
    pool: &Pool,
    path: &VirtualPath,
    retries: u32,
) -> Result<RemoteEntry, ClientError> {
    pool.repeat(retries, |session| {
        let path = path.clone();
        Box::pin(async move { session.stat(&path).await })
    })
    .await
}

/// The entries of the directory at `path`.
///
/// # Errors
/// [`ClientError::NotFound`], and whatever ends sessions.
pub async fn list(
    pool: &Pool,
    path: &VirtualPath,
    retries: u32,
) -> Result<Vec<RemoteEntry>, ClientError> {
    pool.repeat(retries, |session| {
        let path = path.clone();
        Box::pin(async move { session.list(&path).await })
    })
    .await
}

fn is_no_directory(entry: &RemoteEntry) -> bool {
    matches!(entry.kind, EntryKind::File | EntryKind::Other)
}

/// Most entries that one pattern may stand for.
const MAX_MATCHES: usize = 1_000_000;
