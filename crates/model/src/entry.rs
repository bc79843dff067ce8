//! What stands under a name: the facts that listings and status replies are made of.

use std::time::SystemTime;

/// One file-system entry, as a storage reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last path component as it stands in the storage; raw bytes, which
    /// may include line ends when something else than Wharf made it.
    pub name: Vec<u8>,
    /// File, directory, symbolic link or something else.
    pub kind: EntryKind,
    /// Bytes of content; 0 for what is not a file.
    pub size: u64,
    /// Last modification of the content, UTC.
    pub modified: SystemTime,
    /// Permission bits (the low 12 of `st_mode`).
    pub mode: u32,
    /// Numeric owner on the storage.
    pub owner: u32,
    /// Numeric group on the storage.
    pub group: u32,
    /// Number of hard links.
    pub links: u64,
    /// Identity that survives a rename: device and inode on a disk; `None`
    /// where the storage has none.
    pub unique: Option<(u64, u64)>,
    /// An upload to this file was cut and can be resumed at `size`.
    pub incomplete: bool,
}

/// What kind of thing an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link that was not followed (it leaves the tree, dangles, or was asked for itself).
    Symlink,
    /// A device, socket or pipe: listed, never opened.
    Other,
}
