//! The virtual file system: what an account sees, may do and may fill.
//!
//! ```text
//! Vfs ─► authorize (permissions) ─► Ledger (quota) ─► Storage (local, memory)
//!  │                                                    │
//!  └─ Upload: reserve ─► write ─► commit | cut | discard ┘   Download, Listing, digests
//! ```
//!
//! Invariants: nothing reaches a storage that the permission gate has not
//! passed; no byte is written that the ledger has not reserved; a name shows a
//! whole file, or one that is marked incomplete; what is open counts for an [`OpenLimit`].

mod authorize;
mod digesting;
mod home;
mod open;
mod quota;
pub mod storage;
mod upload;
mod vfs;

pub use home::Home;
pub use open::OpenLimit;
pub use quota::{ForeignActivity, Ledger, NoJournal, QuotaReport, UsageJournal};
pub use upload::{Committed, Disposition, Existing, Upload, UploadOptions, WriteOptions};
pub use vfs::{Download, EntryPermissions, Listing, Partial, Vfs};
