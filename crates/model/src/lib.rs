//! The nouns of Wharf: what every other crate names, and nothing that does IO.
//!
//! ```text
//! VirtualPath, FileName   where            Entry, EntryKind   what stands there
//! Permissions, Rules      who may          Refusal            why not
//! Digest, Hasher          proof            Usage, QuotaLimits how much
//! Secret, AccountName     who              ByteRange, ByteSize numbers with units
//! NetworkSet              from where
//! ```
//!
//! Invariant: no async, no sockets, no files. A type that is constructed is valid;
//! nothing below the edge that built it checks it again.

mod digest;
mod entry;
mod id;
mod network;
mod path;
mod permission;
mod quota;
mod refusal;
mod secret;
mod size;

pub use digest::{Digest, DigestAlgorithm, Hasher, UnknownAlgorithm};
pub use entry::{Entry, EntryKind};
pub use id::{AccountId, AccountName, InvalidAccountName, SessionId};
pub use network::{InvalidNetwork, NetworkSet};
pub use path::{
    DisplayPiece, FileName, PathError, VirtualPath, cut_for_display, display_pieces,
    escape_for_display,
};
pub use permission::{PermissionRules, Permissions, UnknownPermission};
pub use quota::{QuotaLimits, Usage};
pub use refusal::{QuotaKind, Refusal};
pub use secret::Secret;
pub use size::{ByteRange, ByteSize, InvalidByteSize};
