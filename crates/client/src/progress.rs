//! What a transfer reports while it runs. The library tells; the caller shows.

use std::time::Duration;

use crate::error::ClientError;
use crate::plan::{SkipReason, WeakEvidence};
use wharf_model::DigestAlgorithm;

/// Takes in what happens. Called from many tasks at once and inside of them:
/// an implementation returns soon and never blocks.
pub trait Observer: Send + Sync {
    /// Takes in one event.
    fn observe(&self, event: Event<'_>);
}

/// An observer that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _: Event<'_>) {}
}

/// The number of a transfer within one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub u64);

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the server.
    Download,
    /// To the server.
    Upload,
}

/// Which side a file or directory is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// This machine.
    Local,
    /// The server.
    Remote,
}

/// Something that happened. Names are raw bytes: whoever shows them escapes them.
#[derive(Debug)]
pub enum Event<'a> {
    /// Transfers became known: so many files and bytes are to be moved or skipped.
    Planned {
        /// Number of files.
        files: u64,
        /// Sum of their sizes, as far as known.
        bytes: u64,
    },
    /// Bytes start to move. After a retry it is told again, with the new offset.
    Started {
        /// Which transfer.
        id: TransferId,
        /// Which way.
        direction: Direction,
        /// Path of the target, relative to what the person named.
        name: &'a [u8],
        /// Length of the whole file, if known.
        size: Option<u64>,
        /// How much of it the target side holds already.
        offset: u64,
        /// How that begin was proven; `None` where the transfer starts at the first byte.
        evidence: Option<Evidence>,
    },
    /// More bytes were moved.
    Advanced {
        /// Which transfer.
        id: TransferId,
        /// How many since the last event.
        bytes: u64,
    },
    /// All bytes are there; their digests are being compared.
    Verifying {
        /// Which transfer.
        id: TransferId,
        /// How.
        algorithm: DigestAlgorithm,
    },
    /// The attempt failed, and another one will follow.
    Retrying {
        /// Which transfer.
        id: TransferId,
        /// Path of the target.
        name: &'a [u8],
        /// Number of the attempt that follows, from 2.
        attempt: u32,
        /// How long is waited before it.
        after: Duration,
        /// What went wrong.
        error: &'a ClientError,
    },
    /// The file is in place.
    Finished {
        /// Which transfer.
        id: TransferId,
        /// Which way.
        direction: Direction,
        /// Path of the target.
        name: &'a [u8],
        /// What was done.
        outcome: &'a Outcome,
    },
    /// The transfer failed for good.
    Failed {
        /// Which transfer.
        id: TransferId,
        /// Which way.
        direction: Direction,
        /// Path of the target.
        name: &'a [u8],
        /// Why.
        error: &'a ClientError,
    },
    /// A directory was made.
    DirectoryMade {
        /// Where.
        side: Side,
        /// Its path.
        name: &'a [u8],
    },
    /// Something that the source does not have was removed from the target.
    Removed {
        /// Where.
        side: Side,
        /// Its path.
        name: &'a [u8],
    },
    /// A directory could not be made, or an entry not removed.
    StepFailed {
        /// Where.
        side: Side,
        /// Its path.
        name: &'a [u8],
        /// Why.
        error: &'a ClientError,
    },
    /// A dry run would do this.
    WouldDo {
        /// What.
        step: DryStep,
        /// The path it is about.
        name: &'a [u8],
    },
    /// An entry is left out.
    LeftOut {
        /// Its path.
        name: &'a [u8],
        /// Why.
        reason: LeftOut,
    },
}

/// A step that a dry run tells and does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryStep {
    /// Transfer a file.
    Transfer(Direction),
    /// Make a directory.
    MakeDirectory(Side),
    /// Remove a file, link or directory.
    Remove(Side),
}

/// Why an entry of a tree is not transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// A symbolic link; they are not followed.
    Symlink,
    /// A device, socket or pipe.
    NotAFile,
    /// Its name cannot be used on the other side.
    UnsafeName,
    /// A file stands where the other side has a directory, or the reverse.
    KindDiffers,
    /// A partial download, or a file that is called like one.
    Partial,
    /// Deeper than any tree should be.
    TooDeep,
}

/// What a finished transfer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether anything was moved, and from where on.
    pub done: Done,
    /// Bytes moved over the network in all attempts.
    pub moved_bytes: u64,
    /// Length of the whole file.
    pub size: u64,
    /// How the result was compared with its source.
    pub verified: Verified,
    /// Time from the first attempt to the end.
    pub elapsed: Duration,
    /// Number of attempts, from 1; 0 where nothing was moved.
    pub attempts: u32,
}

/// Whether a transfer moved anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Nothing was moved.
    Skipped(SkipReason),
    /// Everything was moved.
    Whole,
    /// The rest from `offset` on was moved.
    Resumed {
        /// Length of what was there.
        offset: u64,
        /// How it was proven.
        evidence: Evidence,
    },
}

/// How the begin of a resumed file was shown to be the source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Both ends made the same digest of it.
    Digest(DigestAlgorithm),
    /// This very transfer moved it in an attempt before, and the source is as it was.
    SameTransfer,
    /// Its size and time fit; the server offers no digest of a range.
    SizeAndTime,
    /// Its size fits; nothing else is known.
    Size,
}

impl From<WeakEvidence> for Evidence {
    fn from(evidence: WeakEvidence) -> Self {
        match evidence {
            WeakEvidence::SameTransfer => Self::SameTransfer,
            WeakEvidence::SizeAndTime => Self::SizeAndTime,
            WeakEvidence::Size => Self::Size,
        }
    }
}

/// How a finished transfer was compared with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Both ends made the same digest of the whole.
    Digest(DigestAlgorithm),
    /// The number of bytes is the source's; the server offers no digest.
    Size,
    /// Not at all: nobody asked, or the server tells neither digest nor size.
    No,
}
