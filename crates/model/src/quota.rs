//! How much an account holds and how much it may hold.

use std::ops::{Add, AddAssign};

/// What is stored: bytes of regular files (by length, not by disk blocks) and
/// number of entries. A directory or link counts as one entry of 0 bytes; the
/// home itself does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// Sum of the lengths of all regular files.
    pub bytes: u64,
    /// Number of entries: files, directories, links.
    pub files: u64,
}

impl Usage {
    /// Nothing.
    pub const ZERO: Self = Self { bytes: 0, files: 0 };

    /// The difference, stopping at zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
        }
    }
}

impl Add for Usage {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// An account's limits; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct QuotaLimits {
    /// Most bytes.
    pub bytes: Option<u64>,
    /// Most entries.
    pub files: Option<u64>,
}
