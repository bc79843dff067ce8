//! Why an operation on the tree was refused.
//!
//! The peer's text and code are made in each protocol's `refusal.rs`; the log
//! gets `Display` and the source chain. No variant carries a host path.

use std::io;

use crate::PathError;

/// Why the virtual file system did not do what was asked. A variant exists
/// because a protocol answers it differently.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing stands under the name, or it leads out of the home.
    #[error("no such file or directory")]
    NotFound,
    /// A component of the path, or the target, is not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// The target is a directory where a file is needed.
    #[error("is a directory")]
    IsADirectory,
    /// The target is a device, socket or pipe.
    #[error("not a regular file")]
    NotAFile,
    /// Something already stands under the name.
    #[error("already exists")]
    AlreadyExists,
    /// The directory to remove still holds entries.
    #[error("directory not empty")]
    NotEmpty,
    /// The account's permissions do not allow it here.
    #[error("the account's permissions do not allow this here")]
    NotPermitted,
    /// The server's operating system denies the server itself.
    #[error("the server may not do this")]
    SystemDenied,
    /// The name cannot be created.
    #[error("invalid name: {0}")]
    InvalidName(#[from] PathError),
    /// More symbolic links than the system follows.
    #[error("too many symbolic links")]
    LinkLoop,
    /// The account's quota would be passed.
    #[error("over quota: {0}")]
    OverQuota(QuotaKind),
    /// The disk below is full.
    #[error("the storage is full")]
    StorageFull,
    /// No file can be as large as this one would become.
    #[error("the file would be too large")]
    TooLarge,
    /// Another transfer is writing to the file in place.
    #[error("another transfer is writing to the file")]
    Busy,
    /// As many files and directories are open as may be at one time.
    #[error("too many open files")]
    TooManyOpen,
    /// A restart offset beyond the end of the file.
    #[error("offset {offset} is beyond the end of the file at {size}")]
    OffsetBeyondEnd {
        /// Offset asked for, in bytes.
        offset: u64,
        /// Length of the file, in bytes.
        size: u64,
    },
    /// The storage cannot do this at all.
    #[error("the storage does not support this")]
    Unsupported,
    /// The operating system failed in a way that no variant above names.
    #[error("input/output error")]
    Io(#[source] io::Error),
}

/// Which limit of a quota was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaKind {
    /// The limit on bytes.
    Bytes,
    /// The limit on entries.
    Files,
}

impl std::fmt::Display for QuotaKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Files => "files",
        })
    }
}
