//! Requests for names: facts, changes of attributes, directories, renames, links, space.

use std::time::SystemTime;

use bytes::Bytes;
use wharf_model::{Entry, EntryKind, Refusal, VirtualPath};
use wharf_proto::sftp::{
    Attributes, MAX_READ_BYTES, Name, Owner, Response, StatVfs, Times, UserGroupNames,
};
use wharf_vfs::Vfs;

use super::refusal::Problem;

/// Mode bits that new files and directories never get: those that let others write (umask 022).
const NEVER_NEW: u32 = 0o022;

/// Unit in which space is told, as most file systems have it.
const BLOCK_BYTES: u64 = 4096;

/// `ST_NOSUID` of statvfs(3): nothing here runs as somebody else.
const NO_SUID: u64 = 2;

/// What happens to changes of mode and times that the account may not make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributePolicy {
    /// They are refused.
    Refuse,
    /// They are passed over in silence: some clients set them after each upload, and report an
    /// upload as failed when they cannot.
    Ignore,
}

impl AttributePolicy {
    /// What becomes of a change.
    pub(super) fn judge(self, changed: Result<(), Refusal>) -> Result<(), Problem> {
        match (self, changed) {
            (Self::Ignore, Err(Refusal::NotPermitted)) => Ok(()),
            (_, changed) => changed.map_err(Problem::from),
        }
    }
}

/// Attributes that are to change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changes {
    pub(super) length: Option<u64>,
    pub(super) mode: Option<u32>,
    pub(super) modified: Option<SystemTime>,
    pub(super) owner: Option<OwnerChange>,
}

/// An owner that somebody wants a file to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnerChange(Owner);

impl OwnerChange {
    /// The owner stays; who asks for the one that is there gets it.
    pub(super) fn check(self, entry: &Entry, policy: AttributePolicy) -> Result<(), Problem> {
        let is_the_same = (self.0.user, self.0.group) == (entry.owner, entry.group);
        if is_the_same || policy == AttributePolicy::Ignore {
            Ok(())
        } else {
            Err(Problem::OwnerFixed)
        }
    }
}

impl From<Attributes> for Changes {
    fn from(attributes: Attributes) -> Self {
        Self {
            length: attributes.size,
            mode: attributes.permissions.map(|mode| mode & 0o777),
            modified: attributes.times.map(Times::modified),
            owner: attributes.owner.map(OwnerChange),
        }
    }
}

/// The mode of something new, from what the client says of it.
pub(super) fn new_mode(attributes: &Attributes) -> Option<u32> {
    let mode = attributes.permissions?;
    Some(mode & 0o777 & !NEVER_NEW)
}

/// Changes the attributes of what stands under a path.
pub(super) async fn set_by_path(
    vfs: &Vfs,
    path: &VirtualPath,
    changes: &Changes,
    policy: AttributePolicy,
) -> Result<(), Problem> {
    if let Some(length) = changes.length {
        vfs.set_length(path, length).await?;
    }
    if let Some(owner) = changes.owner {
        owner.check(&vfs.metadata(path).await?, policy)?;
    }
    if let Some(mode) = changes.mode {
        policy.judge(vfs.set_mode(path, mode).await)?;
    }
    if let Some(modified) = changes.modified {
        policy.judge(vfs.set_modified(path, modified).await)?;
    }
    Ok(())
}

/// As [`set_by_path`], of a link itself, which has nothing that could change.
pub(super) async fn set_of_link(
    vfs: &Vfs,
    path: &VirtualPath,
    changes: &Changes,
    policy: AttributePolicy,
) -> Result<(), Problem> {
    if vfs.link_metadata(path).await?.kind == EntryKind::Symlink {
        return Err(Problem::Refused(Refusal::Unsupported));
    }
    set_by_path(vfs, path, changes, policy).await
}

pub(super) async fn make_directory(
    vfs: &Vfs,
    path: &VirtualPath,
    attributes: &Attributes,
) -> Result<(), Problem> {
    vfs.make_directory(path).await?;
    tracing::info!(%path, "directory made");
    if let Some(mode) = new_mode(attributes) {
        // A wish and no condition: whoever may not change modes still makes directories.
        let _ = vfs.set_mode(path, mode).await;
    }
    Ok(())
}

/// Where a link leads, as an absolute path: what it says may name places of the host.
pub(super) async fn read_link(vfs: &Vfs, path: &VirtualPath) -> Result<Response, Problem> {
    if vfs.link_metadata(path).await?.kind != EntryKind::Symlink {
        return Err(Problem::NotALink);
    }
    Ok(path_response(&vfs.resolve_links(path).await?))
}

/// One path as an answer.
pub(super) fn path_response(path: &VirtualPath) -> Response {
    let name = Bytes::copy_from_slice(path.as_bytes());
    Response::Names(vec![Name {
        long_name: name.clone(),
        name,
        attributes: Attributes::default(),
    }])
}

/// A path that may begin with `~`.
pub(super) fn expand(path: &[u8]) -> Result<VirtualPath, Problem> {
    match path.strip_prefix(b"~") {
        None => Ok(VirtualPath::parse(path)?),
        Some(rest) if rest.is_empty() || rest.first() == Some(&b'/') => {
            Ok(VirtualPath::parse(rest)?)
        }
        Some(_) => Err(Problem::NotYourHome),
    }
}

/// Space as the account's quota and the storage have it.
pub(super) async fn space(vfs: &Vfs) -> Result<Response, Problem> {
    let report = vfs.available().await?;
    let left = report.bytes_left().min(i64::MAX.unsigned_abs());
    let all = report.usage.bytes.saturating_add(left);
    // Without a limit there are as many as anybody will make.
    let files = report.limits.files.unwrap_or(u64::from(u32::MAX));
    let files_free = files.saturating_sub(report.usage.files);
    Ok(StatVfs {
        block_bytes: BLOCK_BYTES,
        fragment_bytes: BLOCK_BYTES,
        blocks: all.div_ceil(BLOCK_BYTES),
        blocks_free: left / BLOCK_BYTES,
        blocks_available: left / BLOCK_BYTES,
        files,
        files_free,
        files_available: files_free,
        id: 0,
        flags: NO_SUID,
        name_bytes: 255,
    }
    .to_response())
}

/// The account's name for the one who owns its home, and none for others.
pub(super) async fn owner_names(
    vfs: &Vfs,
    account: &Bytes,
    users: &[u32],
    groups: &[u32],
) -> Result<Response, Problem> {
    let answer_bytes = (users.len() + groups.len()).saturating_mul(account.len() + 4);
    if answer_bytes > MAX_READ_BYTES {
        return Err(Problem::LongAnswer);
    }
    let home = vfs.metadata(&VirtualPath::root()).await?;
    let name = |number: u32, owner: u32| {
        if number == owner {
            account.clone()
        } else {
            Bytes::new()
        }
    };
    Ok(UserGroupNames {
        users: users.iter().map(|user| name(*user, home.owner)).collect(),
        groups: groups
            .iter()
            .map(|group| name(*group, home.group))
            .collect(),
    }
    .to_response())
}
